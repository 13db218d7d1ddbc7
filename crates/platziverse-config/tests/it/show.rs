use crate::Dir;

#[test]
fn every_setting_is_shown_with_where_it_came_from_and_without_secrets() {
    let dir = Dir::new().with(
        "platziverse.toml",
        "[amqp]\nurl = 'amqp://u:hunter2@mq'\n[gateway]\n\
         users = [{ username = 'a', password_hash = '$argon2id$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA' }]",
    );
    let loaded = dir.load(&[("PLATZIVERSE_INGEST__WRITERS", "3"), ("DB_PASS", "hunter2")]);
    let here = format!("{}/", dir.path().display());
    let shown: Vec<String> = loaded
        .show()
        .iter()
        .map(|row| format!("{} = {} # {}", row.key, row.text, row.origin.describe(&row.key)))
        .map(|line| line.replace(&here, ""))
        .collect();
    for line in [
        "amqp.url = [redacted] # platziverse.toml",
        "amqp.host = \"mq\" # platziverse.toml (amqp.url)",
        "amqp.password = [redacted] # platziverse.toml (amqp.url)",
        "amqp.connect_timeout = \"5s\" # default",
        "database.url = (not set) # default",
        "database.password = [redacted] # DB_PASS",
        "gateway.users = [{\"password_hash\":\"[redacted]\",\"publish\":[\"#\"],\
         \"subscribe\":[\"#\"],\"username\":\"a\"}] # platziverse.toml",
        "ingest.writers = 3 # PLATZIVERSE_INGEST__WRITERS",
    ] {
        assert!(shown.iter().any(|shown| shown == line), "{line} is not in {shown:#?}");
    }
    let shown = format!("{shown:?} {:?}", loaded.show());
    assert!(!shown.contains("hunter2") && !shown.contains("aGFzaGhhc2g"), "{shown}");
}

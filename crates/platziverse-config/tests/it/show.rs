use crate::Dir;

#[test]
fn every_setting_is_shown_with_where_it_came_from_and_without_secrets() {
    let dir = Dir::new().with(
        "platziverse.toml",
        "[amqp]\nurl = 'amqp://u:hunter2@mq'\n[gateway]\n\
         users = [{ username = 'a', password_hash = '$argon2hunter2' }]",
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
    let json = loaded.to_json();
    assert_eq!(json["ingest.writers"]["value"], 3);
    assert_eq!(json["ingest.writers"]["origin"], "PLATZIVERSE_INGEST__WRITERS");
    assert!(!json.to_string().contains("hunter2"));
    assert!(!shown.concat().contains("hunter2"));
}

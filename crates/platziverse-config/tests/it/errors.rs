use crate::Dir;

#[track_caller]
fn file(text: &str, expected: &[&str]) {
    assert_eq!(Dir::new().with("platziverse.toml", text).problems(&[]), expected, "{text}");
}

#[track_caller]
fn env(name: &str, text: &str, expected: &str) {
    let problems = Dir::new().problems(&[(name, text)]);
    assert_eq!(problems, [format!("{name}: {expected}")], "{name}={text}");
}

#[test]
fn all_errors_come_at_once() {
    let dir = Dir::new().with(
        "platziverse.toml",
        "[amqp]\nprot = 1\nport = \"x\"\nhost = \"ok\"\n[ampq]\nhost = 1\n\
         [gateway]\nmax_packet_size = 1\nusers = [{ username = \"a\" }]\n",
    );
    let mut problems = dir.problems(&[
        ("PLATZIVERSE_DATABASE__POOL_SIZE", "many"),
        ("PLATZIVERSE_DATABASE_POOL_SIZE", "8"),
        ("RABBITMQ_PREFETCH_COUNT", "0"),
    ]);
    problems.sort();
    assert_eq!(
        problems,
        [
            "PLATZIVERSE_DATABASE_POOL_SIZE: no such setting; did you mean \
             PLATZIVERSE_DATABASE__POOL_SIZE?",
            "PLATZIVERSE_DATABASE__POOL_SIZE: database.pool_size: found \"many\"; allowed: a whole \
             number from 1 to 1000",
            "RABBITMQ_PREFETCH_COUNT: tasks.prefetch: found 0; allowed: a whole number from 1 \
             to 65535",
            "platziverse.toml: ampq: no such setting; did you mean amqp?",
            "platziverse.toml: amqp.port: found \"x\"; allowed: a whole number from 1 to 65535",
            "platziverse.toml: amqp.prot: no such setting; did you mean amqp.port?",
            "platziverse.toml: gateway.max_packet_size: found 1; allowed: a whole number from \
             270336 to 8388608",
            "platziverse.toml: gateway.users[0].password_hash: found nothing; allowed: text of 1 \
             to 1024 bytes",
        ]
    );
}

#[test]
fn a_setting_that_does_not_exist_has_the_nearest_beside_it() {
    let unknown = |key: &str, nearest: &str| {
        let (section, name) = key.split_once('.').unwrap();
        let did = if nearest.is_empty() { "" } else { "; did you mean " };
        let end = if nearest.is_empty() { "" } else { "?" };
        let line = format!("platziverse.toml: {key}: no such setting{did}{nearest}{end}");
        file(&format!("[{section}]\n{name} = 1"), &[&line]);
    };
    unknown("amqp.user", "amqp.username");
    unknown("amqp.pasword", "amqp.password");
    unknown("database.poolsize", "database.pool_size");
    unknown("gateway.max_conections", "gateway.max_connections");
    unknown("tasks.retention_days", "ingest.retention_days");
    unknown("log.zzzzzz", "");
    file(
        "pool_size = 1",
        &["platziverse.toml: pool_size: no such setting; did you mean database.pool_size?"],
    );
    file(
        "DB_HOST = 1",
        &["platziverse.toml: DB_HOST: no such setting; did you mean database.host?"],
    );
    file(
        "gateway.routes = [{ filter = 'a', queu = 'b', queue = 'c' }]",
        &["platziverse.toml: gateway.routes[0].queu: no such setting; did you mean queue?"],
    );
    env("PLATZIVERSE_AMQP__HOTS", "x", "no such setting; did you mean PLATZIVERSE_AMQP__HOST?");
    env("PLATZIVERSE_ZZZZZZZZZZ", "x", "no such setting");
}

#[test]
fn values_that_are_not_allowed() {
    let check = |setting: &str, found: &str, allowed: &str| {
        let (key, value) = setting.split_once(" = ").unwrap();
        let line = format!("platziverse.toml: {key}: found {found}; allowed: {allowed}");
        file(&format!("{key} = {value}"), &[&line]);
    };
    let whole = "a whole number from 1 to 65535";
    check("amqp.port = 0", "0", whole);
    check("amqp.port = 1.5", "1.5", whole);
    check("amqp.port = -1", "-1", whole);
    check("tasks.prefetch = 65536", "65536", whole);
    check("gateway.receive_maximum = '256'", "\"256\"", whole);
    let host = "a host name or an IP address, without a port";
    check("amqp.host = ''", "\"\"", host);
    check("amqp.host = 'mq:5672'", "\"mq:5672\"", host);
    check("amqp.host = 'a b'", "\"a b\"", host);
    check("amqp.tls = 'yes'", "\"yes\"", "true or false");
    check("amqp.heartbeat = '1500ms'", "1s 500ms", "whole seconds, such as \"10s\"");
    let span = "a duration such as \"5s\" or \"500ms\", from 100ms to 5m";
    check("amqp.connect_timeout = 5", "5", span);
    check("amqp.connect_timeout = '1h'", "\"1h\"", span);
    let address = "an IP address and a port, such as \"127.0.0.1:9100\"";
    check("gateway.listen = 'localhost:1883'", "\"localhost:1883\"", address);
    check("mom.grpc_listen = '[::1]'", "\"[::1]\"", address);
    check("gateway.anonymous = 'no'", "\"no\"", "loopback, always or never");
    check("tasks.queues = []", "a list", "a list of at least 1");
    check("tasks.queues = 'a'", "\"a\"", "a list of at least 1");
    let level = "off, error, warn, info, debug or trace, or directives such as \
                 \"info,platziverse_gateway=debug\"";
    check("log.level = 'inof'", "\"inof\"", level);
    check("log.level = 'info,a=loud'", "\"info,a=loud\"", level);
    check("log = 'info'", "[redacted]", "a table of settings");
    check(
        "gateway.publish_buffer_bytes = 2000000",
        "2000000",
        "at least 2097152, twice gateway.max_packet_size",
    );
    for level in ["warn", "info,lapin=off", "a::b=debug,WARN", "[span{a=1,b=2}]=debug"] {
        Dir::new().load(&[("PLATZIVERSE_LOG__LEVEL", level)]);
    }
}

#[test]
fn items_of_lists_are_named() {
    let queue = "a queue's name: 1 to 255 bytes that do not begin with `amq.`";
    file(
        "tasks.queues = ['ok', 5, 'amq.gen', 'ok']",
        &[
            &format!("platziverse.toml: tasks.queues[1]: found 5; allowed: {queue}"),
            &format!("platziverse.toml: tasks.queues[2]: found \"amq.gen\"; allowed: {queue}"),
        ],
    );
    file(
        "tasks.queues = ['ok', 'ok']",
        &["platziverse.toml: tasks.queues[1]: found \"ok\"; allowed: each queue once"],
    );
    let channel = "lower-case letters, digits and _; each channel once";
    file(
        "aggregator.channels = ['voice', 'Chat', 'voice']",
        &[
            &format!(
                "platziverse.toml: aggregator.channels[1]: found \"Chat\"; allowed: {channel}"
            ),
            &format!(
                "platziverse.toml: aggregator.channels[2]: found \"voice\"; allowed: {channel}"
            ),
        ],
    );
    file(
        "gateway.users = [{ username = 'a', password_hash = '$argon2id$x' }, \
         { username = 'a', password_hash = 'hunter2' }]",
        &[
            "platziverse.toml: gateway.users[1].username: found \"a\"; allowed: a name that no \
             other user has",
            "platziverse.toml: gateway.users[1].password_hash: found [redacted]; allowed: an \
             argon2 hash, which begins with `$argon2`, not the password",
        ],
    );
}

#[test]
fn files_that_cannot_be_used() {
    let check = |name: &str, text: &str, expected: &str| {
        let dir = Dir::new().with(name, text);
        let problems = dir.problems(&[("PLATZIVERSE_CONFIG", name)]);
        assert!(problems[0].starts_with(&format!("{name}: {expected}")), "{problems:?}");
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    };
    check("a.yaml", "", "is neither TOML nor JSON: its name must end in .toml or .json");
    check("a.toml", "[amqp]\npassword = hunter2", "is no TOML: line 2, column 12:");
    check("a.toml", "[amqp]\nport = 1\nport = 2", "is no TOML: line 3");
    check("a.json", "{\"a\" \"hunter2\"}", "is no JSON: ");
    check("a.json", "[]", "must hold one JSON object");
    let missing = Dir::new().problems(&[("PLATZIVERSE_CONFIG", "b.toml"), ("DB_HOST", "a:b")]);
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing[0].starts_with("b.toml: cannot be read: No such file"), "{missing:?}");
    let secret = Dir::new().problems(&[("PLATZIVERSE_AMQP__PASSWORD_FILE", "none")]);
    let start = "PLATZIVERSE_AMQP__PASSWORD_FILE (none): amqp.password: cannot be read: No such";
    assert!(secret[0].starts_with(start), "{secret:?}");
}

#[test]
fn no_error_shows_a_secret() {
    let url = "found [redacted] (it does not begin with amqp:// or amqps://); allowed: a URL such \
               as amqp://user:password@host:5672/vhost";
    env("PLATZIVERSE_AMQP__URL", "http://u:hunter2@h", &format!("amqp.url: {url}"));
    env("RABBITMQ_HOSTNAME", "http://u:hunter2@h", &format!("amqp.url: {url}"));
    let host = "found [redacted]; allowed: a host name";
    for (name, key) in [("DB_HOST", "database.host"), ("RABBITMQ_HOSTNAME", "amqp.host")] {
        let problems = Dir::new().problems(&[(name, "u:hunter2@h")]);
        assert!(problems[0].starts_with(&format!("{name}: {key}: {host}")), "{problems:?}");
    }
    env(
        "DB_PASS",
        "hunter2\u{fffd}",
        "database.password: found [redacted]; allowed: text of at most 4096 bytes",
    );
    let users = "gateway.users: found [redacted]; allowed: a list of tables with username, \
                 password_hash, publish, subscribe";
    env("PLATZIVERSE_GATEWAY__USERS", "[{\"hunter2", users);
    file(
        "amqp.password = 12345",
        &["platziverse.toml: amqp.password: found a number; allowed: text of at most 4096 bytes"],
    );
    file(
        "gateway.users = ['hunter2']",
        &["platziverse.toml: gateway.users[0]: found [redacted]; allowed: a table"],
    );
}

#[test]
fn a_part_that_a_url_has_wrong_is_named_by_the_part() {
    env(
        "PLATZIVERSE_AMQP__URL",
        "amqp://a,b/v",
        "amqp.host: found \"a,b\"; allowed: a host name or an IP address, without a port",
    );
}

#[test]
fn a_variable_and_its_file_contradict_each_other() {
    let dir = Dir::new().with("p", "x");
    let problems = dir
        .problems(&[("PLATZIVERSE_AMQP__PASSWORD", "x"), ("PLATZIVERSE_AMQP__PASSWORD_FILE", "p")]);
    assert_eq!(
        problems,
        ["PLATZIVERSE_AMQP__PASSWORD_FILE (p): amqp.password: found PLATZIVERSE_AMQP__PASSWORD \
          too; allowed: one of the two"]
    );
}

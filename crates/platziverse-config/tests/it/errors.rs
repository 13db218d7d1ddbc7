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
            "platziverse.toml: gateway.users[0].password_hash: found nothing; allowed: an argon2 \
             hash in PHC form, which `platziverse user hash` makes",
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
    check("mom.url = 'h:50052'", "something else", "a URL such as http://host:50052");
    check("gateway.anonymous = 'no'", "\"no\"", "loopback, always or never");
    check("tasks.queues = []", "a list", "a list of at least 1");
    check("tasks.queues = 'a'", "\"a\"", "a list of at least 1");
    check("tasks.retry_delays = []", "a list", "a list of at least 1");
    check("worker.roles = []", "a list", "a list of at least 1");
    let level = "off, error, warn, info, debug or trace, or directives without spaces such as \
                 \"info,platziverse_gateway=debug\"";
    for wrong in ["inof", "info,a=loud", "info, a=off", " info", "[span", "a[", "[a{b=1,c=2}]=off"]
    {
        check(&format!("log.level = '{wrong}'"), &format!("{wrong:?}"), level);
    }
    check("log = 'info'", "[redacted]", "a table of settings");
    check(
        "gateway.publish_buffer_bytes = 2000000",
        "2000000",
        "at least 2097152, twice gateway.max_packet_size",
    );
    for level in ["warn", "info,lapin=off", "a::b=debug,WARN", "info,[span{a=1}]=debug", "a[b]"] {
        Dir::new().load(&[("PLATZIVERSE_LOG__LEVEL", level)]);
    }
}

#[test]
fn items_of_lists_are_named() {
    let queue = "a queue's name: 1 to 255 bytes that do not begin with `amq.` or `platziverse.`";
    let ours = "other than platziverse.events or platziverse.commands";
    file(
        "tasks.queues = ['ok', 5, 'amq.gen', 'platziverse.dead', 'platziverse.events']",
        &[
            &format!("platziverse.toml: tasks.queues[1]: found 5; allowed: {queue} {ours}"),
            &format!(
                "platziverse.toml: tasks.queues[2]: found \"amq.gen\"; allowed: {queue} {ours}"
            ),
            &format!(
                "platziverse.toml: tasks.queues[3]: found \"platziverse.dead\"; allowed: {queue} \
                 {ours}"
            ),
        ],
    );
    file(
        "gateway.routes = [{ filter = 'a', queue = 'platziverse.events' }]",
        &[&format!(
            "platziverse.toml: gateway.routes[0].queue: found \"platziverse.events\"; allowed: \
             {}",
            queue.replace("255", "237")
        )],
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
    let user = format!("{{ username = 'a', password_hash = '{HASH}' }}");
    file(
        &format!("gateway.users = [{user}, {user}]"),
        &["platziverse.toml: gateway.users[1].username: found \"a\"; allowed: a name that no \
           other user has"],
    );
}

#[test]
fn items_of_the_lists_of_a_task_worker_are_named() {
    let allowed = "ingest or tasks";
    file(
        "worker.roles = ['tasks', 'all']",
        &[&format!("platziverse.toml: worker.roles[1]: found \"all\"; allowed: {allowed}")],
    );
    file(
        "worker.roles = ['tasks', 'tasks']",
        &["platziverse.toml: worker.roles[1]: found \"tasks\"; allowed: each role once"],
    );
    let span = "a duration such as \"5s\" or \"500ms\", from 100ms to 1day";
    file(
        "tasks.retry_delays = ['1s', '50ms', 7]",
        &[
            &format!("platziverse.toml: tasks.retry_delays[1]: found \"50ms\"; allowed: {span}"),
            &format!("platziverse.toml: tasks.retry_delays[2]: found 7; allowed: {span}"),
        ],
    );
    let host = "a host such as \"example.com\", \"*.example.com\", \"10.0.0.7\" or \"[::1]\", alone \
                or with a port, \"example.com:8443\"";
    file(
        "tasks.http_allow = ['example.com', '*', 'https://u:hunter2@h']",
        &[
            &format!("platziverse.toml: tasks.http_allow[1]: found \"*\"; allowed: {host}"),
            &format!("platziverse.toml: tasks.http_allow[2]: found [redacted]; allowed: {host}"),
        ],
    );
}

const HASH: &str = "$argon2id$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";

#[test]
fn a_hash_that_no_password_matches() {
    let check = |hash: &str, reason: &str| {
        let user = format!("[{{ username = 'a', password_hash = '{hash}' }}]");
        let line = format!(
            "platziverse.toml: gateway.users[0].password_hash: found [redacted] ({reason}); \
             allowed: an argon2 hash in PHC form, which `platziverse user hash` makes"
        );
        file(&format!("gateway.users = {user}"), &[&line]);
    };
    let none = "it does not begin with `$argon2`: it is no hash, or a shell expanded its `$`; put \
                it in single quotes";
    check("hunter2", none);
    check("=19=4096,t=3,p=1", none);
    check(
        "$argon2id$v=19$m=4096,t=3,p=1",
        "it has no salt or no hash at its end; it is cut or changed: did a shell expand its `$`? \
         Put it in single quotes",
    );
}

#[test]
fn filters_are_filters() {
    let allowed = "allowed: an MQTT topic filter, such as \"agent/#\"";
    let check = |setting: &str, key: &str| {
        let line = format!(
            "platziverse.toml: gateway.{key}: found \"a#\" (the wildcard # must be the whole of \
             the last level); {allowed}"
        );
        file(&format!("gateway.{setting}"), &[&line]);
    };
    check("anonymous_publish = ['#', 'a#']", "anonymous_publish[1]");
    check("anonymous_subscribe = ['a#']", "anonymous_subscribe[0]");
    check("routes = [{ filter = 'a#', queue = 'q' }]", "routes[0].filter");
    let user = |list: &str| {
        format!("users = [{{ username = 'a', password_hash = '{HASH}', {list} = ['a#'] }}]")
    };
    check(&user("publish"), "users[0].publish[0]");
    check(&user("subscribe"), "users[0].subscribe[0]");
    env(
        "PLATZIVERSE_GATEWAY__ANONYMOUS_PUBLISH",
        "a/+b",
        &format!(
            "gateway.anonymous_publish[0]: found \"a/+b\" (the wildcard + must be the whole of a \
             level); {allowed}"
        ),
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
    for text in
        ["u:hunter2@h", "u:hunter2", "u:hunter2:h", "[u:hunter2]", "hunter2@", "h/hunter2:1"]
    {
        for (name, key) in [
            ("DB_HOST", "database.host"),
            ("RABBITMQ_HOSTNAME", "amqp.host"),
            ("PLATZIVERSE_AMQP__HOST", "amqp.host"),
        ] {
            let problems = Dir::new().problems(&[(name, text)]);
            assert!(problems[0].starts_with(&format!("{name}: {key}: {host}")), "{problems:?}");
        }
    }
    let problems = Dir::new().problems(&[("DB_HOST", "postgres://user:hunter2/x")]);
    assert!(problems[0].starts_with(&format!("DB_HOST: database.host: {host}")), "{problems:?}");
    let several = "found [redacted] (it has several `:` and is no IPv6 address (is the `@` after the \
                   password missing?)); allowed: a URL such as \
                   amqp://user:password@host:5672/vhost";
    for name in ["PLATZIVERSE_AMQP__URL", "RABBITMQ_HOSTNAME"] {
        env(name, "amqp://user:hunter2:rabbit:5672/v", &format!("amqp.url: {several}"));
    }
    env(
        "DB_NAME",
        &format!("postgres://u:hunter2@h/{}", "x".repeat(60)),
        "database.name: found [redacted]; allowed: text of 1 to 63 bytes",
    );
    file("\"amqp://u:hunter2@h\" = 1", &["platziverse.toml: [redacted]: no such setting"]);
    file("[amqp]\n\"amqp://u:hunter2@h\" = 1", &["platziverse.toml: [redacted]: no such setting"]);
    file(
        "gateway.routes = [{ filter = 'a', queue = 'b', 'u:hunter2@h' = 1 }]",
        &["platziverse.toml: gateway.routes[0].[redacted]: no such setting"],
    );
    let twice = Dir::new().with("platziverse.toml", "\"u:hunter2@h\" = 1\n\"u:hunter2@h\" = 2");
    assert!(!twice.problems(&[]).concat().contains("hunter2"));
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
fn what_a_file_of_a_variable_holds_is_not_shown() {
    let wrong = [
        ("PLATZIVERSE_AMQP__PORT_FILE", "amqp.port"),
        ("PLATZIVERSE_AMQP__TLS_FILE", "amqp.tls"),
        ("PLATZIVERSE_GATEWAY__LISTEN_FILE", "gateway.listen"),
        ("PLATZIVERSE_LOG__LEVEL_FILE", "log.level"),
        ("PLATZIVERSE_DATABASE__NAME_FILE", "database.name"),
        ("PLATZIVERSE_AGGREGATOR__CHANNELS_FILE", "aggregator.channels[0]"),
        ("PLATZIVERSE_GATEWAY__ANONYMOUS_PUBLISH_FILE", "gateway.anonymous_publish[0]"),
    ];
    let text = format!("root:HUNTER2:0:0+:{}\n", "x".repeat(60));
    let dir = Dir::new().with("passwd", &text);
    for (name, key) in wrong {
        let problems = dir.problems(&[(name, "passwd")]).concat();
        let start = format!("{name} (passwd): {key}: found [redacted]");
        assert!(problems.starts_with(&start), "{problems}");
        assert!(!problems.contains("HUNTER2"), "{problems}");
    }
}

#[test]
fn a_part_that_a_url_has_wrong_is_named_by_the_part() {
    env(
        "PLATZIVERSE_AMQP__URL",
        "amqp://a,b/v",
        "amqp.host: found [redacted]; allowed: a host name or an IP address, without a port",
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
    let problems = dir.problems(&[("DB_PASS", "x"), ("DB_PASS_FILE", "p")]);
    let older = "DB_PASS_FILE (p): database.password: found DB_PASS too; allowed: one of the two";
    assert_eq!(problems, [older]);
}

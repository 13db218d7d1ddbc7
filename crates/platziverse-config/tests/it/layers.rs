use std::time::Duration;

use platziverse_config::{
    Anonymous, Layers, LogFormat, Origin, Role, Secret, Settings, TasksConfig,
};

use crate::Dir;

/// The value in force, as text, and where it came from.
#[track_caller]
fn check(dir: &Dir, env: &[(&str, &str)], key: &str, value: &str, origin: &str) {
    let row = dir.load(env).show().into_iter().find(|row| row.key == key).unwrap();
    let here = format!("{}/", dir.path().display());
    let from = row.origin.describe(key).replace(&here, "");
    assert_eq!((&*row.text, &*from), (value, origin), "{env:?}");
}

#[test]
fn later_layers_win() {
    let none = Dir::new();
    let toml = Dir::new().with("platziverse.toml", "[database]\npool_size = 6");
    let size = ("PLATZIVERSE_DATABASE__POOL_SIZE", "8");
    check(&none, &[], "database.pool_size", "4", "default");
    check(&toml, &[], "database.pool_size", "6", "platziverse.toml");
    check(&toml, &[size], "database.pool_size", "8", size.0);
    check(&none, &[size], "database.pool_size", "8", size.0);
}

#[test]
fn defaults_are_valid() {
    assert_eq!(Dir::new().load(&[]).settings, Settings::default());
}

#[test]
fn the_file_is_chosen() {
    let dir = Dir::new()
        .with("a.toml", "[log]\nlevel = \"error\"")
        .with("b.json", r#"{"log": {"level": "warn"}}"#)
        .with("platziverse.toml", "[log]\nlevel = \"debug\"")
        .with("settings.json", r#"{"log": {"level": "trace"}}"#);
    let level = |file: Option<&str>, env: &[(&str, &str)]| {
        let layers = Layers { file: file.map(Into::into), ..dir.layers(env) };
        Settings::load(&layers).unwrap().settings.log.level
    };
    let config = [("PLATZIVERSE_CONFIG", "b.json")];
    assert_eq!(level(Some("a.toml"), &config), "error");
    assert_eq!(level(None, &config), "warn");
    assert_eq!(level(None, &[("PLATZIVERSE_CONFIG", "")]), "debug");
    assert_eq!(level(None, &[]), "debug");
    std::fs::remove_file(dir.path().join("platziverse.toml")).unwrap();
    assert_eq!(level(None, &[]), "trace");
}

#[test]
fn the_file_that_is_not_read_is_told() {
    let both = Dir::new().with("platziverse.toml", "").with("settings.json", "{}");
    let loaded = both.load(&[]);
    assert_eq!(loaded.file, Some(both.path().join("platziverse.toml")));
    assert_eq!(loaded.passed_over, Some(both.path().join("settings.json")));
    let named = both.load(&[("PLATZIVERSE_CONFIG", "platziverse.toml")]);
    assert_eq!(named.passed_over, None);
    assert_eq!(Dir::new().load(&[]).passed_over, None);
}

#[test]
fn a_link_that_leads_nowhere_is_no_file_that_is_not_there() {
    let dir = Dir::new().with("settings.json", "{}");
    std::os::unix::fs::symlink("nowhere", dir.path().join("platziverse.toml")).unwrap();
    let problems = dir.problems(&[]);
    assert!(problems[0].starts_with("platziverse.toml: cannot be read: No such file"));
}

#[test]
fn what_a_program_knows_wins_and_names_where_it_was_found() {
    let dir = Dir::new();
    let origin = Origin::File { path: "/x/.run/env".into(), key: "AMQP_URL".to_owned() };
    let mut layers = dir.layers(&[("PLATZIVERSE_AMQP__HOST", "h")]);
    layers.found = vec![("amqp.url".to_owned(), "amqp://u:hunter2@mq:1/v".to_owned(), origin)];
    let loaded = Settings::load(&layers).unwrap();
    assert_eq!(loaded.settings.amqp.address(), "mq:1/v");
    let from = loaded.origins.of("amqp.host").describe("amqp.host");
    assert_eq!(from, "/x/.run/env (AMQP_URL)");
    layers.found[0].1 = "amqp://u:hunter2:mq:1/v".to_owned();
    let errors = Settings::load(&layers).unwrap_err().to_string();
    assert!(errors.contains("/x/.run/env (AMQP_URL): amqp.url: found [redacted]"), "{errors}");
}

#[test]
fn tls_implies_its_port_where_nothing_else_says_one() {
    let tls = "[amqp]\ntls = true";
    let dir = Dir::new().with("platziverse.toml", tls);
    check(&dir, &[], "amqp.port", "5671", "platziverse.toml (amqp.tls)");
    let port = ("PLATZIVERSE_AMQP__PORT", "5672");
    check(&dir, &[port], "amqp.port", "5672", port.0);
    let url = ("PLATZIVERSE_AMQP__URL", "amqps://mq:7");
    check(&dir, &[url], "amqp.port", "7", url.0);
    let variable = ("PLATZIVERSE_AMQP__TLS", "true");
    check(&Dir::new(), &[variable], "amqp.port", "5671", variable.0);
    let plain = ("PLATZIVERSE_AMQP__TLS", "false");
    check(&dir, &[plain], "amqp.port", "5672", "default");
}

#[test]
fn what_kubernetes_injects_is_passed_over() {
    let dir = Dir::new();
    dir.load(&[
        ("PLATZIVERSE_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("PLATZIVERSE_GATEWAY_SERVICE_PORT_MQTT", "1883"),
        ("PLATZIVERSE_GATEWAY_PORT", "tcp://10.0.0.1:1883"),
        ("PLATZIVERSE_GATEWAY_PORT_1883_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(dir.problems(&[("PLATZIVERSE_GATEWAY_PORT", "1883")]).len(), 1);
}

#[test]
fn text_of_the_environment_is_taken_by_the_kind_of_the_setting() {
    let loaded = Dir::new().load(&[
        ("PLATZIVERSE_AMQP__USERNAME", "0123"),
        ("PLATZIVERSE_AMQP__PASSWORD", "12345"),
        ("PLATZIVERSE_AMQP__TLS", "true"),
        ("PLATZIVERSE_AMQP__HEARTBEAT", "30s"),
        ("PLATZIVERSE_DATABASE__PASSWORD", " \"true\" "),
        ("PLATZIVERSE_DATABASE__NAME", "true"),
        ("PLATZIVERSE_GATEWAY__LISTEN", "127.0.0.1:0"),
        ("PLATZIVERSE_GATEWAY__ANONYMOUS", "never"),
        ("PLATZIVERSE_GATEWAY__ROUTES", r#"[{"filter": "a/#", "queue": "q"}]"#),
        ("PLATZIVERSE_INGEST__QUEUE_BYTES_MAX", "9223372036854775807"),
        ("PLATZIVERSE_TASKS__QUEUES", "one, two"),
        ("PLATZIVERSE_TASKS__OMIT", r#"["a,b"]"#),
        ("PLATZIVERSE_TASKS__RETRY_DELAYS", "500ms, 1m 30s"),
        ("PLATZIVERSE_TASKS__HTTP_ALLOW", "*.example.com, [::1]:80"),
        ("PLATZIVERSE_TASKS__HTTP_ALLOW_PRIVATE", "1"),
        ("PLATZIVERSE_WORKER__ROLES", "tasks"),
        ("PLATZIVERSE_OPS__LISTEN", ""),
        ("PLATZIVERSE_LOG__FORMAT", "json"),
        ("PATH", "/bin"),
    ]);
    let settings = loaded.settings;
    assert_eq!(settings.amqp.username, "0123");
    assert_eq!(settings.amqp.password, Secret::new("12345"));
    assert!(settings.amqp.tls);
    assert_eq!(settings.amqp.heartbeat, Duration::from_secs(30));
    assert_eq!(settings.database.password, Some(Secret::new(" \"true\" ")));
    assert_eq!(settings.database.name, "true");
    assert_eq!(settings.gateway.listen.to_string(), "127.0.0.1:0");
    assert_eq!(settings.gateway.anonymous, Anonymous::Never);
    assert_eq!(settings.gateway.routes[0].queue, "q");
    assert_eq!(settings.ingest.queue_bytes_max, i64::MAX as u64);
    assert_eq!(settings.tasks.queues, ["one", "two"]);
    assert_eq!(settings.tasks.omit, ["a,b"]);
    assert_eq!(settings.tasks.retry_delays, [500, 90_000].map(Duration::from_millis));
    let allowed: Vec<String> = settings.tasks.http_allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["*.example.com", "[::1]:80"]);
    assert!(settings.tasks.http_allow_private);
    assert_eq!(settings.worker.roles, [Role::Tasks]);
    assert!(settings.worker.has(Role::Tasks) && !settings.worker.has(Role::Ingest));
    assert_eq!(settings.ops.listen, None);
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn values_are_read_from_files_that_variables_name() {
    let dir = Dir::new().with("password", "p w\n\n").with("size", "9\r\n");
    let loaded = dir.load(&[
        ("PLATZIVERSE_DATABASE__PASSWORD_FILE", "password"),
        ("PLATZIVERSE_DATABASE__POOL_SIZE_FILE", "size"),
        ("PLATZIVERSE_AMQP__URL_FILE", ""),
        ("PLATZIVERSE_AMQP__PORT_FILE", ""),
    ]);
    assert_eq!(loaded.settings.database.password, Some(Secret::new("p w\n")));
    assert_eq!(loaded.settings.database.pool_size, 9);
    let origin = Origin::SecretFile {
        variable: "PLATZIVERSE_DATABASE__PASSWORD_FILE".to_owned(),
        path: dir.path().join("password"),
    };
    assert_eq!(loaded.origins.of("database.password"), &origin);
}

#[test]
fn a_url_sets_its_parts_in_its_layer() {
    let dir = Dir::new().with(
        "platziverse.toml",
        "[amqp]\nurl = \"amqps://u:p@mq/v\"\nhost = \"beside\"\nport = 7\nusername = \"beside\"",
    );
    let file = "platziverse.toml (amqp.url)";
    check(&dir, &[], "amqp.host", "\"mq\"", file);
    check(&dir, &[], "amqp.username", "\"u\"", file);
    check(&dir, &[], "amqp.vhost", "\"v\"", file);
    check(&dir, &[], "amqp.tls", "true", file);
    check(&dir, &[], "amqp.port", "7", "platziverse.toml");

    let host = ("PLATZIVERSE_AMQP__HOST", "later");
    check(&dir, &[host], "amqp.host", "\"later\"", host.0);
    let url = ("PLATZIVERSE_AMQP__URL", "amqp://other");
    check(&dir, &[url], "amqp.port", "5672", url.0);
    check(&dir, &[url], "amqp.tls", "false", url.0);
    check(&dir, &[url], "amqp.username", "\"u\"", file);

    let loaded = dir.load(&[url, ("PLATZIVERSE_AMQP__PASSWORD", "a/b")]);
    let uri = "amqp://u:a%2Fb@other:5672/v?heartbeat=10&connection_timeout=5000";
    assert_eq!(loaded.settings.amqp.uri().expose(), uri);
}

#[test]
fn older_names_of_the_environment_are_understood() {
    let none = Dir::new();
    let same = |name, text, key, value| check(&none, &[(name, text)], key, value, name);
    same("DB_HOST", "db", "database.host", "\"db\"");
    same("DB_NAME", "n", "database.name", "\"n\"");
    same("DB_USER", "u", "database.username", "\"u\"");
    same("DB_PASS", "007", "database.password", "[redacted]");
    same("RABBITMQ_HOSTNAME", "mq", "amqp.host", "\"mq\"");
    same("RABBITMQ_HOSTNAME", "mq:1", "amqp.host", "\"mq\"");
    same("RABBITMQ_HOSTNAME", "mq:1", "amqp.port", "1");
    same("RABBITMQ_HOSTNAME", "::1", "amqp.host", "\"::1\"");
    same("RABBITMQ_HOSTNAME", "[::1]:1", "amqp.port", "1");
    same("RABBITMQ_HOSTNAME", "amqp://a:b@mq/v", "amqp.vhost", "\"v\"");
    same("RABBITMQ_LOCAL_QUEUE_NAME", "a,b", "tasks.queues", "[\"a,b\"]");
    same("RABBITMQ_PREFETCH_COUNT", "5", "tasks.prefetch", "5");
    same("EVENTS_TO_OMIT", "a, b", "tasks.omit", "[\"a\",\"b\"]");
    same("EVENTS_TO_OMIT", "[\"a, b\"]", "tasks.omit", "[\"a, b\"]");
    check(&none, &[("DB_HOST", "")], "database.host", "\"127.0.0.1\"", "default");
    let file = ("DB_PASS_FILE", "password");
    let dir = Dir::new().with("password", "007\n");
    check(&dir, &[file], "database.password", "[redacted]", "DB_PASS_FILE (password)");
    assert_eq!(dir.load(&[file]).settings.database.password, Some(Secret::new("007")));
    check(&none, &[("DB_PASS_FILE", "")], "database.password", "(not set)", "default");
    check(&none, &[("DB_HOST_FILE", "x")], "database.host", "\"127.0.0.1\"", "default");
}

#[test]
fn older_names_of_the_file_are_understood() {
    let check = |text: &str, key: &str, value: &str, origin: &str| {
        check(&Dir::new().with("settings.json", text), &[], key, value, origin);
    };
    let queue = r#"{"RABBITMQ_LOCAL_QUEUE_NAME": "q"}"#;
    check(queue, "tasks.queues", "[\"q\"]", "settings.json (RABBITMQ_LOCAL_QUEUE_NAME)");
    let count = "settings.json (RABBITMQ_PREFETCH_COUNT)";
    check(r#"{"RABBITMQ_PREFETCH_COUNT": 7}"#, "tasks.prefetch", "7", count);
    check(r#"{"RABBITMQ_PREFETCH_COUNT": "7"}"#, "tasks.prefetch", "7", count);
    let omit = "settings.json (EVENTS_TO_OMIT)";
    check(r#"{"EVENTS_TO_OMIT": ["a"]}"#, "tasks.omit", "[\"a\"]", omit);
    check(r#"{"EVENTS_TO_OMIT": "a,b"}"#, "tasks.omit", "[\"a\",\"b\"]", omit);
    let host = r#"{"RABBITMQ_HOSTNAME": "mq:9"}"#;
    check(host, "amqp.port", "9", "settings.json (RABBITMQ_HOSTNAME)");
}

#[test]
fn the_settings_of_the_older_worker_are_understood() {
    #[track_caller]
    fn same(dir: &Dir, env: &[(&str, &str)]) {
        let settings = dir.load(env).settings;
        assert_eq!(settings.amqp.address(), "mq.example:5673/");
        let tasks = TasksConfig {
            queues: vec!["local_iot_core".to_owned()],
            prefetch: 1,
            omit: ["agent.debug", "agent.ping"].map(str::to_owned).to_vec(),
            ..TasksConfig::default()
        };
        assert_eq!(settings.tasks, tasks);
    }
    let file = r#"{
        "RABBITMQ_HOSTNAME": "mq.example:5673",
        "RABBITMQ_LOCAL_QUEUE_NAME": "local_iot_core",
        "RABBITMQ_PREFETCH_COUNT": 1,
        "EVENTS_TO_OMIT": ["agent.debug", "agent.ping"]
    }"#;
    let (none, dir) = (Dir::new(), Dir::new().with("settings.json", file));
    let env = |omit| {
        [
            ("RABBITMQ_HOSTNAME", "mq.example:5673"),
            ("RABBITMQ_LOCAL_QUEUE_NAME", "local_iot_core"),
            ("RABBITMQ_PREFETCH_COUNT", "1"),
            ("EVENTS_TO_OMIT", omit),
        ]
    };
    same(&dir, &[]);
    same(&none, &env("agent.debug,agent.ping"));
    same(&none, &env(r#"["agent.debug", "agent.ping"]"#));
    let other = r#"{"RABBITMQ_PREFETCH_COUNT": 9, "EVENTS_TO_OMIT": [], "RABBITMQ_HOSTNAME": "x"}"#;
    same(&Dir::new().with("settings.json", other), &env("agent.debug, agent.ping"));
}

#[test]
fn the_newer_name_wins_in_one_layer_and_the_later_layer_over_both() {
    let dir = Dir::new()
        .with("settings.json", r#"{"tasks": {"prefetch": 1}, "RABBITMQ_PREFETCH_COUNT": 2}"#);
    let older = ("RABBITMQ_PREFETCH_COUNT", "3");
    let newer = ("PLATZIVERSE_TASKS__PREFETCH", "4");
    check(&dir, &[], "tasks.prefetch", "1", "settings.json");
    check(&dir, &[older], "tasks.prefetch", "3", older.0);
    check(&dir, &[newer, older], "tasks.prefetch", "4", newer.0);
    let host = ("PLATZIVERSE_AMQP__HOST", "new");
    let url = ("RABBITMQ_HOSTNAME", "amqp://old:1");
    check(&dir, &[host, url], "amqp.host", "\"new\"", host.0);
    check(&dir, &[host, url], "amqp.port", "1", url.0);
}

#[test]
fn debug_shows_no_secret() {
    let env = [("PLATZIVERSE_AMQP__URL", "amqp://u:hunter2@h"), ("DB_PASS", "hunter2")];
    let dir = Dir::new();
    assert!(!format!("{:?}", dir.layers(&env)).contains("hunter2"));
    assert!(!format!("{:?}", dir.load(&env)).contains("hunter2"));
}

//! URLs of RabbitMQ and PostgreSQL, taken apart and put together.

use std::time::Duration;

use platziverse_config::{AmqpConfig, DatabaseConfig, Secret};

use crate::Dir;

const AMQP: &str = "PLATZIVERSE_AMQP__URL";
const DATABASE: &str = "PLATZIVERSE_DATABASE__URL";

fn amqp(url: &str) -> AmqpConfig {
    Dir::new().load(&[(AMQP, url)]).settings.amqp
}

fn database(url: &str) -> DatabaseConfig {
    Dir::new().load(&[(DATABASE, url)]).settings.database
}

#[test]
fn what_is_put_together_is_taken_apart_into_the_same() {
    let config = AmqpConfig {
        host: "::1".to_owned(),
        port: 5673,
        username: "ag:ent".to_owned(),
        password: Secret::new("p@ss/w?rd#%"),
        vhost: "a/b c".to_owned(),
        tls: true,
        heartbeat: Duration::from_secs(7),
        connect_timeout: Duration::from_millis(1500),
        url: None,
    };
    let uri = config.uri();
    assert_eq!(amqp(uri.expose()), AmqpConfig { url: Some(uri), ..config });
}

#[test]
fn urls_of_rabbitmq_give_the_parts() {
    let check = |url: &str, uri: &str, address: &str| {
        let config = amqp(url);
        let common = "?heartbeat=10&connection_timeout=5000";
        assert_eq!(config.uri().expose(), format!("{uri}{common}"), "{url}");
        assert_eq!(config.address(), address, "{url}");
    };
    check("amqp://mq", "amqp://guest:guest@mq:5672/%2F", "mq:5672/");
    check("amqp://mq/", "amqp://guest:guest@mq:5672/%2F", "mq:5672/");
    check("amqp://mq/%2f", "amqp://guest:guest@mq:5672/%2F", "mq:5672/");
    check("amqps://a:b@mq/iot", "amqps://a:b@mq:5671/iot", "mq:5671/iot");
    check("amqp://[::1]:1/x", "amqp://guest:guest@%3A%3A1:1/x", "[::1]:1/x");
}

#[test]
fn urls_of_postgresql_give_the_parts() {
    let check = |url: &str, uri: &str, address: &str| {
        let config = database(url);
        assert_eq!((config.uri().expose(), &*config.address()), (uri, address), "{url}");
    };
    check("postgres://db", "postgres://platziverse@db:5432/platziverse", "db:5432/platziverse");
    check("postgresql://a:b%40@db:1/n", "postgres://a:b%40@db:1/n", "db:1/n");
    check("postgres://a@[::1]/n?sslmode=disable", "postgres://a@[::1]:5432/n", "[::1]:5432/n");
    check("postgres://a@/n?host=/run", "postgres://a@%2Frun:5432/n", "/run:5432/n");
    check("postgres://a@%2Frun/n", "postgres://a@%2Frun:5432/n", "/run:5432/n");
}

#[test]
fn wrong_urls_say_why_and_nothing_of_themselves() {
    let check = |variable: &str, url: &str, reason: &str| {
        let problems = Dir::new().problems(&[(variable, url)]).concat();
        assert!(problems.contains(reason), "{url}: {problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    };
    check(AMQP, "http://u:hunter2@h", "begin with amqp://");
    check(AMQP, "amqp://u:hunter2@", "no host");
    check(AMQP, "amqp://u:hunter2/x@h", "percent-encoded");
    check(AMQP, "amqp://u:hunter2", "port");
    check(AMQP, "amqp://u:hunter2:h:5672/v", "several `:`");
    check(AMQP, "amqp://[u:hunter2]:5672/v", "amqp.host: found [redacted]");
    check(AMQP, "amqp://u%3Ahunter2/v", "amqp.host: found [redacted]");
    check(AMQP, "amqp://u,hunter2/v", "amqp.host: found [redacted]");
    check(AMQP, "amqp://u:hunter2@h?heartbeat=x", "heartbeat is no whole number");
    check(AMQP, "amqp://u:hunter2@h?frame=1", "parameters");
    check(AMQP, "amqp://u:hunter2@h?heartbeat=0", "amqp.heartbeat");
    check(DATABASE, "mysql://u:hunter2@h", "begin with postgres://");
    check(DATABASE, "postgres://u:hunter2@", "no host");
    check(DATABASE, "postgres://u:hunter2:h:5432/n", "several `:`");
    check(DATABASE, "postgres://u:hunter2@h?sslmode=require", "TLS");
    check(DATABASE, "postgres://u:hunter2@h?connect_timeout=x", "database.connect_timeout");
    check(DATABASE, "postgres://u:hunter2@h?connect_timeout=hunter2", "found [redacted]");
    check(DATABASE, "postgres://u:hunter2@h?options=x", "parameters");
}

//! Bad settings and bad surroundings: one message that says what was tried, where, what came back
//! and what to do; never a panic, never a dump.

use platziverse_testkit::{Ended, World, closed_port};
use serde_json::json;

const GATEWAY: &str = "platziverse-gateway";
const WORKER: &str = "platziverse-worker";

/// Fails the test unless the program says all of `mentions`, briefly, and fails.
fn assert_explains(name: &str, ended: &Ended, mentions: &[&str]) {
    let text = &ended.stderr;
    assert!(!ended.status.success(), "{name}: it says that all is well: {text}");
    assert_eq!(ended.status.code(), Some(1), "{name}: {text}");
    let complaint: Vec<_> =
        text.lines().filter(|line| !line.contains("INFO") && !line.contains("\"INFO\"")).collect();
    let complaint = complaint.join("\n");
    for mention in mentions {
        assert!(complaint.contains(mention), "{name}: {mention:?} is not in\n{text}");
    }
    for dump in ["panicked", "RUST_BACKTRACE", "Error {", "Error(", "Some(", "Os {", "kind: "] {
        assert!(!text.contains(dump), "{name}: {dump:?} is in\n{text}");
    }
    assert!(complaint.lines().count() <= 12, "{name}: a long story:\n{text}");
}

fn replaced_port(url: &str, port: u16) -> String {
    let (before, after) = url.rsplit_once('@').expect("credentials");
    let (_, path) = after.split_once('/').expect("a path");
    format!("{before}@127.0.0.1:{port}/{path}")
}

fn replaced_password(url: &str) -> (String, String) {
    let (before, after) = url.rsplit_once('@').expect("credentials");
    let (user, password) = before.rsplit_once(':').expect("a password");
    (format!("{user}:wrong-password@{after}"), password.to_owned())
}

fn address(url: &str) -> String {
    let after = url.rsplit_once('@').expect("credentials").1;
    after.split_once('/').expect("a path").0.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings_come_all_at_once() {
    let world = World::unmigrated().await;
    let settings = [
        ("PLATZIVERSE_GATEWAY__LISTEN", "nonsense"),
        ("PLATZIVERSE_GATEWAY__MAX_PACKET_SIZES", "1"),
        ("PLATZIVERSE_DATABASE__POOL_SIZE", "many"),
    ];
    let mentions = [
        "PLATZIVERSE_GATEWAY__LISTEN",
        "nonsense",
        "MAX_PACKET_SIZE?",
        "PLATZIVERSE_DATABASE__POOL_SIZE",
        "many",
    ];
    for program in [GATEWAY, WORKER] {
        let ended = world.run(program, &[], &settings).await;
        assert_explains(program, &ended, &mentions);
        let ended = world.run(program, &["--check"], &settings).await;
        assert_explains(program, &ended, &mentions);
        let ended = world.run(program, &["--config", "/nowhere/x.toml"], &[]).await;
        assert_explains(program, &ended, &["/nowhere/x.toml"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_is_not_as_it_needs_to_be() {
    let world = World::unmigrated().await;
    let url = world.database().url();
    let here = address(url);

    let ended = world.run(WORKER, &[], &[]).await;
    assert_explains("no schema", &ended, &[world.database().name(), "platziverse db migrate"]);

    let missing = format!("{url}_missing");
    let ended = world.run(WORKER, &[], &[("PLATZIVERSE_DATABASE__URL", &missing)]).await;
    assert_explains("no database", &ended, &[&here, "_missing", "platziverse db create"]);

    let (wrong, password) = replaced_password(url);
    let ended = world.run(WORKER, &[], &[("PLATZIVERSE_DATABASE__URL", &wrong)]).await;
    assert_explains("wrong password", &ended, &[&here, "password", "database.password"]);
    assert!(!ended.stderr.contains("wrong-password") && !ended.stderr.contains(&password));

    let port = closed_port().port();
    let away = replaced_port(url, port);
    let ended = world.run(WORKER, &[], &[("PLATZIVERSE_DATABASE__URL", &away)]).await;
    assert_explains("unreachable", &ended, &[&format!("127.0.0.1:{port}"), "refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_is_not_as_it_needs_to_be() {
    let world = World::start().await;
    let url = world.amqp_url();
    let here = address(url);
    let port = closed_port().port();
    let away = replaced_port(url, port);
    let (wrong, password) = replaced_password(url);
    let elsewhere = format!("{url}_missing");
    for program in [GATEWAY, WORKER] {
        let ended = world.run(program, &[], &[("PLATZIVERSE_AMQP__URL", &away)]).await;
        assert_explains("unreachable", &ended, &[&format!("127.0.0.1:{port}"), "refused"]);

        let ended = world.run(program, &[], &[("PLATZIVERSE_AMQP__URL", &wrong)]).await;
        assert_explains("wrong password", &ended, &[&here, "password"]);
        assert!(!ended.stderr.contains("wrong-password") && !ended.stderr.contains(&password));

        let ended = world.run(program, &[], &[("PLATZIVERSE_AMQP__URL", &elsewhere)]).await;
        assert_explains("no vhost", &ended, &[&here, "_missing", "vhost"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_was_declared_with_other_arguments() {
    let world = World::start().await;
    world.rabbitmq().declare_queue("platziverse.ingest", true, json!({})).await;
    for program in [GATEWAY, WORKER] {
        let ended = world.run(program, &[], &[]).await;
        assert_explains(program, &ended, &["platziverse.ingest", &address(world.amqp_url())]);
    }
    world.rabbitmq().delete_queue("platziverse.ingest").await;
    let _gateway = world.gateway().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_taken() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let taken = gateway.mqtt().to_string();
    let ended = world.run(GATEWAY, &[], &[("PLATZIVERSE_GATEWAY__LISTEN", &taken)]).await;
    assert_explains("MQTT", &ended, &[&taken, "gateway.listen", "in use"]);
    for program in [GATEWAY, WORKER] {
        let ended = world.run(program, &[], &[("PLATZIVERSE_OPS__LISTEN", &taken)]).await;
        assert_explains("health", &ended, &[&taken, "ops.listen", "in use"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_explains_itself() {
    let world = World::unmigrated().await;
    for program in [GATEWAY, WORKER, "platziverse"] {
        let help = world.run(program, &["--help"], &[]).await;
        assert!(help.status.success() && help.stdout.contains("--config"), "{program}: {help:?}");
        let version = world.run(program, &["--version"], &[]).await;
        assert!(version.stdout.contains(program), "{program}: {version:?}");
        let wrong = world.run(program, &["--nonsense"], &[]).await;
        assert!(!wrong.status.success() && wrong.stderr.contains("--nonsense"), "{program}");
    }
    for program in [GATEWAY, WORKER] {
        let check = world.run(program, &["--check"], &[]).await;
        assert!(check.status.success(), "{program}: {check:?}");
    }
}

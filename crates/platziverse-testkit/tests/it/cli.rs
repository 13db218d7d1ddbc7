//! The operator's command against real servers.

use std::time::Duration;

use platziverse_testkit::{Client, Ended, Message, Process, QoS, Version, World};
use serde_json::Value;

const METRICS: &str = "SELECT count(*) FROM metrics";

/// What the command printed as JSON. Fails the test if the command failed.
async fn json(world: &World, arguments: &[&str]) -> Value {
    let ended = world.platziverse(arguments).await;
    assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", ended.stdout))
}

async fn succeeds(world: &World, arguments: &[&str]) -> Ended {
    let ended = world.platziverse(arguments).await;
    assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    ended
}

/// The ids of all dead letters, the oldest first.
async fn ids(world: &World) -> Vec<String> {
    let list = json(world, &["dead", "list", "--json"]).await;
    let entries = list["entries"].as_array().expect("a list");
    entries.iter().filter_map(|entry| entry["id"].as_str().map(str::to_owned)).collect()
}

async fn with_dead_letters(world: &World) -> (Process, Client) {
    let gateway = world.gateway().await;
    let client = world.client(&gateway, Version::V3).await;
    for payload in ["one", "two", "[]"] {
        client.publish("agent/message", QoS::AtLeastOnce, payload).await;
    }
    (gateway, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_and_purged() {
    let world = World::start().await;
    let (_gateway, client) = with_dead_letters(&world).await;

    let printed = json(&world, &["dead", "list", "--json"]).await;
    assert_eq!(printed["truncated"], false);
    let list = &printed["entries"];
    let reasons: Vec<_> = list.as_array().into_iter().flatten().map(|e| &e["reason"]).collect();
    assert_eq!(reasons, ["invalid_json", "invalid_json", "invalid_payload"]);
    assert_eq!(list[0]["stage"], "gateway");
    assert!(list[0]["error"].as_str().is_some_and(|error| error.contains("JSON")), "{list}");
    let only = ["dead", "list", "--json", "--reason", "invalid_payload"];
    assert_eq!(json(&world, &only).await["entries"].as_array().map(Vec::len), Some(1));
    let first = json(&world, &["dead", "list", "--json", "--limit", "1"]).await;
    assert_eq!(first["truncated"], true, "{first}");
    let text = succeeds(&world, &["dead", "list"]).await.stdout;
    assert!(text.contains("invalid_json") && text.contains("invalid_payload"), "{text}");

    let id = list[0]["id"].as_str().expect("an id");
    let shown = json(&world, &["dead", "show", id, "--json"]).await;
    assert!(shown["body"].as_str().is_some_and(|body| body.contains(client.id())), "{shown}");
    let record = &shown["records"][0];
    assert_eq!((&record["topic"], &record["payload"]), (&"agent/message".into(), &"one".into()));
    assert_eq!(record["client"], client.id());
    let text = succeeds(&world, &["dead", "show", id]).await.stdout;
    assert!(text.contains(id) && text.contains("invalid_json"), "{text}");
    assert!(text.ends_with("\none\n"), "as it was published: {text}");
    let unknown = world.platziverse(&["dead", "show", "no-such-id"]).await;
    assert!(!unknown.status.success() && unknown.stderr.contains("no-such-id"), "{unknown:?}");

    assert_eq!(ids(&world).await.len(), 3, "looking takes nothing away");
    succeeds(&world, &["dead", "purge", "--yes", id]).await;
    assert_eq!(ids(&world).await.len(), 2);
    assert!(!ids(&world).await.contains(&id.to_owned()));
    let undecided = world.platziverse(&["dead", "purge"]).await;
    let question = format!("Delete all 2 dead letters of RabbitMQ at {}", world.amqp_address());
    assert!(undecided.stderr.contains(&question), "{undecided:?}");
    let deleted = json(&world, &["dead", "purge", "--yes", "--json"]).await;
    assert_eq!(deleted["deleted"], 2);
    assert_eq!(ids(&world).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replayed_is_stored_or_comes_back() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, world.worker().await);
    world.database().sql("ALTER TABLE agents ALTER hostname TYPE varchar(11)").await;
    let client = world.client(&gateway, Version::V5).await;
    client.report(&Message::example()).await;
    // The announcement and the message.
    worker.counts("platziverse_worker_records_dead_lettered_total", 2.0).await;

    succeeds(&world, &["dead", "replay"]).await;
    worker.counts("platziverse_worker_records_dead_lettered_total", 4.0).await;
    assert_eq!(world.database().value(METRICS).await, "0");

    world.database().sql("ALTER TABLE agents ALTER hostname TYPE text").await;
    succeeds(&world, &["dead", "replay", "--reason", "database_refused"]).await;
    world.database().becomes(METRICS, "2").await;
    assert_eq!(ids(&world).await.len(), 0);
    let agent = "SELECT uuid || ' ' || connected FROM agents";
    assert_eq!(world.database().value(agent).await, "yyy true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_bad_input_ends() {
    let world = World::start().await;
    let (_gateway, _client) = with_dead_letters(&world).await;
    let worker = world.worker().await;
    let replay = succeeds(&world, &["dead", "replay"]);
    tokio::time::timeout(Duration::from_secs(60), replay).await.expect("it ends");
    worker.counts("platziverse_worker_records_dead_lettered_total", 3.0).await;
    let list = json(&world, &["dead", "list", "--json"]).await;
    let entries = list["entries"].as_array().expect("a list");
    let records: u64 = entries.iter().filter_map(|entry| entry["records"].as_u64()).sum();
    assert_eq!(records, 3, "{list}");
    assert!(entries.iter().all(|entry| entry["stage"] == "worker"), "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_shown_with_their_origin_and_without_secrets() {
    let world = World::unmigrated().await;
    let shown = json(&world, &["config", "show", "--json"]).await;
    let vhost = &shown["amqp.vhost"];
    assert_eq!(vhost["value"], world.database().name(), "vhost and database have one name");
    let origin = vhost["origin"].as_str().unwrap_or_default();
    assert!(origin.contains("PLATZIVERSE_AMQP__URL"), "{origin}");
    let text = succeeds(&world, &["config", "show"]).await.stdout;
    let (credentials, _) = world.amqp_url().rsplit_once('@').expect("credentials");
    let (_, password) = credentials.rsplit_once(':').expect("a password");
    assert!(!text.contains(password) && !shown.to_string().contains(password), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_is_checked() {
    let world = World::unmigrated().await;
    let folder = std::env::temp_dir();
    let file = |name: &str| folder.join(format!("{}_{name}", world.database().name()));
    let (good, bad) = (file("good.toml"), file("bad.json"));
    std::fs::write(&good, "[amqp]\nhost = \"mq\"\n").expect("written");
    std::fs::write(&bad, r#"{"amqp": {"hots": "mq", "port": 70000}}"#).expect("written");
    let check = |path: &std::path::Path| path.to_str().expect("a name").to_owned();
    succeeds(&world, &["config", "check", &check(&good)]).await;
    let none = json(&world, &["config", "check", &check(&good), "--json"]).await;
    assert_eq!(none["problems"].as_array().map(Vec::len), Some(0));
    let ended = world.platziverse(&["config", "check", &check(&bad), "--json"]).await;
    let printed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let keys = printed["problems"].as_array().into_iter().flatten().map(|one| &one["key"]);
    assert_eq!(keys.collect::<Vec<_>>(), ["amqp.hots", "amqp.port"], "{printed}");
    let ended = world.platziverse(&["config", "check", &check(&bad)]).await;
    assert!(!ended.status.success(), "{ended:?}");
    for mention in ["bad.json", "hots", "host", "70000"] {
        assert!(ended.stderr.contains(mention), "{mention}: {}", ended.stderr);
    }
    for path in [good, bad] {
        std::fs::remove_file(path).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_is_made_migrated_described_and_dropped() {
    let world = World::unmigrated().await;
    let url = format!("{}_more", world.database().url());
    let settings = [("PLATZIVERSE_DATABASE__URL", url.as_str())];
    let run = async |arguments: &'static [&'static str]| {
        world.run("platziverse", arguments, &settings).await
    };
    let missing = run(&["db", "status"]).await;
    assert!(!missing.status.success() && missing.stderr.contains("db create"), "{missing:?}");
    for arguments in [&["db", "create"], &["db", "migrate"], &["db", "migrate"]] {
        let ended = run(arguments).await;
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    }
    let status = run(&["db", "status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    let migrations = status["migrations"].as_array().expect("migrations");
    assert!(migrations.len() >= 2 && migrations.iter().all(|m| m["applied"] == true), "{status}");
    let text = run(&["db", "status"]).await.stdout;
    assert!(text.contains("up to date") && text.contains("metrics"), "{text}");
    let undecided = run(&["db", "drop"]).await;
    assert!(!undecided.status.success(), "nobody can be asked: {undecided:?}");
    assert!(run(&["db", "drop", "--yes"]).await.status.success());
    assert!(!run(&["db", "status"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_that_of_the_service_that_the_settings_name() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let address = gateway.ops().to_string();
    let health = async |address: &str| {
        world.run("platziverse", &["health"], &[("PLATZIVERSE_OPS__LISTEN", address)]).await
    };
    let ready = health(&address).await;
    assert!(ready.status.success() && ready.stdout.contains("rabbitmq"), "{ready:?}");
    drop(gateway);
    let gone = health(&address).await;
    assert!(gone.status.code() == Some(1) && gone.stderr.contains(&address), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bench_counts_is_stored() {
    let world = World::start().await;
    let (gateway, worker) = (world.gateway().await, world.worker().await);
    let url = format!("mqtt://{}", gateway.mqtt());
    let base = ["bench", "--json", "--url", &url, "--clients", "4", "--agents", "2"];
    let times = ["--warm-up", "200ms", "--time", "1s"];
    let mut sent = 0;
    for pace in [["--in-flight", "5"], ["--rate", "500"]] {
        let name = ["--name", pace[0].trim_start_matches('-')];
        let report = json(&world, &[&base[..], &times, &pace, &name].concat()).await;
        let count = |name: &str| report[name].as_u64().expect("a count");
        assert!(count("acknowledged") > 0, "{report}");
        assert_eq!((count("unanswered"), count("closed")), (0, 0), "{report}");
        let latency = |name: &str| report["latency"][name].as_f64().expect("milliseconds");
        assert!(latency("p50") > 0.0 && latency("p50") <= latency("max"), "{report}");
        sent += count("sent");
    }
    world.at_rest(&[&gateway, &worker]).await;
    assert_eq!(world.database().value(METRICS).await, (2 * sent).to_string());
    // Two runs, each of four clients with two agents.
    assert_eq!(world.database().value("SELECT count(*) FROM agents").await, "16");
    let dues = "SELECT count(*) FROM metrics WHERE type = 'sent' AND \
                abs(value::numeric - extract(epoch from received_at) * 1000000) > 60000000";
    assert_eq!(world.database().value(dues).await, "0", "each says when it was due");

    let nobody = complaint(&world, &["bench", "--url", "mqtt://127.0.0.1:1"]).await;
    assert!(nobody.contains("no connection to 127.0.0.1:1"), "{nobody}");
}

/// What the command said when it failed.
async fn complaint(world: &World, arguments: &[&str]) -> String {
    let ended = world.platziverse(arguments).await;
    assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {ended:?}");
    ended.stderr
}

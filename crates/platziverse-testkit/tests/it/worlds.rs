//! The test worlds themselves.

use platziverse_testkit::{Message, PATIENCE, Version, World, check, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worlds_are_apart_and_leave_nothing_behind() {
    let (one, other) = (World::unmigrated().await, World::unmigrated().await);
    one.rabbitmq().declare_queue("q", true, json!({})).await;
    assert!(one.rabbitmq().queue("q").await.is_some());
    assert!(other.rabbitmq().queue("q").await.is_none());
    one.database().sql("CREATE TABLE t (a int, b text)").await;
    one.database().sql("INSERT INTO t VALUES (1, null), (2, 'x')").await;
    let rows = one.database().sql("SELECT a, b FROM t ORDER BY a").await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [[text("1"), None], [text("2"), text("x")]]);
    assert!(other.database().try_sql("SELECT * FROM t").await.is_err());

    assert!(one.platziverse(&["--version"]).await.status.success());
    let (gone, folder) = (one.database().name().to_owned(), one.folder().to_owned());
    assert!(folder.exists() && other.rabbitmq().has_vhost(&gone).await);
    drop(one);
    assert!(!folder.exists(), "{} is left", folder.display());
    assert!(!other.rabbitmq().has_vhost(&gone).await, "the vhost {gone} is left");
    let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{gone}'");
    other.database().becomes(&left, "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_servers_can_be_stopped_and_started() {
    let world = World::private().await;
    world.servers().run("stop", "postgres").await;
    assert!(world.database().try_sql("SELECT 1").await.is_err());
    world.servers().run("start", "postgres").await;
    eventually("PostgreSQL is back", PATIENCE, || async {
        let rows = world.database().try_sql("SELECT 1").await?;
        check(rows.len() == 1, || format!("{rows:?}"))
    })
    .await;
    let rabbitmq = world.rabbitmq();
    rabbitmq.declare_queue("kept", true, json!({"x-queue-type": "quorum"})).await;
    rabbitmq.publish("", "kept", json!({"delivery_mode": 2}), "still here").await;
    world.servers().run("restart", "rabbitmq").await;
    let kept = eventually("the queue has a leader again", PATIENCE, || async {
        let messages = rabbitmq.try_peek("kept", 10).await?;
        check(!messages.is_empty(), || "it is empty".to_owned())?;
        Ok(messages)
    })
    .await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["payload"], "still here");
    assert!(world.servers().ctl(&["status"]).await.is_ok_and(|text| text.contains("RabbitMQ")));
    let wrong = world.servers().try_run("nonsense", "rabbitmq").await;
    assert!(wrong.is_err_and(|error| error.contains("nonsense")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worlds_can_share_servers_one_after_the_other() {
    let first = World::private().await;
    let servers = first.shared_servers();
    let mut names = Vec::new();
    for _ in 0..2 {
        let world = World::on(servers.clone()).await;
        let (gateway, _worker) = (world.gateway().await, world.worker().await);
        let client = world.client(&gateway, Version::V3).await;
        client.report(&Message::example()).await;
        world.database().becomes("SELECT count(*) FROM metrics", "2").await;
        names.push(world.database().name().to_owned());
    }
    for name in names {
        assert!(!first.rabbitmq().has_vhost(&name).await, "{name}");
        let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        assert_eq!(first.database().value(&left).await, "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_restarts_in_place() {
    let world = World::start().await;
    let mut gateway = world.gateway().await;
    let (address, first) = (gateway.mqtt(), gateway.pid());
    assert!(gateway.restart().is_err_and(|error| error.contains("still runs")));
    gateway.kill();
    assert!(!gateway.is_running());
    assert!(gateway.try_metrics().await.is_err());
    let peak = gateway.peak_memory();
    assert!(peak > 0, "it is known after the end");
    gateway.restart().expect("started again");
    gateway.ready().await;
    assert!(gateway.terminate().await.success());
    gateway.restart().expect("started again");
    gateway.ready().await;
    assert_ne!(gateway.pid(), first);
    assert!(gateway.peak_memory() >= peak);
    assert_eq!(gateway.mqtt(), address);
    world.client(&gateway, Version::V5).await.report(&Message::example()).await;
    let starts = gateway.log().matches(&format!("MQTT 3.1.1 and 5 on {address}")).count();
    assert_eq!(starts, 3, "the log has all three lives: {}", gateway.log());
    assert_eq!(gateway.panicked(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_lock_lasts_until_it_is_dropped() {
    let world = World::unmigrated().await;
    let database = world.database();
    database.sql("CREATE TABLE t (a int)").await;
    let held = database.hold("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.expect("had");
    let waiting = "SET lock_timeout = '200ms'; SELECT count(*) FROM t";
    let refused = database.try_sql(waiting).await;
    assert!(refused.is_err_and(|error| error.contains("lock")));
    drop(held);
    database.becomes(waiting, "0").await;
    assert!(database.hold("LOCK nonsense").await.is_err());
}

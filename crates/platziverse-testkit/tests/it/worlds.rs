//! The test worlds themselves.

use platziverse_testkit::{PATIENCE, World, check, eventually};
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

    let gone = one.database().name().to_owned();
    drop(one);
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
    world.servers().run("restart", "rabbitmq").await;
    assert_eq!(world.rabbitmq().dead_letters().await.len(), 0);
}

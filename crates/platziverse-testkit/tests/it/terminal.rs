//! What programs do at a terminal, and what elsewhere.

use platziverse_testkit::{World, closed_port};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_dropped_if_somebody_agrees() {
    let world = World::unmigrated().await;
    let url = format!("{}_more", world.database().url());
    let settings = [("PLATZIVERSE_DATABASE__URL", url.as_str())];
    let run = async |arguments: &'static [&'static str]| {
        world.run("platziverse", arguments, &settings).await
    };
    let dropped_by = async |answer: &str| {
        world.run_at_terminal("platziverse", &["db", "drop"], &settings, answer).await
    };
    assert!(run(&["db", "create"]).await.status.success());
    let nobody = run(&["db", "drop"]).await;
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("no terminal (give --yes to agree)"), "{nobody:?}");
    let question = format!("{}_more with everything in it? [y/N] ", world.database().name());
    for answer in ["\n", "n\n", "yy\n", "\u{4}"] {
        let (status, shown) = dropped_by(answer).await;
        assert_eq!(status.code(), Some(1), "{answer:?}: {shown}");
        assert!(shown.contains(&question), "{answer:?}: {shown}");
        assert!(shown.ends_with("platziverse: Nothing was changed.\n"), "{answer:?}: {shown}");
        assert!(run(&["db", "status"]).await.status.success(), "{answer:?}");
    }
    let (status, shown) = dropped_by("y\n").await;
    assert!(status.success() && shown.contains("Dropped "), "{shown}");
    assert!(!run(&["db", "status"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_says_what_it_does() {
    let world = World::start().await;
    // It ends by itself, as there is no RabbitMQ.
    let (nowhere, worker) = (closed_port(), "platziverse-worker");
    let url = world.amqp_url_at(nowhere);
    let settings = [("PLATZIVERSE_AMQP__URL", url.as_str())];
    let broker = format!("{nowhere}/{}", world.vhost());

    let (status, shown) = world.run_at_terminal(worker, &[], &settings, "").await;
    assert_eq!(status.code(), Some(1), "{shown}");
    let banner = format!(
        "\n\nplatziverse-worker {}\n  roles     ingest, tasks\n  broker    {broker}\n  queues    \
         platziverse.ingest, platziverse.events, platziverse.commands\n  prefetch  200 for each \
         writer, 100 tasks\n  database  ",
        env!("CARGO_PKG_VERSION")
    );
    assert!(shown.contains(&banner), "{shown}");

    let ended = world.run(worker, &[], &settings).await;
    let lines = ended.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told: Vec<_> = lines.filter(|line| line.get("roles").is_some()).collect();
    assert!(told.len() == 1 && !ended.stderr.contains("\n  roles"), "{}", ended.stderr);
    for (name, value) in [
        ("service", "worker"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("roles", "ingest, tasks"),
        ("broker", &broker),
        ("queues", "platziverse.ingest, platziverse.events, platziverse.commands"),
        ("prefetch", "200 for each writer, 100 tasks"),
    ] {
        assert_eq!(told[0][name], value, "{name}: {}", told[0]);
    }
}

//! The books balance, exactly and at all times.

use std::time::Duration;

use platziverse_testkit::{Load, PATIENCE, Process, QoS, Version, World};
use tokio::time::Instant;

/// The sum of what came in, after checking that each of it is accounted for.
pub(crate) async fn assert_balanced(process: &Process) -> f64 {
    let balance = process.books().await.expect("books");
    assert!(balance.is_balanced(), "{}: {balance:?}", process.name());
    balance.entered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_under_load_and_at_rest() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let workers = [world.worker().await, world.worker().await];
    let bad = world.client(&gateway, Version::V5).await;
    let load = Load::start(&gateway, 3, 2_000, Duration::ZERO).await;
    let mut refused = 0_u32;
    let end = Instant::now() + PATIENCE * 2;
    while load.sent() < 6_000 {
        assert!(Instant::now() < end, "only {} of 6,000 messages are sent", load.sent());
        bad.publish("agent/message", QoS::AtLeastOnce, "nonsense").await;
        bad.publish("agent/message", QoS::AtMostOnce, "{}").await;
        refused += 2;
        assert_balanced(&gateway).await;
        for worker in &workers {
            assert_balanced(worker).await;
        }
    }
    let report = load.finish().await;
    report.assert_all_acknowledged();
    report.assert_stored_once(&world, &[&gateway, &workers[0], &workers[1]]).await;

    gateway.counts("platziverse_gateway_publishes_refused_total", f64::from(refused)).await;
    assert_eq!(assert_balanced(&gateway).await, 6_000.0 + f64::from(refused));
    let metrics = gateway.metrics().await;
    for (name, wanted) in [("confirmed_total", 6_000.0), ("dropped_total", 0.0), ("in_flight", 0.0)]
    {
        let name = format!("platziverse_gateway_publishes_{name}");
        assert_eq!(metrics.get(&name), wanted, "{name}");
    }
    // The messages, the announcements and the ends of three agents, each stored once.
    let mut stored = 0.0;
    for worker in &workers {
        assert_balanced(worker).await;
        stored += worker.metrics().await.get("platziverse_worker_records_stored_total");
    }
    assert!((6_003.0..=6_006.0).contains(&stored), "{stored} records were stored");
}

//! Connections that do nothing but stay.

use platziverse_load::Idle;

use crate::server::Broker;

#[tokio::test]
async fn connections_stay_until_the_server_closes_them() {
    let (one, other) = (Broker::start(|_, _| None).await, Broker::start(|_, _| None).await);
    let (mut told, servers) = (Vec::new(), [one.server.clone(), other.server.clone()]);
    let mut idle =
        Idle::connect(&servers, "idle", 20, 3, 60, |count| told.push(count)).await.unwrap();
    assert_eq!((told.last(), idle.open(), idle.ping().await), (Some(&20), 20, 20));
    assert!(idle.latency().max > 0.0 && idle.took().as_micros() > 0);
    drop(other);
    // Its end is not heard before this task waits for something.
    while idle.open() == 20 {
        tokio::task::yield_now().await;
    }
    assert_eq!((idle.ping().await, idle.open()), (10, 10));
}

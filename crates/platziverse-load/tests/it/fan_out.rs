//! One publisher, many subscribers.

use std::time::Duration;

use platziverse_load::{FanOut, FanOutReport, LoadError, Pace, Shape, fan_out};

use crate::server::{Broker, Deliver};

/// 20 messages, of which the first 10 are the warm-up's, to 3 subscribers.
async fn played(deliver: Deliver, shape: Shape) -> FanOutReport {
    let broker = Broker::start(deliver).await;
    let plan = FanOut {
        publisher: broker.server.clone(),
        subscribers: vec![broker.server.clone()],
        count: 3,
        name: "fan".into(),
        qos: 1,
        pace: Pace::Open(40.0),
        warm_up: Duration::from_millis(250),
        time: Duration::from_millis(250),
        shape,
    };
    fan_out(&plan, |_| {}).await.unwrap()
}

fn numbered() -> Shape {
    Shape::Numbered { agents: 2, metrics: 3 }
}

fn opaque() -> Shape {
    Shape::Opaque { topic: "t".into(), bytes: 100 }
}

/// Published, expected, delivered, missing, doubled, closed.
fn figures(report: &FanOutReport) -> [u64; 6] {
    let FanOutReport { published, expected, delivered, missing, doubled, closed, .. } = *report;
    [published, expected, delivered, missing, doubled, closed]
}

#[tokio::test]
async fn everyone_hears_everything() {
    for shape in [numbered(), opaque()] {
        let report = played(|_, _| Some(1), shape).await;
        assert_eq!(figures(&report), [10, 30, 30, 0, 0, 0], "{report:?}");
        assert!(report.latency.max > 0.0 && report.rate > 0.0, "{report:?}");
    }
}

#[tokio::test]
async fn doubled_and_missing_messages_are_counted() {
    let deliver: Deliver = |subscriber, publish| match (subscriber, publish) {
        (0, 3 | 15) => Some(2),
        (1, 4 | 12 | 13) => Some(0),
        _ => Some(1),
    };
    let report = played(deliver, numbered()).await;
    assert_eq!(figures(&report), [10, 30, 28, 2, 2, 0], "{report:?}");
}

#[tokio::test]
async fn a_lost_subscriber_misses_the_rest() {
    let deliver: Deliver = |_, publish| (publish < 15).then_some(1);
    let report = played(deliver, numbered()).await;
    assert_eq!(report.closed, 3, "{report:?}");
    assert_eq!((report.expected, report.delivered, report.missing), (30, 15, 15), "{report:?}");
    assert!(report.why.is_some(), "{report:?}");
}

#[tokio::test]
async fn without_subscribers_there_is_nothing_to_measure() {
    let broker = Broker::start(|_, _| Some(1)).await;
    let plan = FanOut {
        publisher: broker.server.clone(),
        subscribers: Vec::new(),
        count: 1,
        name: "fan".into(),
        qos: 0,
        pace: Pace::Closed(1),
        warm_up: Duration::ZERO,
        time: Duration::from_millis(1),
        shape: numbered(),
    };
    assert!(matches!(fan_out(&plan, |_| {}).await, Err(LoadError::Nothing)));
}

//! Agents that report without a pause, each message once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{Client, Message, Options, PATIENCE, Pending, Process, QoS, Version, World};
use crate::{check, eventually};

/// Clients that send numbered messages at QoS 1, until they have sent enough or are stopped. The
/// number is the value of the message's only metric: no two messages have the same.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<LoadReport>>,
}

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// The numbers of those that were sent.
    pub numbers: HashSet<u64>,
    /// The numbers of those that were acknowledged.
    pub acknowledged: HashSet<u64>,
}

/// What each client of a load does.
#[derive(Clone, Debug)]
struct Plan {
    number: u64,
    messages: u64,
    pause: Duration,
}

/// The numbers of one client are this far from those of the next.
const STRIDE: u64 = 1_000_000_000;

impl Load {
    /// `clients` agents, each sending at most `messages`, with `pause` after each message.
    #[expect(clippy::disallowed_methods, reason = "a test has no drain; finish() waits")]
    pub async fn start(gateway: &Process, clients: u64, messages: u64, pause: Duration) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for number in 0..clients {
            let options = Options::new(gateway.mqtt(), Version::V3);
            let client = Client::connect(options).await;
            let client = client.unwrap_or_else(|refused| panic!("refused: {refused}"));
            let plan = Plan { number, messages, pause };
            tasks.push(tokio::spawn(send(client, plan, stop.clone(), sent.clone())));
        }
        Self { stop, sent, clients: tasks }
    }

    /// How many messages have been sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `count` messages have been sent.
    pub async fn has_sent(&self, count: u64) {
        eventually(&format!("{count} messages are sent"), PATIENCE, || async {
            check(self.sent() >= count, || format!("{} are", self.sent()))
        })
        .await;
    }

    /// Lets the clients send no more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until every message is acknowledged or its connection has ended.
    pub async fn finish(self) -> LoadReport {
        let mut all = LoadReport::default();
        for client in self.clients {
            let report = client.await.expect("a client of the load does not panic");
            all.numbers.extend(report.numbers);
            all.acknowledged.extend(report.acknowledged);
        }
        all
    }
}

impl LoadReport {
    /// Fails the test unless every message that was sent was acknowledged.
    pub fn assert_all_acknowledged(&self) {
        assert_eq!(self.acknowledged.len(), self.numbers.len(), "acknowledged, sent");
    }

    /// Waits until `services`, which must be all that run in the world, are at rest. Fails the test
    /// unless every acknowledged message is stored, none twice, and nothing that was not sent.
    pub async fn assert_stored_once(&self, world: &World, services: &[&Process]) {
        world.at_rest(services).await;
        let rows = world.database().sql("SELECT value::bigint FROM metrics WHERE type = 'load'");
        let mut stored = HashSet::new();
        for row in rows.await {
            let number = row[0].as_deref().and_then(|value| value.parse::<u64>().ok());
            let number = number.unwrap_or_else(|| panic!("nobody sent the value {row:?}"));
            assert!(self.numbers.contains(&number), "nobody sent the value {number}");
            assert!(stored.insert(number), "{number} is stored more than once");
        }
        let missing: Vec<_> = self.acknowledged.difference(&stored).take(5).collect();
        assert!(missing.is_empty(), "acknowledged messages that are not stored, as {missing:?}");
    }
}

async fn send(
    client: Client,
    plan: Plan,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> LoadReport {
    let mut pending: Vec<(u64, Pending)> = Vec::new();
    let mut report = LoadReport::default();
    let agent = Message::of(&format!("load-{}", plan.number));
    for index in 0..plan.messages {
        if stop.load(Ordering::Relaxed) || client.is_closed().is_some() {
            break;
        }
        let value = plan.number * STRIDE + index;
        let message = agent.clone().metric("load", value).json();
        pending.push((value, client.send("agent/message", QoS::AtLeastOnce, message).await));
        report.numbers.insert(value);
        sent.fetch_add(1, Ordering::Relaxed);
        if !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
    }
    for (value, pending) in pending {
        if pending.acknowledged().await.is_ok_and(|ack| ack.code == 0) {
            report.acknowledged.insert(value);
        }
    }
    report
}

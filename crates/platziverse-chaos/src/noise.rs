//! A publisher of a topic of its own, which nobody keeps: what subscribers that are too slow for it
//! are measured with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use platziverse_testkit::{Client, Options, QoS, Version};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

/// What it publishes to.
pub const TOPIC: &str = "noise/of-chaos";
const CONNECT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// How loud it is.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    /// Bytes of a message.
    pub bytes: usize,
    /// Messages a second.
    pub rate: u32,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// The publisher; it ends when this is dropped.
#[derive(Debug)]
pub struct Noise {
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Noise {
    /// Publishes at one gateway after the other, at the next one when a connection ends.
    #[expect(clippy::disallowed_methods, reason = "the drop ends the task")]
    pub fn start(gateways: Vec<SocketAddr>, volume: Volume) -> Self {
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn(publish(gateways, volume, Arc::clone(&counts)));
        Self { counts, task }
    }

    /// How many messages it has sent.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// How many messages it has been told are taken.
    pub fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(Ordering::Relaxed)
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn publish(gateways: Vec<SocketAddr>, volume: Volume, counts: Arc<Counts>) {
    for gateway in gateways.iter().cycle() {
        let client = Client::try_connect(Options::new(*gateway, Version::V5), CONNECT).await;
        if let Ok(client) = client {
            speak(&client, volume, &counts).await;
        }
        sleep(PAUSE).await;
    }
}

/// Until the connection ends.
async fn speak(client: &Client, volume: Volume, counts: &Counts) {
    let mut beat = interval(Duration::from_secs(1) / volume.rate.max(1));
    let payload = vec![b'x'; volume.bytes];
    let mut pending = Vec::new();
    while client.is_closed().is_none() {
        beat.tick().await;
        counts.sent.fetch_add(1, Ordering::Relaxed);
        pending.push(client.send(TOPIC, QoS::AtLeastOnce, payload.clone()).await);
        pending.retain_mut(|one| match one.so_far() {
            None => true,
            Some(answer) => {
                let taken = answer.is_ok_and(|ack| ack.code < 0x80);
                counts.acknowledged.fetch_add(u64::from(taken), Ordering::Relaxed);
                false
            }
        });
    }
}

//! One client id, taken over again and again: each connection but the last is told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use platziverse_testkit::{Client, Message, Options, QoS, Version};
use tokio::time::{Instant, sleep};

use super::{Fault, rows};
use crate::stage::Stage;

const TAKEOVERS: usize = 1_000;
const WANDERER: &str = "wanderer";
/// Older connections that may not have been told yet.
const OLDER_MAX: usize = 50;
/// How long a connection may live on after a newer one was let in.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// How often each takeover may be announced: once, and heartbeats are counted with them.
const ANNOUNCED_MAX: f64 = 2.0;
const SESSION_TAKEN_OVER: u8 = 0x8E;
const CONNECT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
/// Promise 3.
const PRESENCE: Duration = Duration::from_secs(15);

/// The connections that are not the newest any more, and what became of them.
#[derive(Default)]
struct Older {
    living: VecDeque<(Instant, Client)>,
    /// Ends that were not as they should be, and how many of each.
    wrong: BTreeMap<String, usize>,
}

pub(super) async fn begin(_: Fault, stage: &mut Stage) -> Result<(), String> {
    let gateways: Vec<_> = stage.gateways.iter().map(|gateway| gateway.mqtt()).collect();
    let mut older = Older::default();
    let before = announcements(stage).await?;
    for number in 0..TAKEOVERS {
        // Two at one gateway, two at the next: half are taken over where they are.
        let options = Options::new(gateways[number / 2 % gateways.len()], Version::V5).id(WANDERER);
        let client = Client::try_connect(options, CONNECT).await;
        let client = client.map_err(|closed| format!("takeover {number}: {closed}"))?;
        // Not awaited: the next connection may come before the answer.
        let message = Message::of(WANDERER).json();
        drop(client.send("agent/message", QoS::AtLeastOnce, message).await);
        let replaced = stage.crowd.newest.replace(client);
        older.living.extend(replaced.map(|client| (Instant::now(), client)));
        older.until_at_most(OLDER_MAX).await;
        if number % 100 == 0 {
            stage.look().await;
        }
    }
    older.until_at_most(0).await;
    for (what, count) in older.wrong {
        stage.note(format!("{count} of {TAKEOVERS} connections that were taken over {what}"));
    }
    let announced = announcements(stage).await? - before;
    if announced > ANNOUNCED_MAX * TAKEOVERS as f64 {
        stage.note(format!("{TAKEOVERS} takeovers were announced {announced} times"));
    }
    Ok(())
}

/// What gateways have told each other.
async fn announcements(stage: &Stage) -> Result<f64, String> {
    let mut sum = 0.0;
    for gateway in &stage.gateways {
        let name = "platziverse_broker_published_records_total{role=\"signals\"}";
        sum += gateway.try_metrics().await?.try_get(name)?;
    }
    Ok(sum)
}

impl Older {
    async fn until_at_most(&mut self, count: usize) {
        loop {
            self.look();
            if self.living.len() <= count {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Takes out those that have ended, or have not in their time.
    fn look(&mut self) {
        let wrong = &mut self.wrong;
        self.living.retain(|(since, client)| {
            let what = match client.is_closed() {
                Some(closed) if closed.code == Some(SESSION_TAKEN_OVER) => return false,
                Some(closed) => format!("were {closed}"),
                None if since.elapsed() <= TOLD_WITHIN => return true,
                None => format!("lived on for {TOLD_WITHIN:?}"),
            };
            *wrong.entry(what).or_default() += 1;
            false
        });
    }
}

/// The last of them stays until it leaves.
pub(super) async fn end(_: Fault, stage: &mut Stage) -> Result<(), String> {
    rows::are_present(stage, WANDERER, 1, PRESENCE).await?;
    if let Some(client) = stage.crowd.newest.take() {
        if let Some(closed) = client.is_closed() {
            return Err(format!("the last of {TAKEOVERS} connections was closed: {closed}"));
        }
        client.disconnect().await;
    }
    rows::are_present(stage, WANDERER, 0, PRESENCE).await
}

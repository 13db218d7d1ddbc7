//! Clients that write to each other, at a rate.

use std::sync::Arc;
use std::time::Duration;

use platziverse_load::{Latency, Recorder};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Target;
use super::dialect::{Heard, To};
use super::socket::Socket;
use crate::mom::result;

/// Clients that write, each to another one.
const PAIRS: u64 = 20;
/// How long the last messages may be on their way.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until the first one is due.
const BEGINNING: Duration = Duration::from_millis(200);

/// Which messages there are, and when each is due.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    begun: Instant,
    rate: u64,
    /// The first one that counts.
    first: u64,
    count: u64,
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        self.begun + Duration::from_micros(1_000_000 * number / self.rate)
    }

    fn of(&self, pair: u64) -> impl Iterator<Item = u64> + use<> {
        (pair..self.count).step_by(PAIRS as usize)
    }
}

/// Publishes at a rate: how long it takes from when a message is due until its client has it. Those
/// of the first `warm_up` do not count.
pub(crate) async fn write(
    target: &Target,
    rate: u64,
    warm_up: Duration,
    time: Duration,
) -> Result<Latency, String> {
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let reader = target.listen(&name(pair), &[0]).await?;
        pairs.push((pair, target.connect(&format!("writer-{pair}")).await?, reader));
    }
    let messages = |time: Duration| time.as_millis() as u64 * rate / 1_000;
    let (first, count) = (messages(warm_up), messages(warm_up + time));
    let schedule = Schedule { begun: Instant::now() + BEGINNING, rate, first, count };
    let (recorder, mut tasks) = (Arc::new(Recorder::new()), JoinSet::new());
    for (pair, writer, reader) in pairs {
        tasks.spawn(send(writer, pair, schedule));
        tasks.spawn(receive(reader, pair, schedule, Arc::clone(&recorder)));
    }
    let end = schedule.due(count) + PATIENCE;
    while let Some(ended) = timeout_at(end, tasks.join_next()).await.map_err(|_| missing())? {
        result(ended)?;
    }
    Ok(recorder.read().1)
}

fn missing() -> String {
    format!("messages are missing after {PATIENCE:?}")
}

fn name(pair: u64) -> String {
    format!("reader-{pair}")
}

async fn send(mut socket: Socket, pair: u64, schedule: Schedule) -> Result<(), String> {
    let (reader, mut unanswered) = (name(pair), 0_u64);
    for number in schedule.of(pair) {
        let due = schedule.due(number);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(due) => break,
                heard = socket.hear() => unanswered -= u64::from(is_receipt(heard?)),
            }
        }
        socket.publish(To::Client(&reader), number).await?;
        socket.flush().await?;
        unanswered += 1;
    }
    while unanswered > 0 {
        unanswered -= u64::from(is_receipt(socket.hear().await?));
    }
    Ok(())
}

fn is_receipt(heard: Heard) -> bool {
    matches!(heard, Heard::Receipt(_))
}

async fn receive(
    mut socket: Socket,
    pair: u64,
    schedule: Schedule,
    recorder: Arc<Recorder>,
) -> Result<(), String> {
    for wanted in schedule.of(pair) {
        let number = loop {
            if let Heard::Message(_, number) = socket.hear().await? {
                break number;
            }
        };
        if number != wanted {
            return Err(format!("message {number} came when {wanted} was to come"));
        }
        if number >= schedule.first {
            let late = Instant::now().saturating_duration_since(schedule.due(number));
            recorder.record(pair as usize, std::iter::once(late));
        }
    }
    Ok(())
}

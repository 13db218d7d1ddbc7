//! An agent that commands are for: it comes and goes, drops what it knows by its id, and answers
//! what it has done, if need be after a crash.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use platziverse_testkit::{Client, Heard, Options, Pending, QoS};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::diary::Diary;
use super::kind::{self, NAME, Temper};

/// How often an agent looks what there is to do.
const LOOK: Duration = Duration::from_millis(20);
/// How long a connection may take to be accepted, and a subscription.
const CONNECT: Duration = Duration::from_secs(10);
/// The least keep-alive that the client library has: a dead gateway is noticed after it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long an agent stays, in milliseconds.
const STAYS: std::ops::Range<u64> = 2_000..8_000;
/// How long it is away after that.
const AWAY: std::ops::Range<u64> = 0..3_000;
/// How long a PUBACK may take to be written.
const WRITTEN: Duration = Duration::from_millis(20);
/// Of a hundred commands, those at which an agent crashes before its PUBACK, and after it.
const CRASHES: (u32, u32) = (5, 10);

/// How all agents behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// They come and go, and crash now and then.
    Lively,
    /// Each crashes after every PUBACK.
    Crashing,
    /// They stay, and keep their answers to themselves.
    Holding,
    /// They stay, and get everything done.
    Calm,
    /// They end.
    Over,
}

/// What an agent's task tells.
#[derive(Debug, Default)]
pub struct Status {
    /// Answers that have no PUBACK.
    pub owed: AtomicU64,
    /// The greatest number of a command whose answer has one, and 1.
    pub answered: AtomicU64,
}

/// What an agent is told at its start.
pub struct Agent {
    /// Its uuid.
    pub uuid: String,
    /// Its number.
    pub number: u64,
    /// Where it may connect.
    pub gateways: Arc<[SocketAddr]>,
    /// How it is to behave.
    pub moods: watch::Receiver<Mood>,
    /// What it has done.
    pub diary: Diary,
    /// What it tells.
    pub status: Arc<Status>,
}

/// What survives a crash.
#[derive(Default)]
struct Memory {
    known: HashSet<Uuid>,
    /// What is done and has no answer yet.
    owed: VecDeque<(u64, Uuid)>,
}

/// Answers that await their PUBACK.
type Answers = Vec<(u64, Uuid, Pending)>;

impl Agent {
    /// Lives until it is over.
    pub async fn run(self) {
        let (mut memory, mut attempts, mut failures) = (Memory::default(), self.number, 0_u32);
        while self.mood() != Mood::Over {
            attempts += 1;
            match self.connect(attempts).await {
                Some(client) => {
                    failures = 0;
                    let mut answers = Answers::new();
                    self.converse(client, &mut memory, &mut answers).await;
                    let again = answers.into_iter().map(|(number, id, _)| (number, id));
                    memory.owed.extend(again);
                    if self.mood() == Mood::Lively {
                        sleep(Duration::from_millis(fastrand::u64(AWAY))).await;
                    }
                }
                None => failures += 1,
            }
            let delay = 50_u64 << failures.min(5);
            sleep(Duration::from_millis(fastrand::u64(delay / 2..=delay))).await;
        }
    }

    fn mood(&self) -> Mood {
        *self.moods.borrow()
    }

    /// A connection with its subscription.
    async fn connect(&self, attempts: u64) -> Option<Client> {
        let count = self.gateways.len().max(1);
        let place = usize::try_from(attempts).unwrap_or_default() % count;
        let mut options = Options::new(*self.gateways.get(place)?, kind::version(self.number));
        options = options.id(&self.uuid);
        (options.keep_alive, options.acks_by_hand) = (KEEP_ALIVE, true);
        let client = Client::try_connect(options, CONNECT).await.ok()?;
        let topic = format!("agent/{}/command", self.uuid);
        let codes = client.try_subscribe(&topic, QoS::AtLeastOnce, CONNECT).await.ok()?;
        if codes != [1] {
            self.diary.note(format!("{}: its subscription was answered {codes:02X?}", self.uuid));
        }
        Some(client)
    }

    /// Until the connection ends, or the agent leaves or crashes.
    async fn converse(&self, client: Client, memory: &mut Memory, answers: &mut Answers) {
        let leaves = Instant::now() + Duration::from_millis(fastrand::u64(STAYS));
        while client.is_closed().is_none() {
            if let Some(heard) = client.next_within(LOOK).await
                && self.hear(&client, &heard, memory).await == Crash::Yes
            {
                return;
            }
            self.answer(&client, memory, answers).await;
            let mood = self.mood();
            let leaves_now = mood == Mood::Lively && Instant::now() >= leaves;
            if mood == Mood::Over || leaves_now && fastrand::bool() {
                return client.disconnect().await;
            }
            if leaves_now {
                return;
            }
        }
    }

    async fn hear(&self, client: &Client, heard: &Heard, memory: &mut Memory) -> Crash {
        let Some((number, id)) = read(heard) else {
            self.diary.note(format!("{} heard {}: {}", self.uuid, heard.topic, heard.payload));
            return Crash::No;
        };
        if heard.topic != format!("agent/{}/command", self.uuid) {
            self.diary.note(format!("{} heard what is for {}", self.uuid, heard.topic));
        }
        self.diary.came(number, id);
        let temper = Temper::of(self.number);
        if temper == Temper::Deaf {
            return Crash::No;
        }
        let is_new = !memory.known.contains(&id);
        let crash = if is_new { self.crash() } else { None };
        if crash == Some(At::BeforePuback) {
            return Crash::Yes;
        }
        if is_new && temper == Temper::Answers {
            self.diary.done(number);
            memory.owed.push_back((number, id));
            self.status.owed.fetch_add(1, Ordering::Relaxed);
        }
        memory.known.insert(id);
        self.diary.acknowledges(number);
        client.acknowledge(heard).await;
        if crash.is_none() || temper != Temper::Answers {
            return Crash::No;
        }
        sleep(WRITTEN).await;
        self.diary.crashed();
        Crash::Yes
    }

    /// Where it crashes now, if it does.
    fn crash(&self) -> Option<At> {
        let (before, after) = CRASHES;
        match self.mood() {
            Mood::Crashing => Some(At::AfterPuback),
            Mood::Lively => match fastrand::u32(..100) {
                dice if dice < before => Some(At::BeforePuback),
                dice if dice < before + after => Some(At::AfterPuback),
                _ => None,
            },
            Mood::Holding | Mood::Calm | Mood::Over => None,
        }
    }

    /// Sends what is owed, and takes the PUBACKs that are there.
    async fn answer(&self, client: &Client, memory: &mut Memory, answers: &mut Answers) {
        while self.mood() != Mood::Holding
            && let Some((number, id)) = memory.owed.pop_front()
        {
            let topic = format!("agent/{}/response", self.uuid);
            let answer = kind::answer(number, id, &self.uuid).to_string();
            answers.push((number, id, client.send(&topic, QoS::AtLeastOnce, answer).await));
        }
        let mut open = Answers::with_capacity(answers.len());
        for (number, id, mut pending) in answers.drain(..) {
            match pending.so_far() {
                None => open.push((number, id, pending)),
                Some(Ok(ack)) => {
                    self.status.answered.fetch_max(number + 1, Ordering::Relaxed);
                    if ack.code >= 0x80 {
                        let uuid = &self.uuid;
                        self.diary.note(format!("{uuid}: its answer was refused: {ack:?}"));
                    }
                }
                Some(Err(_)) => memory.owed.push_back((number, id)),
            }
        }
        *answers = open;
        let owed = answers.len() + memory.owed.len();
        self.status.owed.store(owed as u64, Ordering::Relaxed);
    }
}

/// Whether an agent has crashed.
#[derive(PartialEq, Eq)]
enum Crash {
    Yes,
    No,
}

/// Where it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    BeforePuback,
    AfterPuback,
}

/// The number and the id of a command.
fn read(heard: &Heard) -> Option<(u64, Uuid)> {
    let command: Value = serde_json::from_str(&heard.payload).ok()?;
    let id = Uuid::try_parse(command["id"].as_str()?).ok()?;
    (command["name"] == NAME && command["expires"].is_i64()).then_some(())?;
    Some((command["payload"]["number"].as_u64()?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read() {
        let heard = |payload: &str| Heard {
            topic: "agent/a/command".to_owned(),
            payload: payload.to_owned(),
            qos: 1,
            packet: 1,
        };
        let id = Uuid::now_v7();
        let whole =
            format!(r#"{{"id":"{id}","name":"count","payload":{{"number":7}},"expires":5}}"#);
        assert_eq!(read(&heard(&whole)), Some((7, id)));
        assert_eq!(read(&heard(&whole.replace(r#","expires":5"#, ""))), None);
        assert_eq!(read(&heard("{}")), None);
    }
}

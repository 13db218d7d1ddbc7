//! Agents that report, reconnect when their gateway goes, and send again what was not answered.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use platziverse_testkit::{Ack, Client, Message, Options, Pending, millis_ago};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::character::{Character, Identity, Part};
use crate::ledger::Ledger;

/// Messages of one agent that may await their answers.
pub const WINDOW: usize = 50;
/// How often an agent looks what there is to do.
const LOOK: Duration = Duration::from_millis(10);
/// How long a connection may take to be accepted.
const CONNECT: Duration = Duration::from_secs(10);
/// How long handing a message to the client may take: its window is larger than ours.
const HAND_OVER: Duration = Duration::from_secs(10);
/// The least keep-alive that the client library has: a dead gateway is noticed after it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What all agents are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Report new messages.
    Report,
    /// Only settle what was sent before, and stay connected.
    Settle,
    /// Stay connected or leave, each by its [`Part`] in the roll call.
    RollCall,
    /// End.
    End,
}

/// What one agent's task tells.
#[derive(Debug, Default)]
struct Status {
    unsettled: AtomicU64,
    /// Acknowledged messages.
    acknowledged: AtomicU64,
    /// The part in the roll call is played.
    played: AtomicBool,
    connected: AtomicBool,
    /// How often it has been let in.
    connections: AtomicU64,
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// Its account.
    pub ledger: Ledger,
    /// Its part in the roll call.
    pub part: Part,
    status: Arc<Status>,
    task: JoinHandle<()>,
}

/// All agents of a round.
#[derive(Debug)]
pub struct Fleet {
    /// The agents.
    pub agents: Vec<Agent>,
    orders: watch::Sender<Order>,
}

/// How a fleet reports.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Agents, each with a connection of its own.
    pub agents: usize,
    /// Messages a second, of all together.
    pub rate: f64,
}

impl Fleet {
    /// Starts the agents; `name` is the start of their uuids.
    #[expect(clippy::disallowed_methods, reason = "finish() waits for the tasks")]
    pub fn start(name: &str, gateways: Vec<SocketAddr>, plan: Plan) -> Self {
        let (orders, _) = watch::channel(Order::Report);
        let gateways: Arc<[SocketAddr]> = gateways.into();
        let agent = |number: usize| {
            let ledger = Ledger::of(&format!("{name}-{number}"));
            let (status, character) = (Arc::new(Status::default()), Character::of(number));
            let driver = Driver {
                character,
                ledger: ledger.clone(),
                pause: Duration::from_secs_f64(plan.agents as f64 / plan.rate.max(0.01)),
                gateways: Arc::clone(&gateways),
                orders: orders.subscribe(),
                status: Arc::clone(&status),
                attempts: character.gateway,
                again: VecDeque::new(),
            };
            Agent { ledger, part: character.part, status, task: tokio::spawn(driver.run()) }
        };
        let agents = (0..plan.agents).map(agent).collect();
        Self { agents, orders }
    }

    /// Gives all agents an order.
    pub fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Messages that were acknowledged to each agent so far.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.agents.iter().map(|agent| agent.status.acknowledged.load(Ordering::Relaxed)).collect()
    }

    /// Messages without an answer that will be sent again until they have one.
    pub fn unsettled(&self) -> u64 {
        self.agents.iter().map(|agent| agent.status.unsettled.load(Ordering::Relaxed)).sum()
    }

    /// How many agents are connected.
    pub fn connected(&self) -> usize {
        let connected = |agent: &&Agent| agent.status.connected.load(Ordering::Relaxed);
        self.agents.iter().filter(connected).count()
    }

    /// How often each agent has been let in at least.
    pub fn connections(&self) -> u64 {
        let connections = |agent: &Agent| agent.status.connections.load(Ordering::Relaxed);
        self.agents.iter().map(connections).min().unwrap_or(0)
    }

    /// Whether every agent has played its part in the roll call.
    pub fn has_played(&self) -> bool {
        self.agents.iter().all(|agent| agent.status.played.load(Ordering::Relaxed))
    }

    /// The accounts.
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.agents.iter().map(|agent| agent.ledger.clone()).collect()
    }

    /// Ends all agents. Answers those whose task panicked.
    pub async fn finish(&mut self) -> Vec<String> {
        self.orders.send_replace(Order::End);
        let mut broken = Vec::new();
        for agent in self.agents.drain(..) {
            if timeout(CONNECT * 2, agent.task).await.is_ok_and(|ended| ended.is_err()) {
                broken.push(format!("the client {} panicked", agent.ledger.agent));
            }
        }
        broken
    }
}

/// A message that awaits its answer.
#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    payload: String,
}

struct Driver {
    character: Character,
    ledger: Ledger,
    pause: Duration,
    gateways: Arc<[SocketAddr]>,
    orders: watch::Receiver<Order>,
    status: Arc<Status>,
    attempts: usize,
    /// Sent on a connection that ended before the answer.
    again: VecDeque<Sent>,
}

/// Why a connection is over.
enum Over {
    /// It connects again, to the next gateway.
    Left,
    Gone,
}

impl Driver {
    async fn run(mut self) {
        let mut failures = 0_u32;
        while *self.orders.borrow() != Order::End {
            match self.connect().await {
                Some(client) => {
                    failures = 0;
                    if matches!(self.converse(client).await, Over::Gone) {
                        return;
                    }
                }
                None => failures += 1,
            }
            let delay = 50_u64 << failures.min(5);
            sleep(Duration::from_millis(fastrand::u64(delay / 2..=delay))).await;
        }
    }

    async fn connect(&mut self) -> Option<Client> {
        let address = *self.gateways.get(self.attempts % self.gateways.len().max(1))?;
        self.attempts += 1;
        let mut options = Options::new(address, self.character.version).id(&self.ledger.agent);
        options.keep_alive = KEEP_ALIVE;
        Client::try_connect(options, CONNECT).await.ok()
    }

    /// Reports on one connection until it is over.
    async fn converse(&mut self, client: Client) -> Over {
        let mut in_flight: VecDeque<(Sent, Pending)> = VecDeque::new();
        let mut next = Instant::now();
        let mut spoken = false;
        self.status.connected.store(true, Ordering::Relaxed);
        self.status.connections.fetch_add(1, Ordering::Relaxed);
        let over = loop {
            self.settle(&mut in_flight, &mut spoken);
            if client.is_closed().is_some() {
                break Over::Left;
            }
            let order = *self.orders.borrow();
            let is_settled = in_flight.is_empty() && self.again.is_empty();
            match order {
                Order::End => break Over::Gone,
                Order::RollCall if is_settled && spoken => match self.play() {
                    Some(Part::Leaves) => {
                        client.disconnect().await;
                        self.status.connected.store(false, Ordering::Relaxed);
                        self.idle().await;
                        return Over::Gone;
                    }
                    Some(Part::BreaksOff) => {
                        drop(client);
                        self.status.connected.store(false, Ordering::Relaxed);
                        self.idle().await;
                        return Over::Gone;
                    }
                    Some(Part::Moves) => break Over::Left,
                    Some(Part::Stays) | None => {}
                },
                Order::Report | Order::Settle | Order::RollCall => {}
            }
            let due = match order {
                Order::Report => next <= Instant::now(),
                // Each connection reports at least once: it binds the session to the agent.
                Order::Settle | Order::RollCall => !spoken && in_flight.is_empty(),
                Order::End => false,
            };
            if in_flight.len() < WINDOW && (due || !self.again.is_empty()) {
                let sent = self.again.pop_front().unwrap_or_else(|| {
                    next = (next + self.pause).max(Instant::now() - self.pause * 10);
                    self.compose()
                });
                if !self.send(&client, sent, &mut in_flight).await {
                    break Over::Left;
                }
            } else {
                sleep(LOOK).await;
            }
        };
        self.status.connected.store(false, Ordering::Relaxed);
        drop(client);
        self.give_up(in_flight);
        over
    }

    /// The part in the roll call, if it is still to be played.
    fn play(&self) -> Option<Part> {
        let first = !self.status.played.swap(true, Ordering::Relaxed);
        first.then_some(self.character.part)
    }

    async fn idle(&mut self) {
        while *self.orders.borrow() != Order::End && self.orders.changed().await.is_ok() {}
    }

    fn compose(&self) -> Sent {
        let number = self.ledger.attempt();
        let message = Message::of(&self.ledger.agent)
            .metric("number", number)
            .metric("load", fastrand::f64());
        let message = match self.character.identity {
            Identity::IdAndTime => message.id(Uuid::now_v7()).timestamp(millis_ago(Duration::ZERO)),
            Identity::Id => message.id(Uuid::new_v4()),
            Identity::None => message,
        };
        Sent { number, payload: message.json() }
    }

    async fn send(
        &mut self,
        client: &Client,
        sent: Sent,
        in_flight: &mut VecDeque<(Sent, Pending)>,
    ) -> bool {
        let sending = client.send("agent/message", self.character.qos, &*sent.payload);
        let handed = timeout(HAND_OVER, sending).await;
        let taken = handed.is_ok();
        match handed {
            Ok(pending) => in_flight.push_back((sent, pending)),
            Err(_) => self.unanswered(sent),
        }
        self.count(in_flight);
        taken
    }

    /// Takes the answers that are there.
    fn settle(&mut self, in_flight: &mut VecDeque<(Sent, Pending)>, spoken: &mut bool) {
        let mut open = VecDeque::with_capacity(in_flight.len());
        for (sent, mut pending) in in_flight.drain(..) {
            match pending.so_far() {
                None => open.push_back((sent, pending)),
                Some(Ok(ack)) => {
                    *spoken = true;
                    self.answered(sent.number, &ack);
                }
                Some(Err(_)) => self.unanswered(sent),
            }
        }
        *in_flight = open;
        self.count(in_flight);
    }

    fn answered(&self, number: u64, ack: &Ack) {
        let mut account = self.ledger.account();
        if ack.code < 0x80 {
            account.acknowledged.insert(number);
            self.status.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else {
            let text = ack.text.as_deref().unwrap_or_default();
            let agent = &self.ledger.agent;
            let words = format!("{agent} message {number} was refused: 0x{:02X} {text}", ack.code);
            account.refused.push(words);
        }
    }

    /// The connection ended before the answer.
    fn unanswered(&mut self, sent: Sent) {
        if self.character.identity != Identity::None {
            self.again.push_back(sent);
        }
    }

    fn give_up(&mut self, in_flight: VecDeque<(Sent, Pending)>) {
        for (sent, mut pending) in in_flight {
            match pending.so_far() {
                Some(Ok(ack)) => self.answered(sent.number, &ack),
                Some(Err(_)) | None => self.unanswered(sent),
            }
        }
        self.count(&VecDeque::new());
    }

    fn count(&self, in_flight: &VecDeque<(Sent, Pending)>) {
        let unsettled = (in_flight.len() + self.again.len()) as u64;
        self.status.unsettled.store(unsettled, Ordering::Relaxed);
    }
}

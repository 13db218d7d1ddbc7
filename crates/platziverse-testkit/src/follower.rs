//! A client of aggregators that loses nothing: it comes back with its resume token, to whichever
//! aggregator answers, drops what it has already, and repeats what was not answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::{PATIENCE, WsClient, WsClosed, WsOptions, check, eventually};

/// Between attempts to connect, jitter aside, unless another time is wanted.
const WAIT: Duration = Duration::from_millis(100);
/// What has come is said to have come so soon.
const ACK_AFTER: Duration = Duration::from_millis(50);
/// The close code of an aggregator that ends.
const ENDS: u16 = 4012;
/// The id of the packet that subscribes.
const CONSUME: &str = "consume";

/// Who follows what.
#[derive(Clone, Debug)]
pub struct FollowerOptions {
    /// The client's id.
    pub client: String,
    /// What it shows, if that is asked for.
    pub token: Option<String>,
    /// The channels that it consumes.
    pub channels: Vec<String>,
    /// Whether it says what it has, so that its resume token is renewed.
    pub acks: bool,
    /// How long it is away before it tries to connect again, at most; half of it at least.
    pub wait: Duration,
}

impl FollowerOptions {
    /// A client without a token that says what it has.
    pub fn new(client: &str, channels: &[&str]) -> Self {
        let channels = channels.iter().map(|channel| (*channel).to_owned()).collect();
        Self { client: client.to_owned(), token: None, channels, acks: true, wait: WAIT }
    }
}

/// A message that was followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// The source it came from.
    pub source: String,
    /// Its place there.
    pub offset: u64,
    /// The whole packet.
    pub packet: Value,
}

/// What an aggregator says cannot be had any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The source; empty if the whole session could not go on.
    pub source: String,
    /// What was said of it.
    pub told: String,
}

/// What a follower has seen.
#[derive(Debug, Default)]
struct Seen {
    messages: Vec<Followed>,
    gaps: Vec<Gap>,
    repeats: u64,
    /// Welcomes, and how many of them went on with a session.
    welcomes: u64,
    resumed: u64,
    closes: Vec<WsClosed>,
    errors: Vec<Value>,
    /// The last offset of each source.
    offsets: BTreeMap<String, u64>,
    token: Option<String>,
    /// What is to be answered.
    pending: BTreeMap<String, Pending>,
    /// What answered it.
    outcomes: BTreeMap<String, Vec<Value>>,
    is_connected: bool,
}

/// What is not answered.
#[derive(Debug)]
struct Pending {
    packet: Value,
    /// Until when a request waits.
    until: Option<Instant>,
    /// Whether it was sent over this connection.
    is_sent: bool,
}

/// A client that follows channels in the background until it is dropped.
#[derive(Debug)]
pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    signals: Arc<Signals>,
    task: JoinHandle<()>,
    name: String,
}

#[derive(Debug, Default)]
struct Signals {
    /// There is something to send.
    send: Notify,
    /// The connection is to be lost.
    lose: Notify,
}

impl Follower {
    /// Begins to follow, at any of these aggregators, and waits until it has subscribed. Fails the
    /// test if that takes too long.
    pub async fn start(aggregators: &[SocketAddr], options: FollowerOptions) -> Self {
        assert!(!aggregators.is_empty(), "a follower needs an aggregator");
        let (seen, signals) = (Arc::<Mutex<Seen>>::default(), Arc::<Signals>::default());
        let name = options.client.clone();
        let life = Life {
            aggregators: aggregators.to_vec(),
            at: 0,
            options,
            seen: Arc::clone(&seen),
            signals: Arc::clone(&signals),
        };
        #[expect(clippy::disallowed_methods, reason = "the task ends with the follower")]
        let task = tokio::spawn(life.run());
        let follower = Self { seen, signals, task, name };
        follower.connects(1).await;
        follower
    }

    /// Sends a packet, again after each loss of the connection, until it is answered: a request by its
    /// reply or an error, anything else by its receipt or an error. What is published again may
    /// arrive twice.
    pub fn send(&self, id: &str, mut packet: Value) {
        packet["id"] = id.into();
        let within = packet["deadline_ms"].as_u64().map(Duration::from_millis);
        let until = within.map(|within| Instant::now() + within);
        self.seen().pending.insert(id.to_owned(), Pending { packet, until, is_sent: false });
        self.signals.send.notify_one();
    }

    /// Sends a request to a channel's servers, with a deadline.
    pub fn request(&self, id: &str, channel: &str, message: Value, deadline: Duration) {
        let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.send(
            id,
            json!({
                "packet_action": "request", "channel": {channel: true}, "message": message,
                "deadline_ms": millis,
            }),
        );
    }

    /// How many packets wait for their answers.
    pub fn unanswered(&self) -> usize {
        self.seen().pending.len()
    }

    /// What answered a packet, and what came later and says something else.
    pub fn outcomes(&self, id: &str) -> Vec<Value> {
        self.seen().outcomes.get(id).cloned().unwrap_or_default()
    }

    /// Waits for what answers a packet. Fails the test if nothing does.
    pub async fn outcome(&self, id: &str) -> Value {
        eventually(&format!("{}: {id} is answered", self.name), 2 * PATIENCE, || async {
            self.outcomes(id).pop().ok_or_else(|| format!("{:?}", self.seen()))
        })
        .await
    }

    /// Every message, in the order in which they came, each once.
    pub fn messages(&self) -> Vec<Followed> {
        self.seen().messages.clone()
    }

    /// What the messages of a source say, in order.
    pub fn said(&self, source: &str) -> Vec<Value> {
        let seen = self.seen();
        let of_source = seen.messages.iter().filter(|followed| followed.source == source);
        of_source.map(|followed| followed.packet["message"].clone()).collect()
    }

    /// Waits until so many messages have come from a source, and gives what they say.
    pub async fn hears(&self, source: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{} hears {count} of {source}", self.name), PATIENCE, || async {
            let said = self.said(source);
            check(said.len() >= count, || format!("{} have come, {:?}", said.len(), self.gaps()))?;
            Ok(said)
        })
        .await
    }

    /// What cannot be had any more.
    pub fn gaps(&self) -> Vec<Gap> {
        self.seen().gaps.clone()
    }

    /// Messages that came although they had come before, and were dropped.
    pub fn repeats(&self) -> u64 {
        self.seen().repeats
    }

    /// How often it was welcomed, and how often of these to go on with its session.
    pub fn welcomes(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.welcomes, seen.resumed)
    }

    /// Errors that answered nothing it had sent.
    pub fn errors(&self) -> Vec<Value> {
        self.seen().errors.clone()
    }

    /// How its connections ended.
    pub fn closes(&self) -> Vec<WsClosed> {
        self.seen().closes.clone()
    }

    /// Waits until it has been welcomed so many times and is connected.
    pub async fn connects(&self, welcomes: u64) {
        eventually(&format!("{} connects", self.name), PATIENCE, || async {
            let seen = self.seen();
            let is_there = seen.welcomes >= welcomes && seen.is_connected;
            check(is_there, || format!("{:?}", *seen))
        })
        .await;
    }

    /// Loses its connection without a word; it comes back by itself.
    pub fn lose_connection(&self) {
        self.signals.lose.notify_one();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Life {
    aggregators: Vec<SocketAddr>,
    at: usize,
    options: FollowerOptions,
    seen: Arc<Mutex<Seen>>,
    signals: Arc<Signals>,
}

impl Life {
    async fn run(mut self) {
        loop {
            let closed = self.connected().await;
            let mut wait = self.options.wait;
            {
                let mut seen = lock(&self.seen);
                seen.is_connected = false;
                if let Some(closed) = closed {
                    if closed.code == ENDS {
                        let told: Value = serde_json::from_str(&closed.reason).unwrap_or_default();
                        wait +=
                            Duration::from_millis(told["reconnect_after_ms"].as_u64().unwrap_or(0));
                    }
                    seen.closes.push(closed);
                }
            }
            self.at = (self.at + 1) % self.aggregators.len();
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// One connection to its end; none if there was none, or if it was to be lost.
    async fn connected(&self) -> Option<WsClosed> {
        let mut socket = WsClient::try_connect(self.how()).await.ok()?;
        let welcome = match socket.try_receive(PATIENCE).await {
            Ok(Some(packet)) if packet["packet_action"] == "welcome" => packet,
            Ok(other) => {
                return Some(WsClosed { code: 0, reason: format!("no welcome: {other:?}") });
            }
            Err(closed) => return Some(closed),
        };
        let orders = lock(&self.seen).welcome(&welcome, &self.options.channels);
        let mut unsaid = None;
        let talking = async {
            for order in orders {
                socket.try_send(Message::text(order.to_string())).await?;
            }
            loop {
                let within = unsaid
                    .map_or(PATIENCE, |since: Instant| ACK_AFTER.saturating_sub(since.elapsed()));
                let packet = tokio::select! {
                    packet = socket.try_receive(within) => packet?,
                    () = self.signals.send.notified() => {
                        let due = lock(&self.seen).due();
                        for order in due {
                            socket.try_send(Message::text(order.to_string())).await?;
                        }
                        continue;
                    }
                };
                let answer = match packet {
                    Some(packet) => {
                        let has_come = lock(&self.seen).hear(&packet);
                        if has_come && self.options.acks {
                            unsaid.get_or_insert_with(Instant::now);
                        }
                        (packet["packet_action"] == "ping")
                            .then(|| json!({"packet_action": "pong"}))
                    }
                    None => unsaid.take().map(|_| lock(&self.seen).ack()),
                };
                if let Some(answer) = answer {
                    socket.try_send(Message::text(answer.to_string())).await?;
                }
            }
        };
        tokio::select! {
            closed = talking => match closed {
                Ok(never) => never,
                Err(closed) => Some(closed),
            },
            () = self.signals.lose.notified() => None,
        }
    }

    fn how(&self) -> WsOptions {
        let seen = lock(&self.seen);
        let mut options = WsOptions::new(self.aggregators[self.at]).client(&self.options.client);
        if let Some(token) = &self.options.token {
            options = options.token(token);
        }
        if let Some(token) = &seen.token {
            options = options.resume(token);
            options = options.offsets(seen.offsets.iter().map(|(name, at)| (name.as_str(), *at)));
        }
        options
    }
}

impl Seen {
    /// Notes a welcome: what is to be sent now.
    fn welcome(&mut self, welcome: &Value, channels: &[String]) -> Vec<Value> {
        let is_first = self.welcomes == 0;
        let is_resumed = welcome["resumed"] == true;
        self.welcomes += 1;
        self.resumed += u64::from(is_resumed);
        let missed = welcome["missed"].as_object().into_iter().flatten();
        let gap = |(source, told): (&String, &Value)| Gap {
            source: source.clone(),
            told: told.to_string(),
        };
        self.gaps.extend(missed.map(gap));
        if !is_resumed {
            if !is_first {
                let told = "the session could not go on".to_owned();
                self.gaps.push(Gap { source: String::new(), told });
            }
            // Offsets may begin again.
            self.offsets.clear();
            let chosen: serde_json::Map<_, _> =
                channels.iter().map(|channel| (channel.clone(), true.into())).collect();
            let consume = json!({"packet_action": "consume", "id": CONSUME, "channel": chosen});
            if !channels.is_empty() {
                let pending = Pending { packet: consume, until: None, is_sent: false };
                self.pending.insert(CONSUME.to_owned(), pending);
            }
        }
        self.is_connected = !self.pending.contains_key(CONSUME);
        self.take_token(welcome);
        self.pending.values_mut().for_each(|pending| pending.is_sent = false);
        self.due()
    }

    /// What is to be sent over this connection; requests with what is left of their deadlines.
    fn due(&mut self) -> Vec<Value> {
        let now = Instant::now();
        let due = self.pending.values_mut().filter(|pending| !pending.is_sent);
        let mut due: Vec<_> = due
            .map(|pending| {
                pending.is_sent = true;
                let mut packet = pending.packet.clone();
                if let Some(until) = pending.until {
                    let left = until.saturating_duration_since(now).as_millis();
                    packet["deadline_ms"] = u64::try_from(left).unwrap_or(u64::MAX).max(10).into();
                }
                packet
            })
            .collect();
        // First what subscribes: what is published then can be heard.
        due.sort_by_key(|packet| packet["packet_action"] != "consume");
        due
    }

    /// Notes a packet; whether there is a message to acknowledge.
    fn hear(&mut self, packet: &Value) -> bool {
        self.take_token(packet);
        let id = packet["id"].as_str().unwrap_or_default();
        match packet["packet_action"].as_str().unwrap_or_default() {
            "message" => return self.message(packet),
            "reply" => self.answered(id, packet),
            "receipt" => {
                let pending = self.pending.get(id);
                let is_request =
                    pending.is_some_and(|pending| pending.packet["packet_action"] == "request");
                if !is_request {
                    self.answered(id, packet);
                }
            }
            "error" if self.pending.contains_key(id) || self.outcomes.contains_key(id) => {
                self.answered(id, packet);
            }
            "error" => self.errors.push(packet.clone()),
            _ => {}
        }
        false
    }

    fn message(&mut self, packet: &Value) -> bool {
        let source = packet["source"].as_str().unwrap_or_default().to_owned();
        let offset = packet["offset"].as_u64().unwrap_or_default();
        if self.offsets.get(&source).is_some_and(|last| offset <= *last) {
            self.repeats += 1;
            return false;
        }
        self.offsets.insert(source.clone(), offset);
        self.messages.push(Followed { source, offset, packet: packet.clone() });
        true
    }

    fn answered(&mut self, id: &str, packet: &Value) {
        if self.pending.remove(id).is_none() {
            let is_receipt = packet["packet_action"] == "receipt";
            let outcomes = self.outcomes.get_mut(id).filter(|_| !is_receipt);
            match outcomes {
                // What nobody waits for is a repeat only if it says the same.
                Some(outcomes) if !outcomes.contains(packet) => outcomes.push(packet.clone()),
                _ => self.repeats += u64::from(packet["packet_action"] == "reply"),
            }
            return;
        }
        if id == CONSUME {
            self.is_connected = true;
        }
        self.outcomes.entry(id.to_owned()).or_default().push(packet.clone());
    }

    fn take_token(&mut self, packet: &Value) {
        if let Some(token) = packet["resume_token"].as_str() {
            self.token = Some(token.to_owned());
        }
    }

    /// The packet that says what has come. Its receipt brings a new token.
    fn ack(&self) -> Value {
        json!({"packet_action": "ack", "id": "ack", "offsets": self.offsets})
    }
}

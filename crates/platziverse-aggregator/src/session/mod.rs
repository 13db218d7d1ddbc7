//! One WebSocket of a client: what it asks for, and what it is sent.

mod asks;
mod back;
mod close;
mod pending;
mod wire;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocket;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

pub(crate) use self::back::Return;

use self::asks::{Done, Entered};
use self::close::Close;
use self::pending::Pending;
use self::wire::{Heard, WRITE_TIMEOUT, Wire};
use crate::channel::{Channel, ChannelSet};
use crate::core::Core;
use crate::doors::Seat;
use crate::hub::Wants;
use crate::mailbox::{Eviction, Mail, Mailbox};
use crate::outbox::{Dropped, Frame, OutboxLimits, WhenFull};
use crate::pace::Pace;
use crate::packet::{Code, Reason, read};
use crate::resume::Session as State;

/// Packets of one socket that are being carried out; beyond it, the socket is not read.
const WORK_MAX: usize = 64;
/// Messages written together.
const BATCH: usize = 64;
/// Packets of one socket that may be none.
const BAD_MAX: u32 = 20;
/// The longest time until a client connects again when a process ends.
const RECONNECT_AFTER_MAX: u64 = 3_000;

type Working = Pin<Box<dyn Future<Output = Done> + Send>>;
type Entering = Pin<Box<dyn Future<Output = Entered> + Send>>;

/// Serves a WebSocket until it ends.
pub(crate) async fn run(core: Arc<Core>, socket: WebSocket, seat: Seat, back: Return) {
    let mut wire = Wire::new(socket);
    let id = back.session.as_ref().map_or_else(Uuid::now_v7, |session| session.id);
    core.presence.arrive(seat.client()).await;
    let metrics = core.metrics.clone();
    let mut session = Session::new(core, seat, id);
    let Err(end) = session.converse(&mut wire, back).await;
    drop(session);
    metrics.close(end.name());
    if let Some((code, reason)) = end.told() {
        wire.close(code, reason).await;
    }
}

enum Never {}

/// A socket's state. Dropped, it leaves nothing.
struct Session {
    core: Arc<Core>,
    seat: Seat,
    mailbox: Arc<Mailbox>,
    /// Tells this socket from another one of the same session: the later is greater.
    epoch: Uuid,
    /// By channel: the offset of what the client has not said to have.
    offsets: Vec<u64>,
    /// What it consumes.
    consumes: ChannelSet,
    /// Where it hears at least of replies.
    attached: ChannelSet,
    pending: Pending,
    /// A packet whose messages wait for their place among those that go to RabbitMQ. The next one is
    /// not read before they have it.
    entering: Option<Entering>,
    work: FuturesUnordered<Working>,
    /// How many packets, and clients that they name, it may send.
    pace: Pace,
    /// How many bytes of packets.
    flow: Pace,
    bad: u32,
    /// When the time of the client's token is over.
    until: Option<Instant>,
}

impl Session {
    fn new(core: Arc<Core>, seat: Seat, id: Uuid) -> Self {
        let settings = &core.settings;
        let limits = OutboxLimits {
            messages: settings.outbox_messages,
            bytes: settings.outbox_bytes,
            when_full: match settings.when_full {
                platziverse_config::WhenFull::DropOldest => WhenFull::DropOldest,
                platziverse_config::WhenFull::Close => WhenFull::Close,
            },
        };
        let next = core.channels.iter().map(|channel| core.next(channel)).collect();
        let (mailbox, epoch) = (Mailbox::new(id, seat.client(), limits), Uuid::now_v7());
        core.presence.take(&mailbox, epoch);
        Self {
            mailbox,
            epoch,
            offsets: next,
            consumes: ChannelSet::default(),
            attached: ChannelSet::default(),
            pending: Pending::default(),
            entering: None,
            work: FuturesUnordered::new(),
            pace: Pace::new(settings.packets_per_second),
            flow: Pace::new(settings.bytes_per_second),
            bad: 0,
            until: None,
            core,
            seat,
        }
    }

    async fn converse(&mut self, wire: &mut Wire, back: Return) -> Result<Never, Close> {
        self.welcome(wire, back).await?;
        let drain = self.core.drain.clone();
        loop {
            let is_entering = self.entering.is_some();
            let may_read = !is_entering && self.work.len() < WORK_MAX && self.is_in_time();
            if !may_read {
                wire.rest();
            }
            let wake = self.wake(wire);
            tokio::select! {
                entered = entered(&mut self.entering), if is_entering => {
                    self.await_published(entered);
                }
                mail = self.mailbox.next() => self.deliver(wire, mail).await?,
                heard = wire.hear(), if may_read => self.hear(wire, heard).await?,
                Some(done) = self.work.next(), if !self.work.is_empty() => {
                    self.answer(wire, done).await?;
                }
                () = sleep_until(wake) => {
                    if self.until.is_some_and(|until| until <= Instant::now()) {
                        return Err(Close::Expired);
                    }
                    self.tell_overdue(wire).await?;
                    wire.check().await?;
                }
                () = drain.requested() => return Err(self.finish(wire).await),
            }
        }
    }

    fn is_in_time(&self) -> bool {
        self.pace.is_open() && self.flow.is_open()
    }

    /// When there is something to do although nothing happens.
    fn wake(&self, wire: &Wire) -> Instant {
        let paced = [self.pace.opens(), self.flow.opens()].into_iter().flatten().max();
        let times = [Some(wire.next_check()), self.pending.next(), paced, self.until];
        times.into_iter().flatten().min().unwrap_or_else(Instant::now)
    }

    /// Writes what there is, some messages together.
    async fn deliver(&mut self, wire: &mut Wire, first: Mail) -> Result<(), Close> {
        let mailbox = Arc::clone(&self.mailbox);
        let writing = async {
            self.hand_on(wire, first).await?;
            for _ in 1..BATCH {
                let Some(mail) = self.mailbox.try_next() else { break };
                self.hand_on(wire, mail).await?;
            }
            wire.flush().await
        };
        tokio::select! {
            biased;
            written = timeout(WRITE_TIMEOUT, writing) => written.unwrap_or(Err(Close::TooSlow)),
            why = mailbox.evicted() => Err(evicted(why)),
        }
    }

    async fn hand_on(&mut self, wire: &mut Wire, mail: Mail) -> Result<(), Close> {
        match mail {
            Mail::Frame(frame) => self.write(wire, &frame, false).await,
            Mail::Dropped(dropped) => self.tell_dropped(wire, dropped).await,
            Mail::Evicted(why) => Err(evicted(why)),
        }
    }

    /// Writes a message, or the outcome of a request if the client waits for it. What is replayed is
    /// written in any case: the client may still wait.
    async fn write(
        &mut self,
        wire: &mut Wire,
        frame: &Frame,
        is_replayed: bool,
    ) -> Result<(), Close> {
        if let Some(outcome) = &frame.reply {
            if self.pending.reply(&outcome.request, outcome.from.as_deref()) {
                self.core.metrics.request("reply");
            } else if !is_replayed {
                return Ok(());
            }
        }
        self.core.metrics.deliveries.inc();
        wire.feed(frame.text.clone()).await
    }

    async fn tell_dropped(&mut self, wire: &mut Wire, dropped: Dropped) -> Result<(), Close> {
        self.core.metrics.dropped.inc_by(dropped.messages);
        let Dropped { messages, bytes } = dropped;
        let text =
            format!("you read too slowly: {messages} messages of {bytes} bytes were dropped");
        wire.feed(Reason::new(Code::Dropped, text).packet(None).into()).await
    }

    async fn hear(&mut self, wire: &mut Wire, heard: Heard) -> Result<(), Close> {
        match heard {
            Heard::Packet(text) => {
                self.pace.pass(1);
                self.flow.pass(text.len());
                match read(text.as_str(), &self.core.channels) {
                    Ok(order) => self.carry_out(wire, order).await,
                    Err((id, reason)) => self.refuse(wire, id.as_deref(), &reason).await,
                }
            }
            Heard::Binary => {
                self.pace.pass(1);
                let reason =
                    Reason::new(Code::InvalidPacket, "packets are text, and this is binary");
                self.refuse(wire, None, &reason).await
            }
            Heard::Life => {
                self.pace.pass(1);
                Ok(())
            }
            Heard::Closed => Err(Close::Gone),
            Heard::TooLarge => {
                let max = self.core.settings.packet_bytes_max;
                let reason =
                    Reason::new(Code::TooLarge, format!("a packet has at most {max} bytes"));
                wire.say(reason.packet(None)).await?;
                Err(Close::TooLarge)
            }
        }
    }

    /// Says what is wrong with a packet; a client that sends too many such is no client.
    async fn refuse(
        &mut self,
        wire: &mut Wire,
        id: Option<&str>,
        reason: &Reason,
    ) -> Result<(), Close> {
        self.core.metrics.packet("refused");
        wire.say(reason.packet(id)).await?;
        self.bad += 1;
        if self.bad > BAD_MAX { Err(Close::BadPackets) } else { Ok(()) }
    }

    async fn tell_overdue(&mut self, wire: &mut Wire) -> Result<(), Close> {
        for id in self.pending.overdue(Instant::now()) {
            self.core.metrics.request("timeout");
            let text = "there was no reply in time: it may have been done or not. Sent again under the \
                        same id, it is not done again, but answered if there is a reply";
            wire.say(Reason::new(Code::Timeout, text).packet(Some(&id))).await?;
        }
        Ok(())
    }

    /// What is needed to go on with this session elsewhere.
    fn token(&self) -> String {
        let channels = &self.core.channels;
        let source = |channel| channels.source(channel).to_owned();
        let offset = |channel| match self.consumes.contains(channel) || !self.pending.is_empty() {
            true => self.offset(channel),
            // Nothing of what has come there is for this session.
            false => self.core.next(channel),
        };
        let offsets: BTreeMap<_, _> =
            channels.iter().map(|channel| (source(channel), offset(channel))).collect();
        let state = State {
            client: self.seat.client().to_string(),
            id: self.mailbox.session(),
            offsets,
            consumes: self.consumes.iter().map(source).collect(),
        };
        // Texts and numbers can always be signed.
        self.core.signer.token(&state).unwrap_or_default()
    }

    fn offset(&self, channel: Channel) -> u64 {
        self.offsets.get(channel.index()).copied().unwrap_or_default()
    }

    /// Hears of replies in a channel from now on.
    fn attach(&mut self, channel: Channel) {
        if self.attached.insert(channel)
            && let Some(hub) = self.core.hub(channel)
        {
            hub.subscribe(&self.mailbox, Wants::Replies);
        }
    }

    /// Ends in good order: what is on its way to RabbitMQ is answered.
    async fn finish(&mut self, wire: &mut Wire) -> Close {
        let farewell = self.core.farewell;
        let answering = async {
            if self.entering.is_some() {
                let entered = entered(&mut self.entering).await;
                self.await_published(entered);
            }
            while let Some(done) = self.work.next().await {
                if let Err(end) = self.answer(wire, done).await {
                    return end;
                }
            }
            self.drained()
        };
        let end = timeout(farewell, answering).await;
        end.unwrap_or_else(|_| self.drained())
    }

    /// The end of the process, as this client is told. When each comes back is spread, so that not
    /// all of them come to another one at once.
    fn drained(&self) -> Close {
        let (_, random) = self.epoch.as_u64_pair();
        Close::Drain(Duration::from_millis(random % RECONNECT_AFTER_MAX))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for channel in self.attached.iter() {
            if let Some(hub) = self.core.hub(channel) {
                hub.unsubscribe(&self.mailbox, None);
            }
        }
        self.core.presence.give_up(self.mailbox.session(), self.epoch);
        self.core.presence.leave(self.seat.client());
    }
}

/// Waits until a packet's messages have their place. Cancel safe.
async fn entered(entering: &mut Option<Entering>) -> Entered {
    let entered = match entering {
        Some(entering) => entering.await,
        None => std::future::pending().await,
    };
    *entering = None;
    entered
}

fn evicted(why: Eviction) -> Close {
    match why {
        Eviction::TooSlow => Close::TooSlow,
        Eviction::TakenOver => Close::TakenOver,
        Eviction::Behind => Close::NotNow,
    }
}

//! A client that comes back: what it gets that it missed.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use platziverse_broker::aggregator::{Kind, Outbound, Post, To};
use platziverse_broker::topology::outbound_stream;
use platziverse_broker::{LogItem, LogOptions, LogReader, LogStart};
use platziverse_service::chain;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};

use super::asks::Done;
use super::close::Close;
use super::wire::Wire;
use super::{Session, evicted};
use crate::channel::Channel;
use crate::core::Core;
use crate::frame;
use crate::hub::{CatchUp, Hub, Wants};
use crate::mailbox::Mail;
use crate::outbox::Frame;
use crate::packet::{Missed, Welcome};
use crate::resume::Session as State;

/// How long RabbitMQ may take to show a stream.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stream may take to show its next message, a connection that is made again included.
const ITEM_PATIENCE: Duration = Duration::from_secs(15);
/// Messages that are read from RabbitMQ before they are written together.
const MESSAGES_READ: usize = 64;
/// How long a client may take for them while others wait for their streams to be read: few are read at
/// a time.
const HOLD_MAX: Duration = Duration::from_secs(1);
/// How long a client may take to catch up.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(120);

/// What a client comes back to, as it says.
pub(crate) struct Return {
    /// The session, if its token is one of ours and of this client.
    pub session: Option<State>,
    /// The last offset of each source that it says to have.
    pub offsets: Vec<(String, u64)>,
    /// Whether it has shown a token at all.
    pub is_asked: bool,
    /// Until when its token lets it in.
    pub until: Option<Instant>,
}

/// A channel in which a session goes on.
struct Behind {
    channel: Channel,
    wants: Wants,
    from: u64,
    /// Whether what comes next is in RabbitMQ only.
    is_deep: bool,
    missed: Option<Missed>,
}

/// What reads a channel's stream for one session, one of few at a time.
struct Reading {
    reader: LogReader,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// Begins to read a channel's stream at an offset.
    async fn begin(core: &Core, channel: Channel, from: u64) -> Result<Self, Close> {
        let options = LogOptions {
            role: "catching up",
            stream: outbound_stream(core.channels.name(channel)),
            from: LogStart::Offset(from),
        };
        let starting = async {
            // Closed it is never.
            let permit = Arc::clone(&core.readers).acquire_owned().await.ok()?;
            match LogReader::start(&core.context, options).await {
                Ok(reader) => Some(Self { reader, _permit: permit }),
                Err(error) => {
                    tracing::warn!("what a client has missed cannot be read: {}", chain(&error));
                    None
                }
            }
        };
        timeout(READ_PATIENCE, starting).await.ok().flatten().ok_or(Close::NotNow)
    }

    /// What comes next. There is something, or there was: it is only read when a later message is
    /// known.
    async fn next(&mut self) -> Result<LogItem, Close> {
        let item = timeout(ITEM_PATIENCE, self.reader.next()).await;
        item.ok().flatten().ok_or(Close::NotNow)
    }
}

impl Session {
    /// Says who the client is, and gives it what it missed.
    pub(super) async fn welcome(&mut self, wire: &mut Wire, back: Return) -> Result<(), Close> {
        let Return { session, offsets, is_asked, until } = back;
        self.until = until;
        let mut behind = Vec::new();
        let resumed = match session {
            Some(state) => match self.positions(&state, &offsets).await? {
                Some(positions) => {
                    self.tell_others().await;
                    behind = self.look_back(positions).await?;
                    true
                }
                None => false,
            },
            None => false,
        };
        let how = match (is_asked, resumed) {
            (false, _) => None,
            (true, false) => Some("anew"),
            (true, true) if behind.iter().any(|one| one.missed.is_some()) => Some("missed"),
            (true, true) => Some("whole"),
        };
        if let Some(how) = how {
            self.core.metrics.resumption(how);
        }
        self.say_welcome(wire, resumed, &behind).await?;
        // What takes longest first: the others do not fill the mailbox meanwhile.
        behind.sort_by_key(|one| !one.is_deep);
        let mailbox = Arc::clone(&self.mailbox);
        let catching_up = async {
            for one in behind {
                self.catch_up(wire, one).await?;
            }
            Ok(())
        };
        tokio::select! {
            caught_up = timeout(CATCH_UP_PATIENCE, catching_up) => {
                caught_up.unwrap_or(Err(Close::TooSlow))
            }
            why = mailbox.evicted() => Err(evicted(why)),
            () = over(until) => Err(Close::Expired),
        }
    }

    /// Where the session goes on in each channel; nothing if the streams were made anew since.
    async fn positions(
        &mut self,
        state: &State,
        said: &[(String, u64)],
    ) -> Result<Option<Vec<(Channel, Wants, u64)>>, Close> {
        let mut positions = Vec::new();
        for (source, offset) in &state.offsets {
            // A channel that is not configured any more has nothing.
            let Some(channel) = self.core.channels.of_source(source) else { continue };
            let said = said.iter().filter(|(name, _)| name == source);
            let said = said.map(|(_, last)| last.saturating_add(1)).max().unwrap_or_default();
            let from = said.max(*offset);
            // Another aggregator may have read what this one is about to.
            if from > self.core.next(channel) && !self.core.read_on(channel).await {
                return Err(Close::NotNow);
            }
            if from > self.core.next(channel) {
                return Ok(None);
            }
            let consumes = state.consumes.contains(source);
            let wants = if consumes { Wants::Everything } else { Wants::Replies };
            positions.push((channel, wants, from));
        }
        Ok(Some(positions))
    }

    /// Finds out what is not kept any more.
    async fn look_back(
        &mut self,
        positions: Vec<(Channel, Wants, u64)>,
    ) -> Result<Vec<Behind>, Close> {
        let mut behind = Vec::with_capacity(positions.len());
        for (channel, wants, from) in positions {
            let first = self.core.hub(channel).and_then(Hub::first).unwrap_or_default();
            let mut one = Behind { channel, wants, from, is_deep: from < first, missed: None };
            if wants == Wants::Replies {
                // Who still waits for an older reply asks again.
                (one.from, one.is_deep) = (from.max(first), false);
            }
            // What is lost is said first.
            if one.is_deep
                && let LogItem::Lost(first) =
                    Reading::begin(&self.core, channel, from).await?.next().await?
            {
                one.missed = Some(Missed { from, to: first });
                one.from = first;
            }
            behind.push(one);
        }
        Ok(behind)
    }

    async fn say_welcome(
        &mut self,
        wire: &mut Wire,
        resumed: bool,
        behind: &[Behind],
    ) -> Result<(), Close> {
        for one in behind {
            if let Some(offset) = self.offsets.get_mut(one.channel.index()) {
                *offset = one.from;
            }
            if one.wants == Wants::Everything {
                self.consumes.insert(one.channel);
            }
        }
        let token = self.token();
        let channels = &self.core.channels;
        let missed = behind.iter().filter(|one| one.wants == Wants::Everything);
        let missed: BTreeMap<_, _> =
            missed.filter_map(|one| Some((channels.source(one.channel), one.missed?))).collect();
        let welcome = Welcome {
            client: self.seat.client(),
            resume_token: &token,
            resumed,
            missed,
            channels: self.consumes.iter().map(|channel| channels.name(channel)).collect(),
            resume_window_ms: u64::try_from(self.core.settings.resume_window.as_millis())
                .unwrap_or(u64::MAX),
            packet_bytes_max: self.core.settings.packet_bytes_max,
        };
        wire.say(welcome.packet()).await
    }

    /// Gives the client what came in a channel since it left, in order, and subscribes it.
    async fn catch_up(&mut self, wire: &mut Wire, behind: Behind) -> Result<(), Close> {
        let Behind { channel, wants, mut from, .. } = behind;
        let core = Arc::clone(&self.core);
        let Some(hub) = core.hub(channel) else { return Ok(()) };
        self.attached.insert(channel);
        loop {
            if core.drain.is_requested() {
                return Err(self.drained());
            }
            match hub.catch_up(&self.mailbox, from, wants) {
                CatchUp::More(frames, next) => {
                    self.replay(wire, &frames, None).await?;
                    from = next;
                }
                CatchUp::Attached(frames) => return self.replay(wire, &frames, None).await,
                CatchUp::Older(first) if wants == Wants::Replies => from = first,
                CatchUp::Older(_) => from = self.read_back(wire, channel, from).await?,
            }
        }
    }

    /// Writes messages that came while the client was away, and what came meanwhile in channels in
    /// which it has caught up.
    async fn replay(
        &mut self,
        wire: &mut Wire,
        frames: &[Arc<Frame>],
        mail: Option<Mail>,
    ) -> Result<(), Close> {
        for frame in frames {
            self.write(wire, frame, true).await?;
        }
        if let Some(mail) = mail {
            self.hand_on(wire, mail).await?;
        }
        while let Some(mail) = self.mailbox.try_next() {
            self.hand_on(wire, mail).await?;
        }
        wire.flush().await
    }

    /// Gives the client what is in RabbitMQ's stream and no longer in memory; from where to go on.
    async fn read_back(
        &mut self,
        wire: &mut Wire,
        channel: Channel,
        mut from: u64,
    ) -> Result<u64, Close> {
        let core = Arc::clone(&self.core);
        let Some(hub) = core.hub(channel) else { return Ok(from) };
        let mut reading = self.begin_reading(wire, channel, from).await?;
        let mailbox = Arc::clone(&self.mailbox);
        let (mut frames, mut read) = (Vec::new(), 0);
        while hub.first().is_some_and(|first| from < first) {
            let mail = tokio::select! {
                biased;
                item = reading.next() => {
                    // What is lost by now is said when the client comes back.
                    let LogItem::Message(offset, message) = item? else {
                        return Err(Close::NotNow);
                    };
                    from = offset + 1;
                    let outbound = Outbound::read(core.channels.name(channel), message);
                    let entry = outbound
                        .and_then(|outbound| frame::entry(&core.channels, channel, offset, outbound));
                    let client = self.seat.client();
                    frames.extend(entry.filter(|entry| entry.target.is_for(client)));
                    read += 1;
                    None
                }
                mail = mailbox.next() => Some(mail),
            };
            // Also what is for others counts: meanwhile the mailbox fills with what is for this client
            // in other channels.
            if read < MESSAGES_READ && mail.is_none() {
                continue;
            }
            let together: Vec<_> = frames.drain(..).map(|entry| entry.frame).collect();
            let mut writing = pin!(self.replay(wire, &together, mail));
            match in_time(&core, writing.as_mut()).await {
                Some(written) => written?,
                None => {
                    drop(reading);
                    writing.await?;
                    return Ok(from);
                }
            }
            read = 0;
        }
        drop(reading);
        let frames: Vec<_> = frames.into_iter().map(|entry| entry.frame).collect();
        self.replay(wire, &frames, None).await?;
        Ok(from)
    }

    /// Begins to read a channel's stream, and writes what comes meanwhile in channels in which the
    /// client has caught up.
    async fn begin_reading(
        &mut self,
        wire: &mut Wire,
        channel: Channel,
        from: u64,
    ) -> Result<Reading, Close> {
        let (core, mailbox) = (Arc::clone(&self.core), Arc::clone(&self.mailbox));
        let mut beginning = None;
        loop {
            let begun =
                beginning.get_or_insert_with(|| Box::pin(Reading::begin(&core, channel, from)));
            let mail = tokio::select! {
                biased;
                reading = begun => return reading,
                mail = mailbox.next() => mail,
            };
            let mut writing = pin!(self.replay(wire, &[], Some(mail)));
            match in_time(&core, writing.as_mut()).await {
                Some(written) => written?,
                None => {
                    beginning = None;
                    writing.await?;
                }
            }
        }
    }

    /// Tells the aggregator that may still have this session that it goes on here.
    async fn tell_others(&mut self) {
        let to = To::Takeover {
            client: self.seat.client().to_string(),
            session: self.mailbox.session(),
            epoch: self.epoch,
        };
        let handed = self.core.sender.hand(Post::new(to, Kind::Publish, "")).await;
        // Nobody waits for it: both sockets get what is sent until it is heard. Given up, it would
        // not go.
        self.begin(Box::pin(async move {
            let _ = handed.confirmed().await;
            Done::Told
        }));
    }
}

/// What writing to a client that others wait for comes to; nothing if it takes too long.
async fn in_time<W: Future>(core: &Core, mut writing: Pin<&mut W>) -> Option<W::Output> {
    loop {
        match timeout(HOLD_MAX, writing.as_mut()).await {
            Ok(written) => return Some(written),
            Err(_) if core.readers.available_permits() > 0 => {}
            Err(_) => return None,
        }
    }
}

/// Waits until it is so late, if it ever is.
async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

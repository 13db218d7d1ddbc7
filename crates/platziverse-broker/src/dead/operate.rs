//! What an operator does with dead letters. They are taken from the queue without acknowledgement
//! and put back, so that a command that breaks off loses nothing. While it runs, others do not see
//! what it holds.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, Channel};
use platziverse_protocol::dead::Reason;
use tokio::time::{Instant, sleep};

use super::entry::{DeadEntry, DeadMessage};
use super::flight::Flight;
use crate::connection::asked;
use crate::message::Message;
use crate::publisher::short;
use crate::topology::DEAD;
use crate::{BrokerError, Connection};

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those with these ids.
    Ids(BTreeSet<String>),
    /// Those with this reason.
    Reason(String),
}

impl Selection {
    fn has(&self, entry: &DeadEntry) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => entry.id.as_ref().is_some_and(|id| ids.contains(id)),
            Self::Reason(reason) => entry.reason == *reason,
        }
    }

    /// Whether a replay takes a letter that this has.
    fn replays(&self, entry: &DeadEntry) -> bool {
        *self != Self::All || entry.reason != Reason::NotAuthorized.as_str()
    }
}

/// What a replay or a purge came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// With how many letters it was done.
    pub count: u64,
    /// The ids of a selection by ids that letters have. Several letters may share one.
    pub ids: BTreeSet<String>,
    /// How many of them a replay left where they are because only their start was kept.
    pub cut: u64,
}

impl Handled {
    /// Notes a letter that the selection has.
    fn meet(&mut self, selection: &Selection, entry: &DeadEntry) {
        // Of all others there may be a million, and nobody asks for them.
        if let Selection::Ids(_) = selection {
            self.ids.extend(entry.id.clone());
        }
    }
}

/// How many dead letters there are.
pub async fn count(connection: &Connection) -> Result<u64, BrokerError> {
    let channel = connection.channel().await?;
    let count = ready(&channel).await?;
    asked("closing a channel", channel.close(200, "done".into())).await?;
    Ok(count.into())
}

/// The oldest dead letters of the selection, at most `limit`.
pub async fn list(
    connection: &Connection,
    selection: &Selection,
    limit: usize,
) -> Result<Vec<DeadEntry>, BrokerError> {
    let mut scan = Scan::start(connection).await?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((message, _)) = scan.next().await?
    {
        let entry = DeadEntry::of(&message);
        if selection.has(&entry) {
            found.push(entry);
        }
    }
    scan.put_back().await?;
    Ok(found)
}

/// The oldest dead letter with the id, whole.
pub async fn show(connection: &Connection, id: &str) -> Result<Option<DeadMessage>, BrokerError> {
    let mut scan = Scan::start(connection).await?;
    let mut found = None;
    while found.is_none()
        && let Some((message, _)) = scan.next().await?
    {
        if message.message_id() == Some(id) {
            found = Some(DeadMessage::of(message));
        }
    }
    scan.put_back().await?;
    Ok(found)
}

/// Publishes dead letters anew where they came from. Each leaves the queue only after RabbitMQ has
/// confirmed it elsewhere; what fails again afterwards comes back as new.
///
/// Letters with the reason `not_authorized` are taken only when they are named, by id or by that
/// reason: what a client was forbidden to say must not be said for it by a replay of everything.
/// Letters with the reason `packet_too_large` are never taken: they are the start of a message, and
/// nobody has sent that as one.
///
/// A letter that RabbitMQ will not have where it came from stays, and the others go on: it reaches
/// no queue there, or RabbitMQ closes the channel at it. That is an error once all others are sent.
pub async fn replay(
    connection: &Connection,
    selection: &Selection,
) -> Result<Handled, BrokerError> {
    let mut replay = Replay { flight: Flight::start(connection).await?, unwanted: None };
    let pass = async |scan: &mut Scan, handled: &mut Handled| {
        replay.send_all(selection, scan, handled).await
    };
    handle(connection, "sent back", pass).await
}

/// Goes through the queue, doing what `pass` does, and puts back what that did not remove.
async fn handle(
    connection: &Connection,
    how: &'static str,
    pass: impl AsyncFnOnce(&mut Scan, &mut Handled) -> Result<(), BrokerError>,
) -> Result<Handled, BrokerError> {
    let mut scan = Scan::start(connection).await?;
    let mut handled = Handled::default();
    let passed = pass(&mut scan, &mut handled).await;
    // Also after a failure: what was removed is removed only once its channel has been closed.
    let put_back = scan.put_back().await;
    match passed.and(put_back) {
        Ok(()) => Ok(handled),
        Err(error) => Err(error.after(handled.count, how)),
    }
}

struct Replay<'a> {
    flight: Flight<'a>,
    /// How many letters stay for good, and why the first does.
    unwanted: Option<(u64, BrokerError)>,
}

impl Replay<'_> {
    async fn send_all(
        &mut self,
        selection: &Selection,
        scan: &mut Scan,
        handled: &mut Handled,
    ) -> Result<(), BrokerError> {
        let sent = self.send_selected(selection, scan, handled).await;
        // Also after a failure: what is on its way may be elsewhere already.
        let landed = self.land(scan, handled).await;
        sent.and(landed)?;
        match self.unwanted.take() {
            Some((count, first)) => Err(BrokerError::Unwanted { count, source: Box::new(first) }),
            None => Ok(()),
        }
    }

    async fn send_selected(
        &mut self,
        selection: &Selection,
        scan: &mut Scan,
        handled: &mut Handled,
    ) -> Result<(), BrokerError> {
        while let Some((message, acker)) = scan.next().await? {
            let entry = DeadEntry::of(&message);
            if !selection.has(&entry) {
                continue;
            }
            handled.meet(selection, &entry);
            if entry.reason == Reason::PacketTooLarge.as_str() {
                handled.cut += 1;
            } else if selection.replays(&entry) {
                self.flight.send(entry, message, acker).await;
                if self.flight.is_full() {
                    self.land(scan, handled).await?;
                }
            }
        }
        Ok(())
    }

    /// Forgets the letters that RabbitMQ has confirmed elsewhere.
    async fn land(&mut self, scan: &mut Scan, handled: &mut Handled) -> Result<(), BrokerError> {
        let landed = self.flight.land().await;
        for acker in &landed.confirmed {
            scan.forget(acker).await?;
            handled.count += 1;
        }
        for error in landed.unwanted {
            self.unwanted.get_or_insert((0, error)).0 += 1;
        }
        landed.failure.map_or(Ok(()), Err)
    }
}

/// Deletes dead letters.
pub async fn purge(connection: &Connection, selection: &Selection) -> Result<Handled, BrokerError> {
    if *selection == Selection::All {
        let count = purge_all(connection).await?;
        return Ok(Handled { count, ..Handled::default() });
    }
    let pass =
        async |scan: &mut Scan, handled: &mut Handled| delete_all(selection, scan, handled).await;
    handle(connection, "deleted", pass).await
}

async fn delete_all(
    selection: &Selection,
    scan: &mut Scan,
    handled: &mut Handled,
) -> Result<(), BrokerError> {
    while let Some((message, acker)) = scan.next().await? {
        let entry = DeadEntry::of(&message);
        if selection.has(&entry) {
            handled.meet(selection, &entry);
            scan.forget(&acker).await?;
            handled.count += 1;
        }
    }
    Ok(())
}

async fn purge_all(connection: &Connection) -> Result<u64, BrokerError> {
    let channel = connection.channel().await?;
    let purging = channel.queue_purge(short(DEAD), QueuePurgeOptions::default());
    let purged = asked("emptying the dead-letter queue", purging).await;
    purged.map(u64::from).map_err(|error| error.of_queue(DEAD))
}

/// How long a command waits until what it put back is there for the next one.
const PUT_BACK_PATIENCE: Duration = Duration::from_secs(2);

/// How many more letters a command reads only to keep their order.
const TURN_OVER_MAX: u32 = 5_000;

/// One pass over what is in the queue at its start: what is added meanwhile is not seen.
struct Scan {
    channel: Channel,
    left: u32,
    held: u32,
}

impl Scan {
    async fn start(connection: &Connection) -> Result<Self, BrokerError> {
        let channel = connection.channel().await?;
        Ok(Self { left: ready(&channel).await?, channel, held: 0 })
    }

    async fn next(&mut self) -> Result<Option<(Message, Acker)>, BrokerError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let getting = self.channel.basic_get(short(DEAD), BasicGetOptions { no_ack: false });
        let got = asked("reading the dead-letter queue", getting).await?;
        self.held += u32::from(got.is_some());
        Ok(got.map(|got| Message::split(got.delivery)))
    }

    async fn forget(&mut self, acker: &Acker) -> Result<(), BrokerError> {
        let acking = acker.ack(BasicAckOptions { multiple: false });
        asked("removing a dead letter", acking).await?;
        self.held -= 1;
        Ok(())
    }

    /// Puts back what was read and not removed.
    async fn put_back(mut self) -> Result<(), BrokerError> {
        const ALL: u64 = 0;
        // RabbitMQ puts a letter that was put back before behind those that it holds: reading all
        // of them keeps their order.
        while self.held > 0 && self.left <= TURN_OVER_MAX && self.next().await?.is_some() {}
        if self.held > 0 {
            let options = BasicNackOptions { multiple: true, requeue: true };
            asked("putting dead letters back", self.channel.basic_nack(ALL, options)).await?;
            let patience = Instant::now() + PUT_BACK_PATIENCE;
            while ready(&self.channel).await? < self.held && Instant::now() < patience {
                sleep(Duration::from_millis(10)).await;
            }
        }
        asked("closing a channel", self.channel.close(200, "done".into())).await
    }
}

/// How many dead letters nobody holds.
async fn ready(channel: &Channel) -> Result<u32, BrokerError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looking = channel.queue_declare(short(DEAD), options, FieldTable::default());
    let looked = asked("looking at the dead-letter queue", looking).await;
    Ok(looked.map_err(|error| error.of_queue(DEAD))?.message_count())
}

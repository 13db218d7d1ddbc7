//! What an operator does with dead letters. They are taken from the queue without acknowledgement
//! and put back, so that a command that breaks off loses nothing. While it runs, others do not see
//! what it holds.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, BasicProperties, Channel, Confirmation};
use tokio::time::{Instant, sleep};

use super::entry::{DeadEntry, DeadMessage, is_of_death};
use crate::connection::within;
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

/// Publishes dead letters anew where they came from, and says how many. Each leaves the queue only
/// after RabbitMQ has confirmed it elsewhere; what fails again afterwards comes back as new.
pub async fn replay(connection: &Connection, selection: &Selection) -> Result<u64, BrokerError> {
    let publishing = confirming_channel(connection).await?;
    let mut scan = Scan::start(connection).await?;
    let mut count = 0;
    while let Some((message, acker)) = scan.next().await? {
        let entry = DeadEntry::of(&message);
        if selection.has(&entry) {
            republish(&publishing, &entry, message).await?;
            scan.forget(&acker).await?;
            count += 1;
        }
    }
    scan.put_back().await?;
    Ok(count)
}

/// Deletes dead letters, and says how many.
pub async fn purge(connection: &Connection, selection: &Selection) -> Result<u64, BrokerError> {
    if *selection == Selection::All {
        return purge_all(connection).await;
    }
    let mut scan = Scan::start(connection).await?;
    let mut count = 0;
    while let Some((message, acker)) = scan.next().await? {
        if selection.has(&DeadEntry::of(&message)) {
            scan.forget(&acker).await?;
            count += 1;
        }
    }
    scan.put_back().await?;
    Ok(count)
}

async fn purge_all(connection: &Connection) -> Result<u64, BrokerError> {
    let channel = connection.channel().await?;
    let purging = channel.queue_purge(short(DEAD), QueuePurgeOptions::default());
    asked("emptying the dead-letter queue", purging).await.map(u64::from)
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
    Ok(asked("looking at the dead-letter queue", looking).await?.message_count())
}

async fn confirming_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = connection.channel().await?;
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    asked("switching publisher confirms on", selecting).await?;
    Ok(channel)
}

async fn republish(
    channel: &Channel,
    entry: &DeadEntry,
    message: Message,
) -> Result<(), BrokerError> {
    let (exchange, key) = (&entry.origin_exchange, &entry.origin_key);
    let doing = format!("publishing to {exchange} under {key:?}");
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (to, under) = (short(exchange), short(key));
    let properties = properties(&message, key);
    #[expect(clippy::disallowed_methods, reason = "one at a time, and its confirm is awaited")]
    let publishing =
        async { channel.basic_publish(to, under, options, &message.body, properties).await?.await };
    let answer = match asked(&doing, publishing).await? {
        Confirmation::Ack(None) => return Ok(()),
        Confirmation::Ack(Some(_)) => "returned it: it reaches no queue there",
        Confirmation::Nack(_) => "refused it: a queue there is full, or has no leader",
        Confirmation::NotRequested => "did not confirm it",
    };
    Err(BrokerError::Refused { doing, answer })
}

/// The properties that it was published with, as far as they are known; the app-id stays the first
/// publisher's.
fn properties(message: &Message, key: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in message.headers().into_iter().flat_map(FieldTable::inner) {
        if !is_of_death(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let properties = message.properties.clone().with_headers(headers);
    if message.kind() == Some("dead") { properties.with_type(short(key)) } else { properties }
}

async fn asked<T>(
    doing: &str,
    operation: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    within(doing, async { operation.await.map_err(|source| BrokerError::operation(doing, source)) })
        .await
}

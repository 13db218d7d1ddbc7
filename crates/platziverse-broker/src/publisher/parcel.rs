//! One AMQP message on its way.

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use platziverse_protocol::time::Timestamp;

use super::gather::{Parcel, Ticket};
use super::lane::{Lane, short};
use crate::message;

/// What RabbitMQ made of a message.
#[derive(Debug)]
pub(crate) enum Answer {
    Confirmed,
    /// Not now: a queue is full, or has no leader.
    Refused,
    /// It reached no queue. lapin may have attached the return to another message's confirm.
    Returned,
    /// The channel or the connection is gone.
    Lost(lapin::Error),
    /// lapin did not ask for confirms on this channel.
    ConfirmsOff,
}

/// The answer to a parcel.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) ticket: Ticket,
    pub(crate) answer: Answer,
}

/// Publishes and waits for the confirm. The first poll queues the frames.
pub(crate) async fn send(channel: Channel, parcel: Parcel, properties: BasicProperties) -> Reply {
    let answer = match publish(&channel, &parcel, properties).await {
        Err(error) => Answer::Lost(error),
        Ok(confirm) => match confirm.await {
            Err(error) => Answer::Lost(error),
            Ok(Confirmation::Ack(None)) => Answer::Confirmed,
            Ok(Confirmation::Nack(None)) => Answer::Refused,
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Answer::Returned,
            Ok(Confirmation::NotRequested) => Answer::ConfirmsOff,
        },
    };
    Reply { ticket: parcel.ticket, answer }
}

#[expect(clippy::disallowed_methods, reason = "this is the publisher, which awaits the confirm")]
async fn publish(
    channel: &Channel,
    parcel: &Parcel,
    properties: BasicProperties,
) -> Result<PublisherConfirm, lapin::Error> {
    let lane = &parcel.lane;
    let options = BasicPublishOptions { mandatory: lane.is_mandatory(), immediate: false };
    let (exchange, key) = (short(lane.exchange()), short(lane.routing_key()));
    channel.basic_publish(exchange, key, options, &parcel.body, properties).await
}

/// The properties that every message carries.
pub(crate) fn properties(parcel: &Parcel, app_id: &ShortString, now: Timestamp) -> BasicProperties {
    let lane = &parcel.lane;
    message::properties(parcel.id, lane.kind(), lane.content_type(), now)
        .with_app_id(app_id.clone())
        .with_headers(headers(lane, parcel.records))
}

fn headers(lane: &Lane, records: usize) -> FieldTable {
    let mut headers = FieldTable::default();
    let records = i64::try_from(records).unwrap_or(i64::MAX);
    headers.insert("records".into(), AMQPValue::LongLongInt(records));
    for (name, value) in lane.headers() {
        headers.insert((*name).into(), value.into());
    }
    headers
}

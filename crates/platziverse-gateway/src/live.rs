//! From the live queue to this gateway's subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use platziverse_broker::{LiveMessages, Message};
use platziverse_protocol::command::commanded_agent;
use platziverse_protocol::record::{self, Record};
use platziverse_protocol::time::Timestamp;
use platziverse_protocol::topic::AGENT_DISCONNECTED;
use platziverse_service::clock;

use crate::hub::{Hub, ROLL, TAKEOVER};
use crate::mailbox::{Event, Posted};
use crate::packet::{Bytes, Properties, QoS, Text};
use crate::registry::ConnectionId;
use crate::session;
use crate::session::{Commanded, Delivery};
use crate::subscriptions::Match;

/// Hands on what arrives until the process drains.
pub(crate) async fn run(hub: Arc<Hub>, mut messages: LiveMessages) {
    while let Some(message) = messages.next().await {
        take(&hub, &message);
    }
}

fn take(hub: &Hub, message: &Message) {
    let (now, instant) = (clock::now(), Instant::now());
    for line in record::lines(&message.body) {
        match Record::decode_line(line) {
            Ok(record) => hand_on(hub, &record, now, instant),
            Err(error) => {
                tracing::warn!(key = message.routing_key, "not handed to subscribers: {error}");
            }
        }
    }
}

fn hand_on(hub: &Hub, record: &Record<'_>, now: Timestamp, instant: Instant) {
    // What is kept of a packet that was too large may have no topic, which `#` would match.
    if record.topic.is_empty() {
        return tracing::warn!(client = &*record.client, "not handed on: a record without a topic");
    }
    match &*record.topic {
        TAKEOVER => return hub.hear_takeover(&record.client, record.session),
        ROLL => return hub.hear_roll(&record.client, record.session),
        _ => {}
    }
    let publisher = hub.registry().of_session(record.session);
    if let (AGENT_DISCONNECTED, Some(connection)) = (&*record.topic, publisher) {
        // The sweep took this gateway for dead: the session that it ended cannot go on.
        if let Some(mailbox) = hub.registry().mailbox(connection) {
            mailbox.send(Event::Renew(Some(record.session)));
        }
    }
    let matches = hub.audience.matches(&record.topic, publisher);
    if matches.is_empty() {
        return;
    }
    let message = Arc::new(message(record, now, instant));
    let agent = commanded_agent(&record.topic);
    for matched in matches {
        // Who only looks on is not the agent.
        let agent = agent.filter(|_| hub.audience.has(matched.client, &record.topic));
        let command = agent.map(|agent| Box::new(Commanded { agent: agent.into(), id: record.id }));
        deliver(hub, &message, matched, command);
    }
}

fn deliver(
    hub: &Hub,
    message: &Arc<session::Message>,
    matched: Match<ConnectionId>,
    command: Option<Box<Commanded>>,
) {
    let Some(mailbox) = hub.registry().mailbox(matched.client).cloned() else { return };
    let delivery = Delivery {
        message: Arc::clone(message),
        granted: matched.qos,
        retain: false,
        subscription_ids: matched.ids,
        command,
    };
    match mailbox.deliver(delivery) {
        Posted::Taken => hub.metrics.delivered.inc(),
        Posted::Missed => hub.metrics.missed.inc(),
        Posted::Ended => 0,
    };
}

fn message(record: &Record<'_>, now: Timestamp, instant: Instant) -> session::Message {
    let properties = record.properties.as_deref();
    let expires = properties.and_then(|properties| properties.expiry_seconds).map(|seconds| {
        let waited = u64::try_from(now.millis_since(record.received)).unwrap_or(0);
        let left = (u64::from(seconds) * 1_000).saturating_sub(waited);
        instant + Duration::from_millis(left)
    });
    session::Message {
        topic: Text::from(&*record.topic),
        payload: Bytes::copy_from_slice(record.payload.bytes()),
        qos: match record.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
        expires,
        properties: properties.map(|properties| {
            Box::new(Properties {
                utf8_payload: properties.utf8,
                expiry: None,
                content_type: properties.content_type.as_deref().map(Text::from),
                response_topic: properties.response_topic.as_deref().map(Text::from),
                correlation_data: properties.correlation_bytes().map(Bytes::from),
                user: (properties.user.iter())
                    .map(|(name, value)| (Text::from(&**name), Text::from(&**value)))
                    .collect(),
            })
        }),
    }
}

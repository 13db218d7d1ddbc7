//! What messages of applications need in RabbitMQ. Their queues are made as applications ask for
//! them.

use std::time::Duration;

use platziverse_config::IngestConfig;

use super::{DEAD, Exchange, Kind, Queue, Topology, Value};
use crate::mom::MomQueueOptions;

/// Messages of applications: an exchange whose keys are the names of queues.
pub const MOM: &str = "platziverse.mom";
/// What is to become of messages that another process has leased: an exchange whose keys are the
/// names of processes.
pub const MOM_LEASES: &str = "platziverse.mom.leases";

impl Topology {
    /// The path of applications' messages to their queues, with dead letters, whose limits are those
    /// of `limits`. What is published to [`MOM`] under keys that no queue has becomes a dead letter.
    pub fn for_mom(limits: &IngestConfig) -> Self {
        let exchanges = vec![
            Exchange::new(DEAD, Kind::Topic, None),
            Exchange::new(MOM, Kind::Direct, Some(DEAD)),
            // No alternate exchange: a process that is gone has no leases.
            Exchange::new(MOM_LEASES, Kind::Direct, None),
        ];
        let mut topology = Self { exchanges, ..Self::default() };
        topology.add(Queue::dead(limits), DEAD, "#");
        topology
    }
}

/// The start of the names of what is made for applications.
const OWN: &str = "mom.";

/// Where a dead letter of the queue came from, if that is a queue of applications: it goes back to
/// that one, although others had the message too.
pub(crate) fn mom_origin(queue: &str) -> Option<(String, String)> {
    queue.starts_with(OWN).then(|| (MOM.to_owned(), queue.to_owned()))
}

/// Why a queue cannot have such a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {MIN} to {max}")]
pub(crate) struct OutOfRange {
    what: &'static str,
    max: i64,
}

const MIN: i64 = 1;
/// The longest TTL of a message that RabbitMQ takes, in milliseconds: some 49 days.
const TTL_MAX: i64 = u32::MAX as i64;

impl Queue {
    /// A queue of applications.
    pub(crate) fn mom(name: &str, options: &MomQueueOptions) -> Result<Self, OutOfRange> {
        let within = |what, value: u128, max: i64| {
            let number = i64::try_from(value).ok().filter(|number| (MIN..=max).contains(number));
            number.map(Value::Number).ok_or(OutOfRange { what, max })
        };
        let length = within("the length of a queue", options.max_length.into(), i64::MAX)?;
        let bytes = within("the bytes of a queue", options.max_bytes.into(), i64::MAX)?;
        // Without one, RabbitMQ 3.10 has no limit, and 4 has 20.
        let limit = within("the delivery limit", options.delivery_limit.into(), i64::MAX)?;
        let ttl = |ttl: Duration| within("the TTL in milliseconds", ttl.as_millis(), TTL_MAX);
        let ttl = options.message_ttl.map(ttl).transpose()?;
        let mut queue = Self::quorum(
            name,
            [
                ("x-max-length", length),
                ("x-max-length-bytes", bytes),
                ("x-delivery-limit", limit),
                ("x-dead-letter-exchange", Value::Word(DEAD)),
                // Dead-lettering itself waits for confirms; needs reject-publish.
                ("x-dead-letter-strategy", Value::Word("at-least-once")),
            ],
        );
        let ttl = ttl.map(|value| super::Argument { name: "x-message-ttl", value });
        queue.arguments.extend(ttl);
        Ok(queue)
    }
}

//! The names that older systems gave to some settings.

use serde_json::Value;

use crate::schema;
use crate::uri::split_address;

/// An older name.
pub(crate) struct Older {
    name: &'static str,
    /// The setting that it is now.
    pub(crate) key: &'static str,
    /// Whether it is understood on top of a file too.
    pub(crate) in_file: bool,
    reads: Reads,
}

enum Reads {
    /// Text of the setting's kind.
    Value,
    /// The only item of a list.
    OnlyItem,
    /// A host, `host:port` or a URL of RabbitMQ.
    Broker,
}

const OLDER: &[Older] = &[
    Older { name: "DB_HOST", key: "database.host", in_file: false, reads: Reads::Value },
    Older { name: "DB_NAME", key: "database.name", in_file: false, reads: Reads::Value },
    Older { name: "DB_USER", key: "database.username", in_file: false, reads: Reads::Value },
    Older { name: "DB_PASS", key: "database.password", in_file: false, reads: Reads::Value },
    Older { name: "RABBITMQ_HOSTNAME", key: "amqp.host", in_file: true, reads: Reads::Broker },
    Older {
        name: "RABBITMQ_LOCAL_QUEUE_NAME",
        key: "tasks.queues",
        in_file: true,
        reads: Reads::OnlyItem,
    },
    Older {
        name: "RABBITMQ_PREFETCH_COUNT",
        key: "tasks.prefetch",
        in_file: true,
        reads: Reads::Value,
    },
    Older { name: "EVENTS_TO_OMIT", key: "tasks.omit", in_file: true, reads: Reads::Value },
];

pub(crate) fn find(name: &str) -> Option<&'static Older> {
    OLDER.iter().find(|older| older.name == name)
}

/// The names that a file may have.
pub(crate) fn in_file() -> impl Iterator<Item = String> {
    OLDER.iter().filter(|older| older.in_file).map(|older| older.name.to_owned())
}

impl Older {
    /// What its text sets.
    pub(crate) fn read(&self, text: &str) -> Vec<(&'static str, Value)> {
        match self.reads {
            Reads::Value => {
                let value = schema::find(self.key).map(|key| key.kind.read(text));
                self.whole(&value.unwrap_or_default())
            }
            Reads::OnlyItem => self.whole(&Value::from(vec![text])),
            Reads::Broker if text.contains("://") => vec![("amqp.url", text.into())],
            Reads::Broker => match split_address(text) {
                Ok((host, Some(port))) => {
                    vec![("amqp.host", host.into()), ("amqp.port", port.into())]
                }
                Ok((host, None)) => vec![("amqp.host", host.into())],
                // Refused as a host, and shown so.
                Err(_) => vec![("amqp.host", text.into())],
            },
        }
    }

    /// What a value that is no text sets.
    pub(crate) fn whole(&self, value: &Value) -> Vec<(&'static str, Value)> {
        vec![(self.key, value.clone())]
    }
}

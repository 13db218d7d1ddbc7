//! What is counted, by the role of the publisher or consumer.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: String,
}

type Counters = Family<Role, Counter>;

/// The families of all roles; registered once for a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokerMetrics {
    messages: Counters,
    records: Counters,
    refused: Counters,
    returned: Counters,
    buffered: Family<Role, Gauge>,
    reconnects: Counters,
    deliveries: Counters,
}

/// The metrics of one publisher.
#[derive(Clone, Debug)]
pub(crate) struct PublisherMetrics {
    pub(crate) messages: Counter,
    pub(crate) records: Counter,
    pub(crate) refused: Counter,
    pub(crate) returned: Counter,
    pub(crate) buffered: Gauge,
    pub(crate) reconnects: Counter,
}

/// The metrics of one consumer.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerMetrics {
    pub(crate) deliveries: Counter,
    pub(crate) reconnects: Counter,
}

impl BrokerMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let mut counter = |name: &str, help: &str, family: &Counters| {
            registry.register(format!("broker_{name}"), help, family.clone());
        };
        counter("published_messages", "AMQP messages that RabbitMQ confirmed", &all.messages);
        counter("published_records", "Records in confirmed AMQP messages", &all.records);
        counter("refused_messages", "AMQP messages that RabbitMQ refused for now", &all.refused);
        counter("returned_messages", "AMQP messages that reached no queue: a fault", &all.returned);
        counter("reconnects", "Connections to RabbitMQ that were lost", &all.reconnects);
        counter("deliveries", "AMQP messages received", &all.deliveries);
        let help = "Room taken by records that await their confirms";
        registry.register("broker_buffered_bytes", help, all.buffered.clone());
        all
    }

    pub(crate) fn publisher(&self, role: &str) -> PublisherMetrics {
        let role = Role { role: role.to_owned() };
        PublisherMetrics {
            messages: self.messages.get_or_create_owned(&role),
            records: self.records.get_or_create_owned(&role),
            refused: self.refused.get_or_create_owned(&role),
            returned: self.returned.get_or_create_owned(&role),
            buffered: self.buffered.get_or_create_owned(&role),
            reconnects: self.reconnects.get_or_create_owned(&role),
        }
    }

    pub(crate) fn consumer(&self, role: &str) -> ConsumerMetrics {
        let role = Role { role: role.to_owned() };
        ConsumerMetrics {
            deliveries: self.deliveries.get_or_create_owned(&role),
            reconnects: self.reconnects.get_or_create_owned(&role),
        }
    }
}

//! The names of applications' queues and topics in RabbitMQ.

use uuid::Uuid;

/// The queue of a name.
pub fn queue_name(name: &str) -> String {
    format!("mom.queue.{name}")
}

/// The exchange of a topic, for whoever publishes over AMQP.
pub fn topic_exchange(name: &str) -> String {
    format!("mom.topic.{name}")
}

/// The queue of a topic's subscriber.
pub fn subscriber_queue(topic: &str, user: Uuid) -> String {
    format!("mom.topic.{topic}.{user}")
}

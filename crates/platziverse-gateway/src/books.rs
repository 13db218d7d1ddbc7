//! What the gateway counts.

use std::sync::Arc;

use platziverse_protocol::dead::Reason;
use platziverse_service::Metrics;
use platziverse_service::books::{Books, Fate};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// What becomes of a client's publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishFate {
    /// RabbitMQ has it.
    Confirmed,
    /// It was refused and kept as a dead letter; or, with QoS 1 or 2, not taken and not answered,
    /// because its connection or the process ended first.
    Refused,
    /// It was let go: only with QoS 0, when its connection or the process ended first.
    Dropped,
}

impl Fate for PublishFate {
    const NAME: &'static str = "gateway_publishes";
    const ENTRY: (&'static str, &'static str) = ("received", "Publishes received from clients");
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("confirmed", "Publishes that RabbitMQ confirmed"),
        ("refused", "Publishes kept as dead letters, or of QoS 1 or 2 and never answered"),
        ("dropped", "Publishes of QoS 0 let go because their connection ended"),
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// The label of refused publishes.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// The gateway's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    /// received = confirmed + refused + dropped + in flight.
    pub publishes: Books<PublishFate>,
    /// Open MQTT connections.
    pub connections: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections taken over by a newer one of the same client id.
    pub taken_over: Counter,
    /// Messages handed to subscribers.
    pub delivered: Counter,
    /// QoS 0 messages that a slow subscriber missed.
    pub missed: Counter,
    refused: Family<ReasonLabel, Counter>,
}

impl GatewayMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Arc<Self> {
        let this = Self {
            publishes: Books::open(metrics),
            connections: Gauge::default(),
            accepted: Counter::default(),
            taken_over: Counter::default(),
            delivered: Counter::default(),
            missed: Counter::default(),
            refused: Family::default(),
        };
        metrics.register(|registry| {
            let mut add =
                |name, help, counter: &Counter| registry.register(name, help, counter.clone());
            add("gateway_connections_accepted", "Connections accepted", &this.accepted);
            add(
                "gateway_sessions_taken_over",
                "Sessions taken over by a newer one",
                &this.taken_over,
            );
            add("gateway_messages_delivered", "Messages handed to subscribers", &this.delivered);
            add(
                "gateway_messages_missed",
                "QoS 0 messages that slow subscribers missed",
                &this.missed,
            );
            registry.register(
                "gateway_connections",
                "Open MQTT connections",
                this.connections.clone(),
            );
            registry.register(
                "gateway_refusals",
                "Refused publishes by reason",
                this.refused.clone(),
            );
        });
        Arc::new(this)
    }

    /// Counts a refusal by its reason.
    pub fn refusal(&self, reason: Reason) {
        self.refused.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }
}

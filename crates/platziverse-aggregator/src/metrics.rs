//! What an aggregator counts.

use platziverse_service::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// A label of one value.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Of {
    of: &'static str,
}

/// The aggregator's metrics.
#[derive(Clone, Debug, Default)]
pub struct AggregatorMetrics {
    /// WebSockets that are open.
    pub sockets: Gauge,
    /// Packets that clients have sent, by their action.
    packets: Family<Of, Counter>,
    /// Messages written to clients.
    pub deliveries: Counter,
    /// Messages dropped since clients read too slowly.
    pub dropped: Counter,
    /// Messages of servers that are neither JSON nor text, and go to nobody.
    pub unreadable: Counter,
    /// Requests by their outcome: `reply`, `timeout`, `error`.
    requests: Family<Of, Counter>,
    /// Requests that were not sent again, since they had been.
    pub repeated: Counter,
    /// Sessions that went on, by how: `whole`, `missed`, `anew`.
    resumptions: Family<Of, Counter>,
    /// Sockets ended here, by why.
    closed: Family<Of, Counter>,
}

impl AggregatorMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let gauge = this.sockets.clone();
            registry.register("aggregator_sockets", "WebSockets that are open", gauge);
            let counters = [
                ("deliveries", "Messages written to clients", &this.deliveries),
                ("dropped_messages", "Messages dropped for slow clients", &this.dropped),
                (
                    "unreadable_messages",
                    "Messages for clients that are neither JSON nor text",
                    &this.unreadable,
                ),
                (
                    "repeated_requests",
                    "Requests that had been sent before, and were not sent again",
                    &this.repeated,
                ),
            ];
            for (name, help, counter) in counters {
                registry.register(format!("aggregator_{name}"), help, counter.clone());
            }
            let families = [
                ("packets", "Packets of clients, by what they ask for", &this.packets),
                ("requests", "Requests of clients, by their outcome", &this.requests),
                ("resumptions", "Sessions that clients came back to, by how", &this.resumptions),
                ("closed_sockets", "WebSockets that the aggregator closed, by why", &this.closed),
            ];
            for (name, help, family) in families {
                registry.register(format!("aggregator_{name}"), help, family.clone());
            }
        });
        this
    }

    /// Counts a packet of a client.
    pub fn packet(&self, of: &'static str) {
        self.packets.get_or_create(&Of { of }).inc();
    }

    /// Counts the outcome of a request.
    pub fn request(&self, of: &'static str) {
        self.requests.get_or_create(&Of { of }).inc();
    }

    /// Counts a session that a client came back to.
    pub fn resumption(&self, of: &'static str) {
        self.resumptions.get_or_create(&Of { of }).inc();
    }

    /// Counts a socket that is closed here.
    pub fn close(&self, of: &'static str) {
        self.closed.get_or_create(&Of { of }).inc();
    }
}

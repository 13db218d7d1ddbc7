//! What every publisher and consumer of a process shares.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use platziverse_config::AmqpConfig;
use platziverse_service::{Drain, Latch, Metrics, Readiness, Service};

use crate::metrics::BrokerMetrics;
use crate::topology::Topology;

/// Where RabbitMQ is, what must exist in it, and the handles of the process's life.
#[derive(Clone, Debug)]
pub struct Context {
    /// How RabbitMQ is reached.
    pub amqp: AmqpConfig,
    /// `platziverse-<service>@<host>:<id>`: the name of connections and consumers, and the app-id
    /// of messages.
    pub name: Arc<str>,
    /// Declared on every connection before it is used.
    pub topology: Arc<Topology>,
    /// The end of the process.
    pub drain: Drain,
    /// Where connections say whether they are up.
    pub readiness: Readiness,
    pub(crate) metrics: BrokerMetrics,
    /// How many connections there are in each role.
    roles: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    /// Whether the server's version is known to do.
    pub(crate) version_checked: Arc<AtomicBool>,
}

impl Context {
    /// The context of a service; once for a process, since it registers the metrics.
    pub fn new(service: &Service, topology: Topology) -> Self {
        Self {
            amqp: service.settings.amqp.clone(),
            name: service.connection_name().into(),
            topology: Arc::new(topology),
            drain: service.drain.clone(),
            readiness: service.readiness.clone(),
            metrics: register(&service.metrics),
            roles: Arc::default(),
            version_checked: Arc::default(),
        }
    }

    /// A context outside a service, with a life of its own that nobody watches.
    pub fn standalone(amqp: AmqpConfig, name: &str, topology: Topology) -> Self {
        Self {
            amqp,
            name: name.into(),
            topology: Arc::new(topology),
            drain: Drain::default(),
            readiness: Readiness::default(),
            metrics: register(&Metrics::default()),
            roles: Arc::default(),
            version_checked: Arc::default(),
        }
    }

    /// A latch for a connection: `rabbitmq, ingest`, the next in that role `rabbitmq, ingest 2`.
    pub(crate) fn latch(&self, role: &'static str) -> Latch {
        // Counts are whole after any panic.
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let count = roles.entry(role).or_default();
        *count += 1;
        match *count {
            1 => self.readiness.latch(format!("rabbitmq, {role}")),
            count => self.readiness.latch(format!("rabbitmq, {role} {count}")),
        }
    }
}

fn register(metrics: &Metrics) -> BrokerMetrics {
    metrics.register(BrokerMetrics::register)
}

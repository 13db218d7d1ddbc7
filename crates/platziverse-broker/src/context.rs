//! What every publisher and consumer of a process shares.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    roles: Roles,
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
    pub(crate) fn latch(&self, role: &'static str) -> RoleLatch {
        let mut roles = lock(&self.roles);
        let taken = roles.entry(role).or_default();
        let number = (1..).find(|number| !taken.contains(number)).unwrap_or_default();
        taken.insert(number);
        let name = match number {
            1 => format!("rabbitmq, {role}"),
            _ => format!("rabbitmq, {role} {number}"),
        };
        let latch = self.readiness.latch(name);
        RoleLatch { latch, role, number, roles: Arc::clone(&self.roles) }
    }
}

/// The numbers of the connections that there are in each role.
type Roles = Arc<Mutex<BTreeMap<&'static str, BTreeSet<usize>>>>;

/// The latch of a connection. Dropped, the process no longer depends on that connection, and the
/// next in its role has its name.
#[derive(Debug)]
pub(crate) struct RoleLatch {
    latch: Latch,
    role: &'static str,
    number: usize,
    roles: Roles,
}

impl Deref for RoleLatch {
    type Target = Latch;

    fn deref(&self) -> &Latch {
        &self.latch
    }
}

impl Drop for RoleLatch {
    fn drop(&mut self) {
        // Both under the lock: the name is free only when the latch is gone.
        let mut roles = lock(&self.roles);
        self.latch.remove();
        if let Some(taken) = roles.get_mut(self.role) {
            taken.remove(&self.number);
        }
    }
}

fn lock(roles: &Roles) -> MutexGuard<'_, BTreeMap<&'static str, BTreeSet<usize>>> {
    // Numbers are whole after any panic.
    roles.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register(metrics: &Metrics) -> BrokerMetrics {
    metrics.register(BrokerMetrics::register)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latch_that_is_dropped_frees_its_name() {
        let context =
            Context::standalone(AmqpConfig::default(), "platziverse-test", Topology::default());
        let name = |latch: &RoleLatch| (latch.role, latch.number);
        let first = context.latch("ingest");
        let second = context.latch("ingest");
        assert_eq!((name(&first), name(&second)), (("ingest", 1), ("ingest", 2)));
        second.ready();
        assert!(!context.readiness.is_ready());
        drop(first);
        assert!(context.readiness.is_ready(), "only the second is left");
        let again = context.latch("ingest");
        assert_eq!(name(&again), ("ingest", 1));
        assert!(!context.readiness.is_ready());
    }
}

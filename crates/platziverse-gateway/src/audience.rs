//! The subscriptions of this gateway's clients, and what its live queue is bound to for them.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use platziverse_broker::topology::live_binding_keys;
use platziverse_broker::{Bound, LiveHandle};
use platziverse_protocol::topic::TopicFilter;

use crate::packet::Reason;
use crate::registry::ConnectionId;
use crate::session::Wanted;
use crate::subscriptions::{Match, Subscription, Subscriptions};

/// Reaches every message, when there are too many filters to bind each.
const EVERYTHING: &str = "#";

/// A change of the live queue's bindings that follows from one of the subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Rebinding {
    bind: Vec<String>,
    unbind: Vec<String>,
}

impl Rebinding {
    /// Carries the change out: it is in order with those before once this returns. The future
    /// resolves when RabbitMQ has the new bindings, or will have them as soon as it is back.
    pub(crate) fn carry_out(self, live: &LiveHandle) -> impl Future<Output = Bound> + Send + use<> {
        live.rebind(self.bind, self.unbind)
    }

    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.unbind.is_empty()
    }
}

#[derive(Debug, Default)]
struct State {
    subscriptions: Subscriptions<ConnectionId>,
    /// Filters that have bindings of their own; the others share the binding to everything.
    bound: HashSet<TopicFilter>,
}

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct Audience {
    state: RwLock<State>,
    bound_max: usize,
}

impl Audience {
    /// Nobody yet. At most `bound_max` filters get bindings of their own.
    pub(crate) fn new(bound_max: usize) -> Self {
        Self { state: RwLock::default(), bound_max }
    }

    /// Adds subscriptions.
    pub(crate) fn subscribe(&self, connection: ConnectionId, wanted: &[Wanted]) -> Rebinding {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut rebinding = Rebinding::default();
        for Wanted { filter, options, id } in wanted {
            let wants = Subscription {
                qos: options.qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                id: *id,
            };
            let inserted = state.subscriptions.insert(filter, connection, wants);
            if inserted.first && state.bound.len() < self.bound_max {
                state.bound.insert(filter.clone());
            }
            // Bindings are counted: each subscriber has its own share in them, and waits until
            // they are there.
            if !inserted.replaced {
                rebinding.bind.extend(state.keys(filter));
            }
        }
        rebinding
    }

    /// Ends subscriptions; answers for each whether it was there.
    pub(crate) fn unsubscribe(
        &self,
        connection: ConnectionId,
        filters: &[TopicFilter],
    ) -> (Vec<Reason>, Rebinding) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let (mut reasons, mut rebinding) = (Vec::new(), Rebinding::default());
        for filter in filters {
            let removed = state.subscriptions.remove(filter, &connection);
            if removed.existed {
                state.unbind(filter, removed.last, &mut rebinding);
            }
            let there = removed.existed;
            reasons.push(if there { Reason::SUCCESS } else { Reason::NO_SUBSCRIPTION_EXISTED });
        }
        (reasons, rebinding)
    }

    /// Ends all subscriptions of a connection.
    pub(crate) fn leave(&self, connection: ConnectionId) -> Rebinding {
        let mut rebinding = Rebinding::default();
        let is_member = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.subscriptions.filters_of(&connection) > 0
        };
        if is_member {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for (filter, last) in state.subscriptions.remove_client(&connection) {
                state.unbind(&filter, last, &mut rebinding);
            }
        }
        rebinding
    }

    /// Whether the client has subscribed to just this topic.
    pub(crate) fn has(&self, connection: ConnectionId, topic: &str) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.subscriptions.has(&connection, topic)
    }

    /// The agents whose commands some client listens for.
    pub(crate) fn agents(&self) -> Vec<Box<str>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let agents = state.subscriptions.between("agent", "command");
        agents.into_iter().map(Into::into).collect()
    }

    /// Whom a message on `topic` reaches.
    pub(crate) fn matches(
        &self,
        topic: &str,
        publisher: Option<ConnectionId>,
    ) -> Vec<Match<ConnectionId>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.subscriptions.matches(topic, publisher.as_ref())
    }
}

impl State {
    /// What the live queue is bound to for a filter.
    fn keys(&self, filter: &TopicFilter) -> Vec<String> {
        if self.bound.contains(filter) {
            live_binding_keys(filter)
        } else {
            vec![EVERYTHING.to_owned()]
        }
    }

    fn unbind(&mut self, filter: &TopicFilter, last: bool, rebinding: &mut Rebinding) {
        rebinding.unbind.extend(self.keys(filter));
        if last {
            self.bound.remove(filter);
        }
    }
}

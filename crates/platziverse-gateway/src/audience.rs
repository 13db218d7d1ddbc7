//! The subscriptions of this gateway's clients, and what its live queue is bound to for them.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use platziverse_broker::LiveHandle;
use platziverse_broker::topology::live_binding_keys;
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
    /// Carries the change out. Resolves when RabbitMQ has the new bindings, or will have them as
    /// soon as it is back.
    pub(crate) async fn carry_out(self, live: &LiveHandle) {
        for key in self.bind {
            live.bind(&key).await;
        }
        for key in self.unbind {
            live.unbind(&key).await;
        }
    }

    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.unbind.is_empty()
    }
}

#[derive(Debug, Default)]
struct State {
    subscriptions: Subscriptions<ConnectionId>,
    /// Filters that have bindings of their own.
    bound: HashSet<TopicFilter>,
    /// Filters that share the binding to everything.
    wide: HashSet<TopicFilter>,
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
            if state.subscriptions.insert(filter, connection, wants).first {
                state.bind(filter, self.bound_max, &mut rebinding);
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
            if removed.last {
                state.unbind(filter, &mut rebinding);
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
            for filter in state.subscriptions.remove_client(&connection) {
                state.unbind(&filter, &mut rebinding);
            }
        }
        rebinding
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
    fn bind(&mut self, filter: &TopicFilter, bound_max: usize, rebinding: &mut Rebinding) {
        if self.bound.len() < bound_max {
            self.bound.insert(filter.clone());
            rebinding.bind.extend(live_binding_keys(filter));
            return;
        }
        if self.wide.is_empty() {
            rebinding.bind.push(EVERYTHING.to_owned());
        }
        self.wide.insert(filter.clone());
    }

    fn unbind(&mut self, filter: &TopicFilter, rebinding: &mut Rebinding) {
        if self.bound.remove(filter) {
            rebinding.unbind.extend(live_binding_keys(filter));
        } else if self.wide.remove(filter) && self.wide.is_empty() {
            rebinding.unbind.push(EVERYTHING.to_owned());
        }
    }
}

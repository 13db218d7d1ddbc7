//! Who has subscribed to what, and whom a topic reaches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::num::NonZeroU32;

use platziverse_protocol::topic::TopicFilter;

use crate::packet::QoS;

/// The subscriptions of many clients, as a tree of topic levels.
///
/// `C` stands for a client. Neither depth nor number is limited here: a filter of `n` levels takes
/// `n` nodes.
#[derive(Debug)]
pub struct Subscriptions<C> {
    /// The first is the root.
    nodes: Vec<Node<C>>,
    /// Nodes to be used again.
    free: Vec<usize>,
    clients: HashMap<C, BTreeSet<TopicFilter>>,
    filters: usize,
}

/// What one client wants of one filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The QoS granted.
    pub qos: QoS,
    /// Not to be sent what the same client has published (MQTT-3.8.3-3).
    pub no_local: bool,
    /// Keep the RETAIN flag.
    pub retain_as_published: bool,
    /// The Subscription Identifier.
    pub id: Option<NonZeroU32>,
}

/// What [`Subscriptions::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// Nobody had subscribed to this filter before.
    pub first: bool,
    /// The client had; its subscription is replaced (MQTT-3.8.4-3).
    pub replaced: bool,
}

/// What [`Subscriptions::remove`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The client had subscribed to this filter.
    pub existed: bool,
    /// It did, and nobody else does.
    pub last: bool,
}

/// A client that a topic reaches, once, however many of its filters match (MQTT-3.3.4-2, -3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<C> {
    /// The client.
    pub client: C,
    /// The greatest QoS granted to a filter that matches.
    pub qos: QoS,
    /// Whether one of them keeps the RETAIN flag.
    pub retain_as_published: bool,
    /// The identifiers of those that have one.
    pub ids: Vec<NonZeroU32>,
}

#[derive(Debug)]
struct Node<C> {
    children: HashMap<Box<str>, usize>,
    /// The child for `+`.
    any: Option<usize>,
    /// Those whose filter ends here.
    here: BTreeMap<C, Subscription>,
    /// Those whose filter ends with `#` below here.
    below: BTreeMap<C, Subscription>,
}

impl<C> Default for Node<C> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, here: BTreeMap::new(), below: BTreeMap::new() }
    }
}

impl<C> Node<C> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }

    fn child(&self, level: &str) -> Option<usize> {
        if level == "+" { self.any } else { self.children.get(level).copied() }
    }

    fn subscribers(&mut self, below: bool) -> &mut BTreeMap<C, Subscription> {
        if below { &mut self.below } else { &mut self.here }
    }
}

/// The levels of a filter without a last `#`, and whether there is one.
fn split(filter: &TopicFilter) -> (impl Iterator<Item = &str>, bool) {
    let below = &**filter == "#" || filter.ends_with("/#");
    let levels = filter.split('/').count() - usize::from(below);
    (filter.split('/').take(levels), below)
}

impl<C> Default for Subscriptions<C> {
    fn default() -> Self {
        let nodes = vec![Node::default()];
        Self { nodes, free: Vec::new(), clients: HashMap::new(), filters: 0 }
    }
}

impl<C: Clone + Ord + Hash> Subscriptions<C> {
    /// No subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many different filters there are.
    pub fn filters(&self) -> usize {
        self.filters
    }

    /// How many filters a client has.
    pub fn filters_of(&self, client: &C) -> usize {
        self.clients.get(client).map_or(0, BTreeSet::len)
    }

    /// Whether a client has subscribed to this very filter.
    pub fn has(&self, client: &C, filter: &str) -> bool {
        self.clients.get(client).is_some_and(|filters| filters.contains(filter))
    }

    /// The levels, no wildcards, that stand between `first` and `last` in a filter of three levels
    /// that somebody has subscribed to.
    pub fn between(&self, first: &str, last: &str) -> Vec<&str> {
        let Some(first) = self.nodes[0].child(first) else { return Vec::new() };
        let somebody = |middle: usize| {
            let last = self.nodes[middle].child(last);
            last.is_some_and(|node| !self.nodes[node].here.is_empty())
        };
        let middles = self.nodes[first].children.iter().filter(|(_, middle)| somebody(**middle));
        middles.map(|(level, _)| &**level).collect()
    }

    /// Subscribes a client, or replaces its subscription to the same filter.
    pub fn insert(&mut self, filter: &TopicFilter, client: C, wants: Subscription) -> Inserted {
        let (levels, below) = split(filter);
        let mut node = 0;
        for level in levels {
            node = match self.nodes[node].child(level) {
                Some(child) => child,
                None => self.grow(node, level),
            };
        }
        let subscribers = self.nodes[node].subscribers(below);
        let first = subscribers.is_empty();
        let replaced = subscribers.insert(client.clone(), wants).is_some();
        self.filters += usize::from(first);
        if !replaced {
            self.clients.entry(client).or_default().insert(filter.clone());
        }
        Inserted { first, replaced }
    }

    fn grow(&mut self, parent: usize, level: &str) -> usize {
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        });
        if level == "+" {
            self.nodes[parent].any = Some(child);
        } else {
            self.nodes[parent].children.insert(level.into(), child);
        }
        child
    }

    /// Ends a client's subscription to a filter.
    pub fn remove(&mut self, filter: &TopicFilter, client: &C) -> Removed {
        let existed = match self.clients.get_mut(client) {
            Some(filters) => filters.remove(filter),
            None => false,
        };
        if self.clients.get(client).is_some_and(BTreeSet::is_empty) {
            self.clients.remove(client);
        }
        Removed { existed, last: existed && self.detach(filter, client) }
    }

    /// Ends all subscriptions of a client. Returns its filters, each with whether nobody has it
    /// any more.
    pub fn remove_client(&mut self, client: &C) -> Vec<(TopicFilter, bool)> {
        let filters = self.clients.remove(client).unwrap_or_default();
        let detach = |filter| {
            let last = self.detach(&filter, client);
            (filter, last)
        };
        filters.into_iter().map(detach).collect()
    }

    /// Takes a client off a filter, and prunes. Returns whether nobody has the filter any more.
    fn detach(&mut self, filter: &TopicFilter, client: &C) -> bool {
        let (levels, below) = split(filter);
        let mut path = Vec::new();
        let mut node = 0;
        for level in levels {
            let Some(child) = self.nodes[node].child(level) else { return false };
            path.push((node, level));
            node = child;
        }
        let subscribers = self.nodes[node].subscribers(below);
        if subscribers.remove(client).is_none() || !subscribers.is_empty() {
            return false;
        }
        self.filters -= 1;
        while let Some((parent, level)) = path.pop() {
            if !self.nodes[node].is_empty() {
                break;
            }
            self.nodes[node] = Node::default();
            self.free.push(node);
            if level == "+" {
                self.nodes[parent].any = None;
            } else {
                self.nodes[parent].children.remove(level);
            }
            node = parent;
        }
        true
    }

    /// Whom a topic name reaches, in the order of the clients. `publisher` is the client that has
    /// published it, if it is one of these.
    pub fn matches(&self, topic: &str, publisher: Option<&C>) -> Vec<Match<C>> {
        let mut found = Vec::new();
        let mut add = |subscribers: &BTreeMap<C, Subscription>| {
            let wanted = subscribers
                .iter()
                .filter(|(client, wants)| !wants.no_local || publisher != Some(client));
            found.extend(wanted.map(|(client, wants)| (client.clone(), *wants)));
        };
        // MQTT-4.7.2-1: a filter that starts with a wildcard does not match a topic that starts
        // with `$`.
        let mut hidden = topic.starts_with('$');
        let mut nodes = vec![0];
        let mut next = Vec::new();
        for level in topic.split('/') {
            if nodes.is_empty() {
                break;
            }
            for node in nodes.drain(..).map(|node: usize| &self.nodes[node]) {
                if !hidden {
                    add(&node.below);
                    next.extend(node.any);
                }
                next.extend(node.children.get(level));
            }
            hidden = false;
            std::mem::swap(&mut nodes, &mut next);
        }
        for node in nodes.into_iter().map(|node| &self.nodes[node]) {
            add(&node.here);
            // `a/#` matches `a` too (section 4.7.1.2).
            add(&node.below);
        }
        merge(found)
    }
}

fn merge<C: Ord>(mut found: Vec<(C, Subscription)>) -> Vec<Match<C>> {
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut matches: Vec<Match<C>> = Vec::with_capacity(found.len());
    for (client, wants) in found {
        let ids = wants.id.into_iter();
        match matches.last_mut() {
            Some(last) if last.client == client => {
                last.qos = last.qos.max(wants.qos);
                last.retain_as_published |= wants.retain_as_published;
                last.ids.extend(ids);
            }
            _ => matches.push(Match {
                client,
                qos: wants.qos,
                retain_as_published: wants.retain_as_published,
                ids: ids.collect(),
            }),
        }
    }
    matches
}

#[cfg(test)]
mod tests;

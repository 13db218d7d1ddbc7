//! Which gateways live, by their heartbeats. Pure: the time is an argument.

use std::collections::HashMap;

use platziverse_protocol::time::Timestamp;

/// How long a gateway may be silent before its agents are marked disconnected, in milliseconds.
pub const LEASE_MILLIS: i64 = 10_000;
/// How long the listener may miss its own heartbeats before it takes itself for deaf, in
/// milliseconds. It beats every 2 s.
const DEAF_MILLIS: i64 = 5_000;
/// How long a silent gateway is remembered, in milliseconds.
const FORGET_MILLIS: i64 = 10 * LEASE_MILLIS;

/// What the sweeping worker has heard.
///
/// It also listens for its own heartbeats: while they do not come back, it is the listener or the
/// broker that fails, not the gateways, and nobody is ended.
#[derive(Debug)]
pub struct Leases {
    own: String,
    listening_since: Timestamp,
    own_heard: Option<Timestamp>,
    heard: HashMap<String, Timestamp>,
}

impl Leases {
    /// Begins to listen at `now` as `own`.
    pub fn new(own: String, now: Timestamp) -> Self {
        Self { own, listening_since: now, own_heard: None, heard: HashMap::new() }
    }

    /// Notes a heartbeat that arrived at `now`.
    pub fn hear(&mut self, instance: &str, now: Timestamp) {
        if instance != self.own {
            self.heard.insert(instance.to_owned(), now);
            return;
        }
        if self.is_deaf(now) {
            self.listening_since = now;
        }
        self.own_heard = Some(now);
    }

    fn is_deaf(&self, now: Timestamp) -> bool {
        self.own_heard.is_none_or(|heard| now.millis_since(heard) > DEAF_MILLIS)
    }

    /// The gateways that hold their lease at `now`, or nothing if this listener has not yet heard
    /// well for a whole lease, on one connection that it has `connected_since`: what was said
    /// between two of them was heard by nobody.
    pub fn alive(
        &mut self,
        connected_since: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Vec<String>> {
        let since = connected_since?.max(self.listening_since);
        if self.is_deaf(now) || now.millis_since(since) <= LEASE_MILLIS {
            return None;
        }
        self.heard.retain(|_, heard| now.millis_since(*heard) <= FORGET_MILLIS);
        let holds = |heard: &Timestamp| now.millis_since(*heard) <= LEASE_MILLIS;
        let alive = self.heard.iter().filter(|(_, heard)| holds(heard));
        Some(alive.map(|(instance, _)| instance.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::EPOCH.plus_millis(millis)
    }

    /// Who lives, for a listener that was connected all the time.
    fn alive(leases: &mut Leases, millis: i64) -> Option<Vec<String>> {
        leases.alive(Some(at(0)), at(millis))
    }

    /// Beats every 2 s from `from` to `to`, of the listener and of `others`.
    fn beat(leases: &mut Leases, from: i64, to: i64, others: &[&str]) {
        for millis in (from..=to).step_by(2_000) {
            leases.hear("own", at(millis));
            for other in others {
                leases.hear(other, at(millis));
            }
        }
    }

    #[test]
    fn a_silent_gateway_loses_its_lease() {
        let mut leases = Leases::new("own".into(), at(0));
        beat(&mut leases, 0, 12_000, &["a", "b"]);
        let mut both = alive(&mut leases, 12_000).unwrap();
        both.sort();
        assert_eq!(both, ["a", "b"]);
        beat(&mut leases, 14_000, 24_000, &["a"]);
        assert_eq!(alive(&mut leases, 24_000).unwrap(), ["a"]);
    }

    #[test]
    fn nobody_is_ended_before_a_whole_lease_was_heard() {
        let mut leases = Leases::new("own".into(), at(0));
        beat(&mut leases, 0, 10_000, &[]);
        assert_eq!(alive(&mut leases, 10_000), None);
        beat(&mut leases, 12_000, 12_000, &[]);
        assert_eq!(alive(&mut leases, 12_000), Some(vec![]));
    }

    #[test]
    fn deafness_ends_nobody() {
        let mut leases = Leases::new("own".into(), at(0));
        beat(&mut leases, 0, 20_000, &["a"]);
        assert_eq!(alive(&mut leases, 40_000), None, "own beats are missing");
        leases.hear("own", at(40_000));
        assert_eq!(alive(&mut leases, 40_000), None, "listens for a whole lease again");
        beat(&mut leases, 42_000, 52_000, &[]);
        assert_eq!(alive(&mut leases, 52_000), Some(vec![]));
    }

    #[test]
    fn a_gateway_that_began_while_the_connection_was_away_is_waited_for() {
        let mut leases = Leases::new("own".into(), at(0));
        beat(&mut leases, 0, 20_000, &["a"]);
        // Away from 20.5 s to 22.5 s: no beat of its own is missing for long.
        assert_eq!(leases.alive(None, at(21_000)), None);
        beat(&mut leases, 24_000, 32_000, &["a"]);
        let since = Some(at(22_500));
        assert_eq!(leases.alive(since, at(24_000)), None);
        assert_eq!(leases.alive(since, at(32_500)), None);
        leases.hear("new", at(32_600));
        let mut both = leases.alive(since, at(32_600)).unwrap();
        both.sort();
        assert_eq!(both, ["a", "new"]);
    }
}

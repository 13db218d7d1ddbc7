//! The deadlines of a session.

use std::time::{Duration, Instant};

/// When the client was heard, and how long it may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The last packet; before CONNECT, when the connection was accepted.
    heard: Instant,
    /// How long the client may be silent; before CONNECT, how long it may take.
    patience: Option<Duration>,
    /// Since when the transport is not being read.
    paused: Option<Instant>,
}

impl Clock {
    pub(super) fn new(now: Instant, connect_timeout: Duration) -> Self {
        Self { heard: now, patience: Some(connect_timeout), paused: None }
    }

    /// From CONNACK on, `keep_alive` seconds count, one and a half times (MQTT-3.1.2-22); 0 turns
    /// it off (section 3.1.2.10).
    pub(super) fn connected(&mut self, keep_alive: u16, now: Instant) {
        self.patience =
            (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500));
        self.heard = now;
        self.paused = self.paused.map(|_| now);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.paused = self.paused.map(|_| now);
    }

    pub(super) fn set_reading(&mut self, reading: bool, now: Instant) {
        match (reading, self.paused) {
            (false, None) => self.paused = Some(now),
            (true, Some(since)) => {
                self.heard += now.saturating_duration_since(since);
                self.paused = None;
            }
            (false, Some(_)) | (true, None) => {}
        }
    }

    pub(super) fn connect_deadline(&self) -> Instant {
        self.heard + self.patience.unwrap_or_default()
    }

    pub(super) fn keep_alive_deadline(&self) -> Option<Instant> {
        match self.paused {
            Some(_) => None,
            None => self.patience.map(|patience| self.heard + patience),
        }
    }
}

//! Dead letters: what could not be stored or delivered, with the reason.

mod entry;
mod flight;
mod operate;

use platziverse_protocol::dead::{Reason, Stage};

pub use entry::{DeadEntry, DeadMessage};
pub use operate::{Handled, Selection, count, list, purge, replay, show};

const REASON: &str = "reason";
const STAGE: &str = "stage";
const ERROR: &str = "error";
const ORIGIN: &str = "origin";
const ORIGIN_KEY: &str = "origin-key";
/// The app-id of the message that the letter was a part of, where another process gave it up.
pub(crate) const ORIGIN_APP: &str = "origin-app";

/// An error's text is cut here: headers must fit into one frame (AMQP 0-9-1, 2.3.5.2).
const ERROR_BYTES_MAX: usize = 4 << 10;

/// Why a line becomes a dead letter, and where it would have gone. Published on
/// [`Lane::dead`](crate::Lane::dead).
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Why.
    pub reason: Reason,
    /// Who gave it up.
    pub stage: Stage,
    /// What was wrong with it, for a person.
    pub error: &'a str,
    /// The exchange to which a replay publishes it.
    pub origin_exchange: &'a str,
    /// The routing key under which a replay publishes it.
    pub origin_key: &'a str,
}

impl DeadLetter<'_> {
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let error = &self.error[..self.error.floor_char_boundary(ERROR_BYTES_MAX)];
        vec![
            (REASON, self.reason.as_str().to_owned()),
            (STAGE, self.stage.as_str().to_owned()),
            (ERROR, error.to_owned()),
            (ORIGIN, self.origin_exchange.to_owned()),
            (ORIGIN_KEY, self.origin_key.to_owned()),
        ]
    }
}

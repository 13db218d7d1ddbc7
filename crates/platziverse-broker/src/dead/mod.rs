//! Dead letters: what could not be stored or delivered, with the reason.

mod entry;
mod flight;
mod operate;

use platziverse_protocol::dead::{Reason, Stage};

use crate::publisher::{Header, HeaderValue};

pub use entry::{DeadEntry, DeadMessage};
pub use operate::{Handled, Selection, count, list, purge, replay, show};

const REASON: &str = "reason";
const STAGE: &str = "stage";
/// What was wrong, also with a task that is tried again.
pub(crate) const ERROR: &str = "error";
const ORIGIN: &str = "origin";
const ORIGIN_KEY: &str = "origin-key";
/// The app-id of the message that the letter was a part of, where another process gave it up.
pub(crate) const ORIGIN_APP: &str = "origin-app";
/// The property `type` of the message that the letter is; empty if it had none.
pub(crate) const ORIGIN_TYPE: &str = "origin-type";

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

/// The start of an error's text that fits into a header.
pub(crate) fn cut_error(error: &str) -> &str {
    &error[..error.floor_char_boundary(ERROR_BYTES_MAX)]
}

impl DeadLetter<'_> {
    pub(crate) fn headers(&self) -> Vec<Header> {
        let headers = [
            (REASON, self.reason.as_str()),
            (STAGE, self.stage.as_str()),
            (ERROR, cut_error(self.error)),
            (ORIGIN, self.origin_exchange),
            (ORIGIN_KEY, self.origin_key),
        ];
        headers.map(|(name, text)| (name, HeaderValue::Text(text.to_owned()))).to_vec()
    }
}

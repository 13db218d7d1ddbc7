//! Dead letters of the worker.

use std::borrow::Cow;

use bytes::Bytes;
use platziverse_broker::{DeadLetter, LINE_BYTES_MAX, Lane};
use platziverse_protocol::dead::{Reason, Stage};
use uuid::Uuid;

/// What the worker gives up, and why.
pub(crate) struct GivenUp<'a> {
    /// The record, or the whole message.
    pub(crate) line: &'a [u8],
    /// Its id, if it is known.
    pub(crate) id: Option<Uuid>,
    pub(crate) reason: Reason,
    /// What was wrong with it, for a person.
    pub(crate) error: &'a str,
    /// The exchange to which a replay publishes it.
    pub(crate) exchange: &'a str,
    /// The routing key under which a replay publishes it.
    pub(crate) key: &'a str,
    /// Who published it.
    pub(crate) app_id: Option<&'a str>,
}

/// What is given up as a dead letter.
pub(crate) fn letter(given_up: &GivenUp<'_>) -> (Lane, Uuid, Bytes) {
    let GivenUp { reason, error, .. } = given_up;
    tracing::warn!(
        reason = reason.as_str(),
        "a message becomes a dead letter: {reason}: {error:.300}"
    );
    let (line, error) = fitting(given_up.line, error, LINE_BYTES_MAX);
    let mut lane = Lane::dead(&DeadLetter {
        reason: *reason,
        stage: Stage::Worker,
        error: &error,
        origin_exchange: given_up.exchange,
        origin_key: given_up.key,
    });
    // Told again by a replay: by it, an agent's gateway is known.
    if let Some(app) = given_up.app_id {
        lane = lane.on_behalf_of(app);
    }
    (lane, given_up.id.unwrap_or_else(Uuid::now_v7), line)
}

/// A line with its line break, cut to `bytes_max`, and its error, which tells if it was cut.
fn fitting<'a>(line: &[u8], error: &'a str, bytes_max: usize) -> (Bytes, Cow<'a, str>) {
    let kept = line.len().min(bytes_max.saturating_sub(1));
    let whole = Bytes::from([&line[..kept], b"\n"].concat());
    if kept == line.len() {
        return (whole, Cow::Borrowed(error));
    }
    // First, because a long error is cut at its end.
    let error = format!("the first {kept} bytes of a line of {}: {error}", line.len());
    (whole, Cow::Owned(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_and_says_so() {
        let (line, error) = fitting(b"12345", "bad", 6);
        assert_eq!((&*line, &*error), (b"12345\n".as_slice(), "bad"));
        let (line, error) = fitting(b"123456", "bad", 6);
        assert_eq!(&*line, b"12345\n");
        assert_eq!(error, "the first 5 bytes of a line of 6: bad");
        let longest = vec![b'x'; LINE_BYTES_MAX * 2];
        assert_eq!(fitting(&longest, "bad", LINE_BYTES_MAX).0.len(), LINE_BYTES_MAX);
    }
}

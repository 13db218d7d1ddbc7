//! Finds in a payload when it was due. Pure.

use crate::message::Shape;

/// The most bytes between the name of a metric and its value.
const GAP_MAX: usize = 16;

/// Finds in payloads of one run when each was due.
///
/// It looks for bytes and parses nothing, since there is one for many subscribers, who share the
/// machine with what is measured.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// In this order; the digits follow the last.
    needles: Vec<Needle>,
    gap_max: usize,
}

impl Mark {
    /// Of messages that client 0 makes.
    pub(super) fn of(shape: &Shape, name: &str) -> Self {
        match shape {
            Shape::Numbered { .. } => {
                let needles = [format!("\"{name}-0-"), "\"sent\"".to_owned()];
                Self { needles: needles.map(Needle::of).into(), gap_max: GAP_MAX }
            }
            Shape::Opaque { .. } => Self { needles: Vec::new(), gap_max: 0 },
        }
    }

    /// When it was due, in microseconds since 1970; nothing if it is none of the run's.
    pub(super) fn due(&mut self, payload: &[u8]) -> Option<u64> {
        let mut rest = payload;
        for needle in &mut self.needles {
            rest = needle.after(rest)?;
        }
        let gap = rest.iter().take(self.gap_max).take_while(|byte| !byte.is_ascii_digit()).count();
        number(&rest[gap..])
    }
}

/// The number that the bytes begin with.
fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        let so_far: u64 = number.unwrap_or(0);
        number = Some(so_far.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
    }
    number
}

/// Bytes to look for, first where they were last.
#[derive(Clone, Debug)]
struct Needle {
    bytes: Vec<u8>,
    at: usize,
}

impl Needle {
    fn of(text: String) -> Self {
        Self { bytes: text.into_bytes(), at: 0 }
    }

    /// What follows it.
    fn after<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let is_there =
            |at: usize| bytes.get(at..).is_some_and(|rest| rest.starts_with(&self.bytes));
        if !is_there(self.at) {
            self.at = bytes.windows(self.bytes.len()).position(|window| window == self.bytes)?;
        }
        bytes.get(self.at + self.bytes.len()..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Messages;

    #[test]
    fn what_is_published_is_recognised() {
        let opaque = |bytes| Shape::Opaque { topic: "t".into(), bytes };
        for shape in [Shape::Numbered { agents: 3, metrics: 2 }, opaque(200), opaque(0)] {
            let mut messages = Messages::dated(&shape, "bench", 0);
            let mut mark = Mark::of(&shape, "bench");
            for due in 1_780_000_000_000_000..1_780_000_000_000_010 {
                let mut payload = Vec::new();
                messages.write(due, &mut payload);
                assert_eq!(mark.due(&payload), Some(due), "{shape:?}");
            }
        }
    }

    #[test]
    fn however_it_is_written() {
        let mut mark = Mark::of(&Shape::Numbered { agents: 1, metrics: 1 }, "bench");
        let mut check = |text: &str, want| assert_eq!(mark.due(text.as_bytes()), want, "{text}");
        check(r#"{"uuid":"bench-0-0","metrics":[{"type":"sent","value":12}]}"#, Some(12));
        check(r#"{"uuid":"bench-0-0","a":1,"type":"sent","value":"34"}"#, Some(34));
        check(r#"{"uuid": "bench-0-0", "type": "sent", "value": 56}"#, Some(56));
        // Another load's, without the metric, without its value, and with one that is too large.
        check(r#"{"uuid": "other-0-0", "type": "sent", "value": 56}"#, None);
        check(r#"{"uuid": "bench-0-0", "type": "temperature-1", "value": 21.5}"#, None);
        check(r#"{"uuid": "bench-0-0", "type": "sent"}"#, None);
        check(r#"{"uuid": "bench-0-0", "type": "sent", "value": 99999999999999999999}"#, None);
        check("", None);
    }
}

//! Messages as publishers hand them in.

use bytes::Bytes;

use crate::core::{Code, Refusal};

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// What the body is; nothing means `application/octet-stream`.
    pub content_type: Option<String>,
    /// The publisher's own headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// What the publish is known by when it is sent again.
    pub idempotency_key: Option<String>,
}

/// What a body is if nobody says so.
pub(super) const OCTETS: &str = "application/octet-stream";
/// Headers of one message.
pub const HEADERS_MAX: usize = 50;
/// Bytes of the headers of one message, names and values.
pub const HEADER_BYTES_MAX: usize = 16_384;
/// An AMQP short string has at most so many bytes; a header's name has `h-` before it.
const SHORT_BYTES_MAX: usize = 255;
const HEADER_NAME_BYTES_MAX: usize = SHORT_BYTES_MAX - 2;

impl NewMessage {
    /// Whether RabbitMQ and every consumer can take it.
    pub(super) fn check(&self, body_max: usize) -> Result<(), Refusal> {
        if self.body.len() > body_max {
            let found = self.body.len();
            let detail = format!("the body has {found} bytes; at most {body_max} are allowed");
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let content_type = self.content_type.as_deref().unwrap_or(OCTETS);
        if content_type.len() > SHORT_BYTES_MAX || !is_printable(content_type) {
            let detail = "the content type must be at most 255 bytes without control characters";
            return Err(Refusal::invalid(detail));
        }
        self.check_headers()
    }

    fn check_headers(&self) -> Result<(), Refusal> {
        if self.headers.len() > HEADERS_MAX {
            let detail = format!("there are more than {HEADERS_MAX} headers");
            return Err(Refusal::invalid(detail));
        }
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > HEADER_BYTES_MAX {
            let detail = format!(
                "the headers have {bytes} bytes; at most {HEADER_BYTES_MAX} are allowed, names and \
                 values together"
            );
            return Err(Refusal::invalid(detail));
        }
        for (index, (name, value)) in self.headers.iter().enumerate() {
            if !is_header_name(name) {
                let detail = format!(
                    "the header {name:?} must have a name of 1 to {HEADER_NAME_BYTES_MAX} of a to z, \
                     0 to 9, `-`, `_` and `.`"
                );
                return Err(Refusal::invalid(detail));
            }
            if !is_printable(value) {
                let detail = format!("the header {name:?} has a control character in its value");
                return Err(Refusal::invalid(detail));
            }
            if self.headers[..index].iter().any(|(other, _)| other == name) {
                return Err(Refusal::invalid(format!("the header {name:?} is there twice")));
            }
        }
        Ok(())
    }
}

/// Whether a name means the same in HTTP, where the case of letters is lost, as everywhere else.
fn is_header_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (1..=HEADER_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &NewMessage) -> String {
        message.check(10).unwrap_err().detail
    }

    fn with_headers(headers: &[(&str, &str)]) -> NewMessage {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        NewMessage { headers: headers.iter().map(owned).collect(), ..NewMessage::default() }
    }

    #[test]
    fn what_can_be_published() {
        let body = |length| NewMessage { body: vec![0; length].into(), ..NewMessage::default() };
        assert_eq!(body(10).check(10), Ok(()));
        let refusal = body(11).check(10).unwrap_err();
        assert_eq!(refusal.code, Code::TooLarge);
        assert!(refusal.detail.contains("11 bytes; at most 10"), "{refusal}");
        let kind = |text: &str| NewMessage {
            content_type: Some(text.to_owned()),
            ..NewMessage::default()
        };
        assert_eq!(kind("text/plain; charset=utf-8").check(10), Ok(()));
        for wrong in ["a\nb", &"x".repeat(256)] {
            assert!(refused(&kind(wrong)).contains("content type"));
        }
    }

    #[test]
    fn headers_are_bounded() {
        assert_eq!(with_headers(&[("trace-id", "à 1"), ("b_c.d", "")]).check(10), Ok(()));
        let long = "x".repeat(HEADER_BYTES_MAX);
        let many: Vec<_> = (0..=HEADERS_MAX).map(|n| (format!("h{n}"), String::new())).collect();
        let many = NewMessage { headers: many, ..NewMessage::default() };
        assert!(refused(&many).contains("more than 50"));
        for (headers, why) in [
            (&[("", "a")][..], "name of 1 to 253"),
            (&[("Upper", "a")], "\"Upper\""),
            (&[("a b", "a")], "\"a b\""),
            (&[("a", "line\nbreak")], "control character"),
            (&[("a", "1"), ("a", "2")], "twice"),
            (&[("a", &*long)], "at most 16384"),
        ] {
            assert!(refused(&with_headers(headers)).contains(why), "{headers:?}");
        }
    }
}

//! What an answer means.

use std::fmt;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::value::RawValue;
use url::{Position, Url};

use super::payload::has_userinfo;
use crate::tasks::handler::Failure;

/// Bytes of an answer's body that an error shows at most.
const SHOWN_BODY: usize = 200;

/// What a service answered in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status, from 200 to 299.
    pub(crate) status: u16,
    /// As much of the body as `tasks.http_response_bytes_max` allows. What was not UTF-8 is U+FFFD,
    /// and U+0000 may be in it.
    pub(crate) body: String,
}

impl Answer {
    /// As PostgreSQL can keep it: it has no U+0000.
    pub(super) fn to_json(&self) -> Box<RawValue> {
        let body = self.body.replace('\0', "\u{fffd}");
        let json = serde_json::json!({ "status": self.status, "body": body });
        serde_json::value::to_raw_value(&json).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }

    /// Itself if its status means that the request is done, else what that means for the task.
    pub(super) fn judge(self, request: &Shown<'_>) -> Result<Self, Failure> {
        let failure = match self.status {
            200..=299 => return Ok(self),
            408 | 425 | 429 | 500..=599 => Failure::Retry,
            _ => Failure::Reject,
        };
        Err(failure(self.describe(request)))
    }

    fn describe(&self, request: &Shown<'_>) -> String {
        let mut text = format!("{request}: {}", self.status);
        let status = StatusCode::from_u16(self.status).ok();
        if let Some(reason) = status.and_then(|status| status.canonical_reason()) {
            text.push(' ');
            text.push_str(reason);
        }
        if !self.body.is_empty() {
            text.push_str(": ");
            text.push_str(&excerpt(&self.body));
        }
        text
    }
}

/// The beginning of a text, without characters that are not to be seen.
fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    for character in text[..text.floor_char_boundary(SHOWN_BODY)].chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// A request for a person: its method and its URL, without what is secret in a URL.
pub(super) struct Shown<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a Url,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, plain(self.url))
    }
}

/// A URL's scheme, host and port. Many services are called at a path that is secret.
fn plain(url: &Url) -> String {
    let (scheme, authority) = (url.scheme(), &url[Position::BeforeHost..Position::AfterPort]);
    let path = if url.path() == "/" { "/" } else { "/…" };
    format!("{scheme}://{authority}{path}")
}

/// Where an answer sends its request; nowhere if it is an answer like any other.
///
/// A redirection is followed if the method stays as it is, and within the same scheme, host and
/// port only. The error says where else it leads.
pub(super) fn redirection(
    method: &Method,
    url: &Url,
    status: StatusCode,
    location: Option<&HeaderValue>,
) -> Result<Option<Url>, String> {
    let is_followed = match status.as_u16() {
        307 | 308 => true,
        301..=303 => *method == Method::GET || *method == Method::HEAD,
        _ => false,
    };
    let location = location.filter(|_| is_followed).and_then(|location| location.to_str().ok());
    let Some(mut next) = location.and_then(|location| url.join(location).ok()) else {
        return Ok(None);
    };
    if next.origin() != url.origin() || has_userinfo(&next) {
        let next = plain(&next);
        return Err(format!("{status}, to {next}: other hosts are not followed to"));
    }
    next.set_fragment(None);
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_status_means() {
        let (method, url) = (Method::POST, url("http://a/"));
        let request = Shown { method: &method, url: &url };
        for status in 100..=999 {
            let judged = Answer { status, body: String::new() }.judge(&request);
            match status {
                200..=299 => assert_eq!(judged.unwrap().status, status),
                408 | 425 | 429 | 500..=599 => {
                    assert!(matches!(judged, Err(Failure::Retry(_))), "{status}: {judged:?}");
                }
                _ => assert!(matches!(judged, Err(Failure::Reject(_))), "{status}: {judged:?}"),
            }
        }
    }

    #[test]
    fn what_an_error_says() {
        let check = |status: u16, address: &str, body: &str, want: &str| {
            let (method, url) = (Method::PUT, url(address));
            let answer = Answer { status, body: body.to_owned() };
            let error = answer.judge(&Shown { method: &method, url: &url }).unwrap_err();
            assert_eq!(error.to_string(), want);
        };
        check(404, "http://u:p@a:81/b?c#d", "", "PUT http://a:81/…: 404 Not Found");
        check(503, "https://a:443", "x", "PUT https://a/: 503 Service Unavailable: x");
        check(799, "http://[::1]/", "", "PUT http://[::1]/: 799");
        let body = "{\"a\":\"\\n'é\"}\r\n\0\u{1b}[31m\u{202e}";
        let shown = "{\"a\":\"\\n'é\"}\\r\\n\\0\\u{1b}[31m\\u{202e}";
        check(400, "http://a/", body, &format!("PUT http://a/: 400 Bad Request: {shown}"));
        let (long, cut) = (format!("x{}", "é".repeat(200)), format!("x{}", "é".repeat(99)));
        check(400, "http://a/", &long, &format!("PUT http://a/: 400 Bad Request: {cut}"));
    }

    #[test]
    fn where_an_answer_sends_its_request() {
        let check = |method: &Method, status: u16, location: Option<&str>, want: Option<&str>| {
            let location = location.map(|location| HeaderValue::from_str(location).unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            let found = redirection(method, &url("http://a:81/b/c?d"), status, location.as_ref());
            assert_eq!(found, Ok(want.map(url)), "{method} {status} {location:?}");
        };
        let (there, next) = (Some("/x?y#z"), Some("http://a:81/x?y"));
        for method in [Method::GET, Method::HEAD] {
            for status in [301, 302, 303, 307, 308] {
                check(&method, status, there, next);
            }
            for status in [200, 201, 300, 304, 305, 306, 400] {
                check(&method, status, there, None);
            }
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            for status in [307, 308] {
                check(&method, status, there, next);
            }
            for status in [201, 300, 301, 302, 303, 304] {
                check(&method, status, there, None);
                check(&method, status, Some("http://b/"), None);
            }
        }
        let get = |location: &str, want| check(&Method::GET, 302, Some(location), want);
        get("x", Some("http://a:81/b/x"));
        get("", Some("http://a:81/b/c?d"));
        get("HTTP://A:81", Some("http://a:81/"));
        get("//a:81/x", Some("http://a:81/x"));
        get("http://a:0x1/", None);
        check(&Method::GET, 302, None, None);
    }

    #[test]
    fn where_it_is_not_followed() {
        let check = |location: &str, says: &str| {
            let location = HeaderValue::from_str(location).unwrap();
            let (status, from) = (StatusCode::PERMANENT_REDIRECT, url("http://a:81/b"));
            let error = redirection(&Method::POST, &from, status, Some(&location)).unwrap_err();
            assert_eq!(
                error,
                format!("308 Permanent Redirect, to {says}: other hosts are not followed to")
            );
        };
        check("http://b:81/x?y", "http://b:81/…");
        check("http://a/", "http://a/");
        check("https://a:81/", "https://a:81/");
        check("//b", "http://b/");
        check("http://u:p@a:81/", "http://a:81/");
        check("http://a:81@b/", "http://b/");
        check("ftp://a:81/", "ftp://a:81/");
        check("data:,x", "data:///…");
    }
}

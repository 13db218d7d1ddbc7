//! What a task asks for, parsed and checked.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use platziverse_protocol::task::Task;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use crate::tasks::handler::{self, Failure};

/// Headers that one request has at most.
const HEADERS_MAX: usize = 100;

/// A request that is to be sent.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// `http` or `https`, without userinfo and fragment.
    pub(super) url: Url,
    /// Those that the task gives.
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// How long it may take, more than zero.
    pub(super) timeout: Option<Duration>,
}

impl Call {
    /// Reads a task's payload. The value of a header is in no error.
    pub(super) fn of(task: &Task) -> Result<Self, Failure> {
        let refused = |why: String| Failure::Reject(format!("the payload of {}: {why}", task.name));
        // Serde takes an array for a struct too.
        if !task.payload.get().trim_start().starts_with('{') {
            return Err(refused("it is not an object".to_owned()));
        }
        handler::payload::<Wire>(task)?.check().map_err(refused)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    url: String,
    #[serde(default)]
    method: Verb,
    // Not a map of text: serde's errors would show a value.
    #[serde(default)]
    headers: Value,
    #[serde(default)]
    body: Option<Box<RawValue>>,
    #[serde(default)]
    timeout: Value,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Get,
    Head,
    #[default]
    Post,
    Put,
    Patch,
    Delete,
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GET,
            Verb::Head => Self::HEAD,
            Verb::Post => Self::POST,
            Verb::Put => Self::PUT,
            Verb::Patch => Self::PATCH,
            Verb::Delete => Self::DELETE,
        }
    }
}

impl Wire {
    fn check(self) -> Result<Call, String> {
        Ok(Call {
            method: self.method.into(),
            url: parse_url(&self.url)?,
            headers: parse_headers(self.headers)?,
            body: self.body.map(|body| String::from(Box::<str>::from(body)).into()),
            timeout: parse_timeout(&self.timeout)?,
        })
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("url: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("url: it is neither http nor https".to_owned());
    }
    if has_userinfo(&url) {
        return Err("url: it has a user name or a password; they belong in a header".to_owned());
    }
    url.set_fragment(None);
    uri(&url)?;
    Ok(url)
}

/// Whether a URL has a user name or a password.
pub(super) fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// A URL as a request has it; one that is too long has none.
pub(super) fn uri(url: &Url) -> Result<Uri, String> {
    Uri::try_from(url.as_str()).map_err(|error| format!("url: {error}"))
}

fn parse_headers(given: Value) -> Result<HeaderMap, String> {
    let given = match given {
        Value::Null => return Ok(HeaderMap::new()),
        Value::Object(given) => given,
        _ => return Err("headers: it is not an object".to_owned()),
    };
    if given.len() > HEADERS_MAX {
        return Err(format!("headers: there are {}, and at most {HEADERS_MAX}", given.len()));
    }
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        // What is no name may be a whole header.
        let name = HeaderName::try_from(name)
            .map_err(|_| "headers: a name is empty or has a wrong character".to_owned())?;
        if is_ours(&name) {
            return Err(format!("headers: {name} cannot be given"));
        }
        let Value::String(value) = value else {
            return Err(format!("headers: the value of {name} is not text"));
        };
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| format!("headers: the value of {name} has a wrong character"))?;
        value.set_sensitive(true);
        if headers.insert(&name, value).is_some() {
            return Err(format!("headers: {name} is there twice"));
        }
    }
    Ok(headers)
}

/// Whether a header is about the connection or the message's length, which are the client's.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "host"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn parse_timeout(given: &Value) -> Result<Option<Duration>, String> {
    let timeout = match given {
        Value::Null => return Ok(None),
        Value::String(text) => humantime::parse_duration(text).ok(),
        Value::Number(seconds) => {
            seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        }
        _ => None,
    };
    match timeout.filter(|timeout| !timeout.is_zero()) {
        Some(timeout) => Ok(Some(timeout)),
        None => {
            Err("timeout: it is no number of seconds above 0, and no text such as \"5s\"".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &str) -> Result<Call, Failure> {
        let task = format!(r#"{{"kind":"command","name":"http.request","payload":{payload}}}"#);
        Call::of(&Task::parse(task.as_bytes()).unwrap())
    }

    #[test]
    fn whole() {
        let call = parse(
            r#" {"url":"HTTPS://Example.COM:443/a b?q=1#f","method":"PATCH","timeout":"1s 500ms",
                "headers":{"X-A":"b","content-type":"text/plain"},"body":{"z": 1.50, "a": []}}"#,
        )
        .unwrap();
        assert_eq!(call.method, Method::PATCH);
        assert_eq!(call.url.as_str(), "https://example.com/a%20b?q=1");
        assert_eq!(call.headers["x-a"], "b");
        assert_eq!(call.headers.len(), 2);
        assert_eq!(call.body.unwrap(), r#"{"z": 1.50, "a": []}"#, "as it was sent");
        assert_eq!(call.timeout, Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn the_least() {
        for payload in [
            r#"{"url":"http://127.1"}"#,
            r#"{"url":"http://0x7f000001/","headers":null,"body":null,"timeout":null}"#,
        ] {
            let call = parse(payload).unwrap();
            assert_eq!((call.method, call.url.as_str()), (Method::POST, "http://127.0.0.1/"));
            assert_eq!((call.headers.len(), call.body, call.timeout), (0, None, None));
        }
        let body = |text| parse(text).unwrap().body.unwrap();
        assert_eq!(body(r#"{"url":"http://a","body":false}"#), "false");
        assert_eq!(body(r#"{"url":"http://a","body":"é"}"#), "\"é\"");
    }

    #[test]
    fn methods() {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let call = parse(&format!(r#"{{"url":"http://a","method":"{method}"}}"#)).unwrap();
            assert_eq!(call.method, method);
        }
    }

    #[test]
    fn timeouts() {
        let check = |timeout: &str, millis: u64| {
            let call = parse(&format!(r#"{{"url":"http://a","timeout":{timeout}}}"#)).unwrap();
            assert_eq!(call.timeout, Some(Duration::from_millis(millis)), "{timeout}");
        };
        check("5", 5_000);
        check("0.25", 250);
        check("\"5s\"", 5_000);
        check("\"1m\"", 60_000);
    }

    #[test]
    fn refused() {
        let check = |payload: &str, says: &str| match parse(payload).unwrap_err() {
            Failure::Reject(text) => {
                assert!(text.starts_with("the payload of http.request: "), "{payload}: {text}");
                assert!(text.contains(says), "{payload}: {text}");
                assert!(!text.contains("secret"), "{payload}: {text}");
            }
            other => panic!("{payload}: {other:?}"),
        };
        check("null", "it is not an object");
        check(r#"["http://a"]"#, "it is not an object");
        check("{}", "missing field `url`");
        check(r#"{"url":"http://a","verb":"GET"}"#, "unknown field `verb`");
        check(r#"{"url":"http://a","method":"post"}"#, "unknown variant `post`, expected one of");
        check(r#"{"url":"http://a","method":"TRACE"}"#, "unknown variant");
        check(r#"{"url":"/a"}"#, "url: relative URL");
        check(r#"{"url":"http://"}"#, "url: empty host");
        check(r#"{"url":"ftp://a/secret"}"#, "neither http nor https");
        check(r#"{"url":"http://u:secret@a/"}"#, "user name or a password");
        check(r#"{"url":"http://secret@a/"}"#, "user name or a password");
        check(&format!(r#"{{"url":"http://a/{}"}}"#, "x".repeat(70_000)), "url: ");
        for timeout in ["0", "-1", "1e300", "true", "\"5\"", "\"0s\"", "\"soon\"", "[]"] {
            check(&format!(r#"{{"url":"http://a","timeout":{timeout}}}"#), "timeout: it is no");
        }
    }

    #[test]
    fn refused_headers() {
        let check = |headers: &str, says: &str| {
            let error = parse(&format!(r#"{{"url":"http://a","headers":{headers}}}"#)).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Failure::Reject(_)), "{text}");
            assert!(text.contains(says), "{headers}: {text}");
            assert!(!text.contains("secret") && !text.contains("99"), "{headers}: {text}");
        };
        check(r#""x: secret""#, "it is not an object");
        check(r#"["secret"]"#, "it is not an object");
        check(r#"{"x: secret":""}"#, "a name is empty or has");
        check(r#"{"":"secret"}"#, "a name is empty or has");
        check(r#"{"x":99}"#, "the value of x is not text");
        check(r#"{"x":["secret"]}"#, "the value of x is not text");
        check(r#"{"x":"secret\r\ny: z"}"#, "the value of x has a wrong character");
        check(r#"{"x":"secret","X":"secret"}"#, "x is there twice");
        for name in [
            "Host",
            "content-length",
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
        ] {
            check(&format!(r#"{{"{name}":"secret"}}"#), "cannot be given");
        }
        let many: Vec<String> = (0..101).map(|n| format!(r#""x{n}":"""#)).collect();
        check(&format!("{{{}}}", many.join(",")), "there are 101, and at most 100");
    }
}

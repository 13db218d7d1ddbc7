//! What requests say, read strictly, and refused in words.

use std::fmt;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

use crate::core::{Caller, Code, Refusal};
use crate::http::{Api, Problem, Shelf, body};

/// Bytes of JSON in a request.
const JSON_BYTES_MAX: usize = 16_384;

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(caller(&parts.headers)?)
    }
}

pub(crate) fn caller(headers: &HeaderMap) -> Result<Caller, Refusal> {
    let wrong = |detail: &str| Refusal::new(Code::UnknownKey, detail);
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err(wrong("the header Authorization is missing; send Authorization: Bearer KEY"));
    };
    let key = value.to_str().ok().and_then(|value| value.split_once(' '));
    let key = key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
    match key.map(|(_, key)| key.trim()) {
        Some(key) if !key.is_empty() => Ok(Caller::of(key)),
        _ => {
            Err(wrong("the header Authorization is not understood; send Bearer, a space, the key"))
        }
    }
}

/// What stands in a path for a name or an id.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = Path::<String>::from_request_parts(parts, state).await;
        let refused = |rejection: PathRejection| {
            Refusal::new(Code::InvalidName, format!("the name in the path: {}", text(&rejection)))
        };
        Ok(Self(named.map_err(refused)?.0))
    }
}

/// What stands after `?`.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        let refused = |rejection: QueryRejection| Refusal::invalid(text(&rejection));
        Ok(Self(asked.map_err(refused)?.0))
    }
}

/// JSON, whatever its content type says: many clients say nothing, or something else.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shelf> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shelf: &Shelf) -> Result<Self, Problem> {
        let Api { bodies, .. } = &shelf.api;
        let held = body::read(request.into_body(), JSON_BYTES_MAX, bodies).await?;
        let read = serde_json::from_slice(&held.bytes);
        let refused =
            |error| Refusal::invalid(format!("the body is not the JSON it should be: {error}"));
        Ok(Self(read.map_err(refused)?))
    }
}

/// An error with its causes, each once.
fn text(error: &dyn std::error::Error) -> String {
    platziverse_service::chain(error)
}

/// A duration: text such as `30s`, or, where it is JSON, a number of milliseconds too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"30s\" or \"500ms\"")
    }

    fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Span, E> {
        Ok(Span(Duration::from_millis(millis)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        let wrong = |_| E::invalid_value(de::Unexpected::Str(text), &self);
        humantime::parse_duration(text).map(Span).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let read = |json: &str| serde_json::from_str::<Span>(json);
        assert_eq!(read("\"30s\"").unwrap(), Span(Duration::from_secs(30)));
        assert_eq!(read("\"1h 30m\"").unwrap(), Span(Duration::from_secs(5_400)));
        assert_eq!(read("\"0\"").unwrap(), Span(Duration::ZERO));
        assert_eq!(read("1500").unwrap(), Span(Duration::from_millis(1_500)));
        for wrong in ["\"30\"", "\"\"", "\"soon\"", "-1", "1.5", "null", "{}"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("such as \"30s\""), "{wrong}: {error}");
        }
    }

    #[test]
    fn keys_are_bearers() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            caller(&headers)
        };
        assert_eq!(read("Bearer pk_1"), Ok(Caller::of("pk_1")));
        assert_eq!(read("bearer  pk_1 "), Ok(Caller::of("pk_1")));
        for wrong in ["pk_1", "Basic pk_1", "Bearer ", "Bearer"] {
            assert_eq!(read(wrong).unwrap_err().code, Code::UnknownKey, "{wrong}");
        }
        assert!(caller(&HeaderMap::new()).unwrap_err().detail.contains("Authorization: Bearer"));
    }
}

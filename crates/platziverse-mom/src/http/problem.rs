//! Refusals as problem details (RFC 9457).

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::core::{Code, Refusal};

/// A refusal, as an answer.
#[derive(Debug)]
pub struct Problem(pub Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(Refusal { code, detail, retry_after }) = self;
        let body = json!({
            "type": format!("urn:platziverse:problem:{code}"),
            "title": code.title(),
            "status": code.status(),
            "detail": detail,
            "code": code.as_str(),
        });
        let status =
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(CONTENT_TYPE, kind)], body.to_string()).into_response();
        let headers = response.headers_mut();
        if code == Code::UnknownKey {
            headers
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"platziverse\""));
        }
        if let Some(wait) = retry_after {
            // Whole seconds, and not before the time.
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            headers
                .insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_shown() {
        let refusal = Refusal::too_many("slower", Duration::from_millis(1_200));
        let response = Problem(refusal).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let wanted = json!({
            "type": "urn:platziverse:problem:too_many_requests", "title": "Too many requests",
            "status": 429, "detail": "slower", "code": "too_many_requests",
        });
        assert_eq!(body, wanted);
        let response = Problem(Refusal::new(Code::UnknownKey, "who?")).into_response();
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer realm=\"platziverse\"");
    }
}

//! The document that describes `/v1`, for programs and for people.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

const PAGE: &str = include_str!("page.html");

/// The page loads nothing but the document.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/`, `/v1/docs` and `/v1/openapi.json`.
pub(super) fn router(document: &str) -> Router {
    let document = Bytes::copy_from_slice(document.as_bytes());
    let page = || async { shown("text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes())) };
    Router::new()
        .route("/", get(page))
        .route("/v1/docs", get(page))
        .route("/v1/openapi.json", get(|| async { shown("application/json", document) }))
}

fn shown(kind: &'static str, text: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

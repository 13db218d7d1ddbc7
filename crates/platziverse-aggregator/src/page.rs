//! The page to try an aggregator in a browser, and the schema of packets.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");
/// Where the page has the names of the channels.
const CHANNELS: &str = "{channels}";
const SCHEMA: &str = include_str!("../packet.schema.json");

/// `/`, a page that speaks with `/ws` beside it, and `/packet.schema.json`. The names of `channels`
/// are of letters, digits and `_`.
pub fn router(channels: &[String]) -> Router {
    let page = Bytes::from(PAGE.replacen(CHANNELS, &channels.join(" "), 1));
    let policy = policy();
    Router::new()
        .route("/", get(|| async { shown("text/html; charset=utf-8", page, policy) }))
        .route(
            "/packet.schema.json",
            get(|| async {
                let nothing =
                    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
                shown("application/schema+json", Bytes::from_static(SCHEMA.as_bytes()), nothing)
            }),
        )
}

/// The page runs its own script and talks to its own server; it loads nothing.
fn policy() -> HeaderValue {
    let [style, script] = ["style", "script"].map(|element| {
        let hash = STANDARD.encode(Sha256::digest(content(element)));
        format!("{element}-src 'sha256-{hash}'")
    });
    let policy = format!(
        "default-src 'none'; {style}; {script}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    // Without a policy nothing would run in the page's name; it has the letters of a header, always.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// What is in the page's element of that name, of which there is one.
fn content(element: &str) -> &'static str {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let (_, rest) = PAGE.split_once(&open).unwrap_or_default();
    rest.split_once(&close).unwrap_or_default().0
}

fn shown(kind: &'static str, text: Bytes, policy: HeaderValue) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_in_itself() {
        for element in ["style", "script"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(content(element).len() > 100, "{element}");
        }
        // What a policy by hashes would refuse.
        for inline in [" style=", " onclick=", " src=", "http://", "https://"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        assert_eq!(PAGE.matches(CHANNELS).count(), 1);
    }

    #[test]
    fn each_field_has_a_label() {
        for field in ["<input ", "<select ", "<textarea "] {
            for element in PAGE.split(field).skip(1) {
                let element = element.split('>').next().unwrap();
                let id = element.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
                let id = id.unwrap_or_else(|| panic!("{field}{element} has no id"));
                assert!(PAGE.contains(&format!("<label for=\"{id}\">")), "{id} has no label");
            }
        }
    }

    #[test]
    fn the_policy_allows_only_what_is_there() {
        let policy = policy();
        let policy = policy.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

//! How a client gets its WebSocket, or is told why not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, RETRY_AFTER};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use platziverse_protocol::time::Timestamp;
use platziverse_service::clock;
use platziverse_service::listener::Peer;
use serde::Deserialize;
use tokio::time::Instant;

use crate::auth::Known;
use crate::core::Core;
use crate::doors::Seat;
use crate::packet::SUBPROTOCOL;
use crate::page;
use crate::session::{self, Return};

/// The start of a subprotocol that is a token: scripts in browsers can show it in no other way.
const BEARER: &str = "bearer.";
/// Bytes that a socket reads at a time: each holds so many while it is open.
const READ_BYTES: usize = 4_096;
/// Bytes of packets that are written together.
const WRITE_BYTES: usize = 16_384;

/// What the address of a WebSocket says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    /// What a client without a token would like to be called.
    client: Option<String>,
    /// The token of the session that it comes back to.
    resume: Option<String>,
    /// The last message that it has of each source: `OUT_CHAT:12,OUT_VOICE:3`.
    offsets: Option<String>,
}

/// Everything there is.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let page = page::router(&core.settings.channels);
    Router::new().route("/ws", get(open)).with_state(core).merge(page)
}

async fn open(
    State(core): State<Arc<Core>>,
    Extension(Peer(peer)): Extension<Peer>,
    wishes: Result<Query<Wishes>, QueryRejection>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let status = rejection.into_response().status();
            return refused(status, "this is a WebSocket: connect to it with ws:// or wss://");
        }
    };
    let wishes = match wishes {
        Ok(Query(wishes)) => wishes,
        Err(error) => {
            let detail = format!("the address may have client, resume and offsets: {error}");
            return refused(StatusCode::BAD_REQUEST, &detail);
        }
    };
    match admitted(&core, peer.ip(), &wishes, &headers, &upgrade) {
        Ok((seat, back)) => begin(core, upgrade, seat, back),
        Err((status, why)) => refused(status, &why),
    }
}

type Refusal = (StatusCode, String);

/// Whether the client may connect: its seat, and what it comes back to.
fn admitted(
    core: &Arc<Core>,
    from: IpAddr,
    wishes: &Wishes,
    headers: &HeaderMap,
    upgrade: &WebSocketUpgrade,
) -> Result<(Seat, Return), Refusal> {
    if core.drain.is_requested() {
        let why = "this aggregator is about to end: connect to another one".to_owned();
        return Err((StatusCode::SERVICE_UNAVAILABLE, why));
    }
    let asked: Vec<&str> =
        upgrade.requested_protocols().filter_map(|name| name.to_str().ok()).collect();
    let token = shown_token(headers, &asked);
    if !is_allowed(headers, &core.settings.origins, token.is_some()) {
        let why = "pages of this origin may not connect (aggregator.origins)".to_owned();
        return Err((StatusCode::FORBIDDEN, why));
    }
    if asked.iter().any(|name| !name.starts_with(BEARER)) && !asked.contains(&SUBPROTOCOL) {
        let why = format!("there is no such subprotocol: this aggregator speaks {SUBPROTOCOL}");
        return Err((StatusCode::BAD_REQUEST, why));
    }
    let back = wishes.resume.as_deref().and_then(|token| core.signer.session(token));
    // Whoever shows a session's token without any other goes on under its name.
    let wish = wishes.client.as_deref().or(back.as_ref().map(|session| session.client.as_str()));
    let known = core.authenticator.client(token, wish, beyond_proxies(from, headers));
    let Known { client, until } =
        known.map_err(|stranger| (StatusCode::UNAUTHORIZED, stranger.to_string()))?;
    let offsets = offsets(wishes.offsets.as_deref()).ok_or_else(|| {
        let why = "offsets are written as OUT_CHAT:12,OUT_VOICE:3".to_owned();
        (StatusCode::BAD_REQUEST, why)
    })?;
    let seat = core.doors.open(&client, from);
    let seat = seat.map_err(|crowded| (StatusCode::TOO_MANY_REQUESTS, crowded.to_string()))?;
    let is_asked = wishes.resume.is_some();
    let session = back.filter(|back| back.client == client);
    Ok((seat, Return { session, offsets, is_asked, until: until.and_then(moment) }))
}

/// Where a client is, as far as that lets it in without a token: behind a proxy, nowhere near.
fn beyond_proxies(from: IpAddr, headers: &HeaderMap) -> IpAddr {
    let is_forwarded = ["forwarded", "x-forwarded-for", "via"];
    match is_forwarded.iter().any(|name| headers.contains_key(*name)) {
        true => IpAddr::from([0, 0, 0, 0]),
        false => from,
    }
}

/// Whether the address that was connected to has no name but `localhost`.
fn names_an_address(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let host = host.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
    })
}

/// When it is so late.
fn moment(time: Timestamp) -> Option<Instant> {
    let left = time.as_millis().saturating_sub(clock::now().as_millis()).max(0);
    Instant::now().checked_add(Duration::from_millis(left.unsigned_abs()))
}

/// The token that a client shows, in a header or as a subprotocol.
fn shown_token<'a>(headers: &'a HeaderMap, asked: &[&'a str]) -> Option<&'a str> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.or_else(|| asked.iter().find_map(|name| name.strip_prefix(BEARER)))
}

/// Whether the page whose script connects, if it is one, may do so. A page of the aggregator's own
/// may, but without a token only where that is addressed without a name: whoever made another page
/// may have made its name lead here.
fn is_allowed(headers: &HeaderMap, origins: &[String], shows_token: bool) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own = origin.split_once("://").is_some_and(|(_, host)| Some(host) == own);
    (is_own && (shows_token || names_an_address(headers)))
        || origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

fn offsets(text: Option<&str>) -> Option<Vec<(String, u64)>> {
    let pairs = text.unwrap_or_default().split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (source, offset) = pair.rsplit_once(':')?;
            Some((source.to_owned(), offset.parse().ok()?))
        })
        .collect()
}

fn refused(status: StatusCode, why: &str) -> Response {
    let mut answer = (status, format!("{why}\n")).into_response();
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn begin(core: Arc<Core>, upgrade: WebSocketUpgrade, seat: Seat, back: Return) -> Response {
    let bytes_max = core.settings.packet_bytes_max;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max)
        .on_failed_upgrade(|error| tracing::debug!("a WebSocket was not opened: {error}"));
    upgrade.on_upgrade(|socket| async move {
        let drain = core.drain.clone();
        // As a task that the end of the process waits for.
        drain.spawn_isolated(session::run(core, socket, seat, back));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(host: &'static str, origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn origins_are_looked_at() {
        let origins = vec!["https://app.example.com".to_owned()];
        for (origin, wanted) in [
            (None, true),
            (Some("http://here:8081"), true),
            (Some("https://app.example.com"), true),
            (Some("https://app.example.com.evil"), false),
            (Some("http://here:8082"), false),
            (Some("null"), false),
        ] {
            let headers = page("here:8081", origin);
            assert_eq!(is_allowed(&headers, &origins, true), wanted, "{origin:?}");
        }
        let headers = page("here:8081", Some("null"));
        assert!(is_allowed(&headers, &["*".to_owned()], false));
    }

    #[test]
    fn a_page_that_gives_this_machine_a_name_is_not_its_own() {
        for (host, origin, is_own) in [
            ("localhost:8081", "http://localhost:8081", true),
            ("127.0.0.1:8081", "http://127.0.0.1:8081", true),
            ("[::1]:8081", "http://[::1]:8081", true),
            ("localhost.evil.com:8081", "http://localhost.evil.com:8081", false),
            ("127.0.0.1.evil.com", "http://127.0.0.1.evil.com", false),
        ] {
            let headers = page(host, Some(origin));
            assert_eq!(is_allowed(&headers, &[], false), is_own, "{host}");
            assert!(is_allowed(&headers, &[], true), "{host} with a token");
            assert!(is_allowed(&headers, &[origin.to_owned()], false), "{host}, which is named");
        }
    }

    #[test]
    fn who_comes_through_a_proxy_is_not_on_this_machine() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let mut headers = HeaderMap::new();
        assert_eq!(beyond_proxies(here, &headers), here);
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.7"));
        assert!(!beyond_proxies(here, &headers).is_loopback());
    }

    #[test]
    fn tokens_are_found_in_both_places() {
        let mut headers = HeaderMap::new();
        assert_eq!(shown_token(&headers, &[SUBPROTOCOL, "bearer.abc"]), Some("abc"));
        assert_eq!(shown_token(&headers, &[SUBPROTOCOL]), None);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer  xyz"));
        assert_eq!(shown_token(&headers, &[SUBPROTOCOL, "bearer.abc"]), Some("xyz"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic xyz"));
        assert_eq!(shown_token(&headers, &[]), None);
    }

    #[test]
    fn offsets_are_read_whole_or_not_at_all() {
        let read = |text| offsets(Some(text));
        assert_eq!(offsets(None), Some(vec![]));
        assert_eq!(read("OUT_A:1"), Some(vec![("OUT_A".to_owned(), 1)]));
        for wrong in ["OUT_A", "OUT_A:-1", "OUT_A:x", "OUT_A:1,OUT_B"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

//! Requests to real servers on the loopback interface.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::stream::{self, StreamExt as _};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

const ID: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);

/// A service. Dropping it closes all connections.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let router = Router::new()
            .route("/echo", any(echo))
            .route("/status/{status}", any(status))
            .route("/redirect/{status}", any(redirect))
            .route("/hops/{left}", any(hops))
            .route("/never", any(std::future::pending::<()>))
            .route("/endless", any(async || body_of(stream::repeat(chunk()))))
            .route("/stuck", any(stuck))
            .layer(axum::middleware::map_request_with_state(
                Arc::clone(&requests),
                async |State(requests): State<Arc<AtomicUsize>>,
                       request: axum::extract::Request| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    request
                },
            ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, requests, _task: task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// What it was sent.
async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: String) -> String {
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let headers: serde_json::Map<_, Value> =
        headers.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let uri = uri.to_string();
    json!({"method": method.as_str(), "uri": uri, "headers": headers, "body": body}).to_string()
}

async fn status(Path(status): Path<u16>) -> (StatusCode, &'static str) {
    (StatusCode::from_u16(status).unwrap(), "as\ntold")
}

/// Sends a request to where its query says.
async fn redirect(Path(status): Path<u16>, uri: Uri) -> Response {
    let location = uri.query().unwrap_or_default().to_owned();
    (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, location)]).into_response()
}

/// Sends a request around, a number of times.
async fn hops(Path(left): Path<usize>) -> Response {
    match left.checked_sub(1) {
        Some(left) => {
            let location = format!("/hops/{left}");
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
        }
        None => "there".into_response(),
    }
}

/// Begins to answer.
async fn stuck() -> Body {
    body_of(stream::iter([chunk()]).chain(stream::pending()))
}

fn chunk() -> Result<Bytes, Infallible> {
    Ok(Bytes::from_static(&[b'x'; 1_000]))
}

fn body_of(chunks: impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Body {
    Body::from_stream(chunks)
}

fn settings(allow: &[&str]) -> TasksConfig {
    TasksConfig {
        http_allow: allow.iter().map(|pattern| pattern.parse().unwrap()).collect(),
        http_allow_private: true,
        http_timeout: Duration::from_secs(30),
        http_response_bytes_max: 2_500,
        ..TasksConfig::default()
    }
}

fn handler(settings: &TasksConfig) -> HttpRequest {
    HttpRequest::with_roots(settings, RootCertStore::empty())
}

async fn ask(handler: &HttpRequest, payload: Value) -> Result<Answer, Failure> {
    let task = json!({"kind": "command", "name": "http.request", "payload": payload}).to_string();
    handler.call(ID, &Call::of(&Task::parse(task.as_bytes()).unwrap())?).await
}

/// Asks a handler that may call the loopback interface.
async fn answered(payload: Value) -> Result<Answer, Failure> {
    ask(&handler(&settings(&["127.0.0.1"])), payload).await
}

#[track_caller]
fn assert_retry(ended: Result<Answer, Failure>, says: &str) {
    match ended {
        Err(Failure::Retry(text)) if text.contains(says) => {}
        other => panic!("not {says:?}: {other:?}"),
    }
}

#[track_caller]
fn assert_reject(ended: Result<Answer, Failure>, says: &str) {
    match ended {
        Err(Failure::Reject(text)) if text.contains(says) => {}
        other => panic!("not {says:?}: {other:?}"),
    }
}

/// What a service got, of a request with `payload`.
async fn sent(payload: Value) -> Value {
    let answer = answered(payload).await.unwrap();
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn what_is_sent() {
    let server = Server::start().await;
    let got = sent(json!({"url": server.url("/echo?a=b#c"), "body": {"a": [1.5, "é"]}})).await;
    assert_eq!((&got["method"], &got["uri"]), (&json!("POST"), &json!("/echo?a=b")));
    assert_eq!(got["body"], r#"{"a":[1.5,"é"]}"#);
    let want = json!({
        "content-length": "16",
        "content-type": "application/json",
        "host": server.address.to_string(),
        "idempotency-key": ID.to_string(),
        "user-agent": format!("platziverse/{}", env!("CARGO_PKG_VERSION")),
    });
    assert_eq!(got["headers"], want);

    let headers = json!({"Idempotency-Key": "k", "User-Agent": "u", "Content-Type": "c", "X": "x"});
    let payload =
        json!({"url": server.url("/echo"), "method": "PUT", "headers": headers, "body": 1});
    let got = sent(payload).await;
    assert_eq!((&got["method"], &got["body"]), (&json!("PUT"), &json!("1")));
    for (name, value) in
        [("idempotency-key", "k"), ("user-agent", "u"), ("content-type", "c"), ("x", "x")]
    {
        assert_eq!(got["headers"][name], value);
    }

    let got = sent(json!({"url": server.url("/echo")})).await;
    assert_eq!((&got["method"], &got["body"]), (&json!("POST"), &json!("")));
    assert_eq!(got["headers"]["content-length"], "0");
    assert_eq!(got["headers"]["content-type"], Value::Null);

    let got = sent(json!({"url": server.url("/echo"), "method": "GET"})).await;
    assert_eq!((&got["method"], &got["headers"]["content-length"]), (&json!("GET"), &Value::Null));
    let got = sent(json!({"url": server.url("/echo"), "method": "GET", "body": []})).await;
    assert_eq!((&got["body"], &got["headers"]["content-length"]), (&json!("[]"), &json!("2")));
}

#[tokio::test]
async fn what_a_status_has_come_of_a_task() {
    let server = Server::start().await;
    let status = async |status: u16, method: &str| {
        let url = server.url(&format!("/status/{status}?secret"));
        answered(json!({"url": url, "method": method})).await
    };
    let answer = |status, body: &str| Answer { status, body: body.to_owned() };
    assert_eq!(status(200, "POST").await, Ok(answer(200, "as\ntold")));
    assert_eq!(status(202, "DELETE").await, Ok(answer(202, "as\ntold")));
    assert_eq!(status(204, "GET").await, Ok(answer(204, "")));
    assert_eq!(status(200, "HEAD").await, Ok(answer(200, "")));
    let text = format!("PATCH {}: 503 Service Unavailable: as\\ntold", server.url("/…"));
    assert_eq!(status(503, "PATCH").await, Err(Failure::Retry(text)));
    let text = format!("POST {}: 409 Conflict: as\\ntold", server.url("/…"));
    assert_eq!(status(409, "POST").await, Err(Failure::Reject(text)));
    assert_retry(status(429, "GET").await, "429");
    assert_reject(status(304, "GET").await, "304");
}

#[tokio::test]
async fn what_is_followed() {
    let server = Server::start().await;
    let payload = json!({"url": server.url("/redirect/307?/echo"), "body": [1], "method": "PUT"});
    let got = sent(payload).await;
    assert_eq!((&got["method"], &got["uri"]), (&json!("PUT"), &json!("/echo")));
    assert_eq!((&got["body"], &got["headers"]["content-length"]), (&json!("[1]"), &json!("3")));
    assert_eq!(got["headers"]["idempotency-key"], ID.to_string());

    let url = server.url(&format!("/redirect/302?{}", server.url("/echo")));
    assert_eq!(sent(json!({"url": url, "method": "GET"})).await["uri"], "/echo");
    assert_reject(answered(json!({"url": url, "method": "POST"})).await, "302 Found");

    let five = answered(json!({"url": server.url("/hops/5")})).await;
    assert_eq!(five.unwrap().body, "there");
    let before = server.requests();
    assert_reject(
        answered(json!({"url": server.url("/hops/6")})).await,
        "more than 5 redirections",
    );
    assert_eq!(server.requests() - before, 6);
}

#[tokio::test]
async fn other_hosts_are_not_followed_to() {
    let (server, other) = (Server::start().await, Server::start().await);
    for to in [other.url("/echo"), format!("http://localhost:{}/echo", server.address.port())] {
        let url = server.url(&format!("/redirect/308?{to}"));
        assert_reject(
            answered(json!({"url": url})).await,
            &format!("308 Permanent Redirect, to {}", to.replace("/echo", "/…")),
        );
    }
    assert_eq!((server.requests(), other.requests()), (2, 0));
}

#[tokio::test]
async fn an_answer_that_does_not_end() {
    let server = Server::start().await;
    let answer = answered(json!({"url": server.url("/endless")})).await.unwrap();
    assert_eq!((answer.status, answer.body), (200, "x".repeat(2_500)));
}

#[tokio::test]
async fn an_answer_that_does_not_come() {
    let server = Server::start().await;
    let (url, shown) = (server.url("/never"), server.url("/…"));
    let ended = answered(json!({"url": url, "timeout": 0.1})).await;
    assert_eq!(ended, Err(Failure::Retry(format!("POST {shown}: not done within 100ms"))));
    let short = TasksConfig { http_timeout: Duration::from_millis(50), ..settings(&["127.0.0.1"]) };
    let ended = ask(&handler(&short), json!({"url": url, "timeout": "1h"})).await;
    assert_retry(ended, "not done within 50ms");
    let ended = answered(json!({"url": server.url("/stuck"), "timeout": "100ms"})).await;
    assert_retry(ended, "not done within 100ms");
}

#[tokio::test]
async fn an_answer_that_is_cut_short() {
    let ended = async |status: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\nabc");
        let answering = async { answer_once(listener.accept().await.unwrap().0, &answer).await };
        tokio::join!(answered(json!({"url": url})), answering).0
    };
    assert_retry(ended("200 OK").await, "200 OK, then: ");
    assert_reject(ended("404 Not Found").await, "404 Not Found: abc");
}

#[tokio::test]
async fn trouble_on_the_network() {
    // Bound, so that nobody else gets it, and not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/?secret", socket.local_addr().unwrap());
    assert_retry(answered(json!({"url": url})).await, "Connection refused");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut closing = JoinSet::new();
    closing.spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    assert_retry(answered(json!({"url": url})).await, "");

    let unknown = handler(&settings(&["*.invalid"]));
    let payload = json!({"url": "http://platziverse.invalid/", "timeout": 5});
    assert_retry(ask(&unknown, payload).await, "http://platziverse.invalid/: ");
}

#[tokio::test]
async fn hosts_that_are_not_allowed() {
    let server = Server::start().await;
    let port = server.address.port();
    let check = async |allow: &[&str], host: &str, says: &str| {
        let url = format!("http://{host}:{port}/echo");
        let ended = ask(&handler(&settings(allow)), json!({"url": url})).await;
        assert_reject(ended, says);
    };
    let says = format!("tasks.http_allow does not allow 127.0.0.1:{port}");
    check(&[], "127.0.0.1", &says).await;
    check(&["localhost", "127.0.0.2", "127.0.0.1:1"], "127.0.0.1", &says).await;
    check(&["localhost"], "127.1", &says).await;
    check(&["127.0.0.1"], "localhost", "tasks.http_allow does not allow localhost:").await;
    check(&["127.0.0.1"], "localhost.", "tasks.http_allow does not allow localhost.:").await;
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn addresses_that_are_not_public() {
    let server = Server::start().await;
    let port = server.address.port();
    let hosts = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"];
    let careful = TasksConfig { http_allow_private: false, ..settings(&hosts) };
    let careful = handler(&careful);
    for host in hosts {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:{port}/echo");
            assert_reject(ask(&careful, json!({"url": url})).await, "tasks.http_allow_private");
        }
    }
    // Another way to write an address.
    let url = format!("http://0x7f000001:{port}/echo");
    assert_reject(ask(&careful, json!({"url": url})).await, "tasks.http_allow_private");
    assert_eq!(server.requests(), 0);
    let url = format!("http://localhost:{port}/echo");
    assert_eq!(ask(&handler(&settings(&hosts)), json!({"url": url})).await.unwrap().status, 200);
}

#[tokio::test]
async fn with_tls() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = own.cert.der().clone();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        while let Ok((connection, _)) = listener.accept().await {
            // The client turns away from some.
            if let Ok(connection) = acceptor.accept(connection).await {
                let answer = "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nit is";
                answer_once(connection, answer).await;
            }
        }
    });

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let settings = settings(&["localhost", "127.0.0.1"]);
    let trusting = HttpRequest::with_roots(&settings, roots);
    let url = |host: &str| json!({"url": format!("https://{host}:{port}/")});
    let answer = Answer { status: 201, body: "it is".to_owned() };
    assert_eq!(ask(&trusting, url("localhost")).await, Ok(answer));
    assert_retry(ask(&trusting, url("127.0.0.1")).await, "certificate");
    assert_retry(ask(&handler(&settings), url("localhost")).await, "certificate");
}

/// Answers a request without a body, and closes the connection.
async fn answer_once(mut connection: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && connection.read_buf(&mut request).await.unwrap() > 0 {}
    connection.write_all(answer.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
}

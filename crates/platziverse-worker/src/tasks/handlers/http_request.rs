//! `http.request`: a command as a request to a service.

mod address;
mod answer;
mod client;
mod payload;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::net::IpAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use platziverse_config::TasksConfig;
use platziverse_protocol::task::Task;
use platziverse_service::chain;
use rustls::RootCertStore;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};
use uuid::Uuid;

use self::address::{NotPublic, is_public};
use self::answer::{Answer, Shown, redirection};
use self::client::{HttpClient, client, native_roots};
use self::payload::{Call, uri};
use crate::tasks::handler::{Done, Failure, Handler, TaskContext};

/// Redirections that are followed for one request.
const REDIRECTIONS_MAX: usize = 5;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const USER_AGENT: &str = concat!("platziverse/", env!("CARGO_PKG_VERSION"));

/// Sends a request to a service that `tasks.http_allow` names, and is done when the service answers
/// with a status from 200 to 299.
///
/// The payload is an object:
/// - `url`: `http` or `https`, without a user name or a password.
/// - `method`: `GET`, `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`; without it, `POST`.
/// - `headers`: an object of text, at most 100. None that is about the connection, no `Host` and no
///   `Content-Length`.
/// - `body`: any JSON, sent as it stands; nothing is sent if it is absent or null. Its content type
///   is `application/json` unless `headers` has another.
/// - `timeout`: text such as `"5s"`, or seconds: how long the request may take, from the connection
///   to the last byte of the answer and with all redirections. At most, and without it,
///   `tasks.http_timeout`.
///
/// The answer is kept as the command's result: `status`, and `body` as text, as much of it as
/// `tasks.http_response_bytes_max` says, with U+FFFD for what is no text and for U+0000.
///
/// A request is sent again when its task is: each time with the task's id as its `Idempotency-Key`,
/// unless `headers` has another, by which the service can tell.
///
/// The statuses 408, 425, 429 and 5xx, and whatever goes wrong on the network or with TLS, have the
/// task tried again; anything else has it rejected. So have the addresses that are not public,
/// unless `tasks.http_allow_private`. A redirection is followed, at most five times, to the same
/// scheme, host and port; for other methods than `GET` and `HEAD` only 307 and 308 are one.
pub(crate) struct HttpRequest {
    settings: TasksConfig,
    client: Result<HttpClient, rustls::Error>,
}

impl HttpRequest {
    /// With the root certificates of the operating system, which it reads if any host is allowed.
    pub(crate) fn new(settings: &TasksConfig) -> Self {
        let is_used = !settings.http_allow.is_empty();
        let roots = if is_used { native_roots() } else { RootCertStore::empty() };
        Self::with_roots(settings, roots)
    }

    fn with_roots(settings: &TasksConfig, roots: RootCertStore) -> Self {
        Self { settings: settings.clone(), client: client(settings, roots) }
    }

    /// Has a service answer, with a status from 200 to 299.
    async fn call(&self, id: Uuid, call: &Call) -> Result<Answer, Failure> {
        self.check(&call.url).map_err(|why| refused(call, &call.url, &why))?;
        let headers = headers(call, id).map_err(|why| refused(call, &call.url, &why))?;
        let longest = self.settings.http_timeout;
        let timeout = call.timeout.map_or(longest, |timeout| timeout.min(longest));
        let deadline = Instant::now() + timeout;
        let late = || format!("not done within {timeout:?}");
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTIONS_MAX {
            let shown = Shown { method: &call.method, url: &url };
            let retry = |why: String| Failure::Retry(format!("{shown}: {why}"));
            let sending = self.send(call, &url, headers.clone());
            let response = timeout_at(deadline, sending).await.map_err(|_| retry(late()))??;
            let (status, location) = (response.status(), response.headers().get(header::LOCATION));
            let next = redirection(&call.method, &url, status, location);
            if let Some(next) = next.map_err(|why| refused(call, &url, &why))? {
                url = next;
                continue;
            }
            let (mut body, max) = (Vec::new(), self.settings.http_response_bytes_max);
            let reading = timeout_at(deadline, read(response.into_body(), max, &mut body)).await;
            let ended = reading.unwrap_or_else(|_| Err(late()));
            let body = String::from_utf8_lossy(&body).into_owned();
            let answer = Answer { status: status.as_u16(), body }.judge(&shown)?;
            // A status that is no success says enough, whatever is missing of the body.
            return ended.map(|()| answer).map_err(|why| retry(format!("{status}, then: {why}")));
        }
        let why = format!("there are more than {REDIRECTIONS_MAX} redirections");
        Err(refused(call, &url, &why))
    }

    /// Whether a URL may be called, as far as one can tell without resolving its host.
    fn check(&self, url: &Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.settings.http_allow.iter().any(|pattern| pattern.allows(host, port)) {
            return Err(format!("the setting tasks.http_allow does not allow {host}:{port}"));
        }
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            // The resolver checks what it finds.
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.settings.http_allow_private || is_public(address) {
            return Ok(());
        }
        Err(NotPublic { host: host.to_owned(), address }.to_string())
    }

    /// Sends one request, until the headers of its response.
    async fn send(
        &self,
        call: &Call,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => return Err(refused(call, url, &chain(error))),
        };
        let mut request = Request::new(Full::from(call.body.clone().unwrap_or_default()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri(url).map_err(|why| refused(call, url, &why))?;
        *request.headers_mut() = headers;
        client.request(request).await.map_err(|error| {
            // It says no more than that something went wrong.
            let cause = error.source().unwrap_or(&error);
            match not_public(cause) {
                Some(why) => refused(call, url, &why.to_string()),
                None => {
                    let shown = Shown { method: &call.method, url };
                    Failure::Retry(format!("{shown}: {}", chain(cause)))
                }
            }
        })
    }
}

impl Handler for HttpRequest {
    const NAME: &'static str = "http.request";

    async fn handle(&self, task: &Task, context: &TaskContext) -> Result<Done, Failure> {
        let answer = self.call(context.id, &Call::of(task)?).await?;
        Ok(Done::With(answer.to_json()))
    }
}

fn refused(call: &Call, url: &Url, why: &str) -> Failure {
    Failure::Reject(format!("{}: {why}", Shown { method: &call.method, url }))
}

/// The headers of a request, but for those that the client adds.
fn headers(call: &Call, id: Uuid) -> Result<HeaderMap, String> {
    let mut headers = call.headers.clone();
    let id = HeaderValue::try_from(id.to_string()).map_err(|error| error.to_string())?;
    headers.entry(HeaderName::from_static(IDEMPOTENCY_KEY)).or_insert(id);
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
    if call.body.is_some() {
        let json = HeaderValue::from_static("application/json");
        headers.entry(header::CONTENT_TYPE).or_insert(json);
    } else if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) {
        // Some servers want to hear that there is none, and the client does not say it.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    Ok(headers)
}

/// Reads at most `max` bytes of a body; of the rest, nothing.
async fn read(mut body: Incoming, max: usize, into: &mut Vec<u8>) -> Result<(), String> {
    while into.len() < max {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame.map_err(|error| chain(&error))?.into_data() {
            into.extend_from_slice(&data[..data.len().min(max - into.len())]);
        }
    }
    Ok(())
}

/// Whether the resolver is why a request was not sent.
fn not_public<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a NotPublic> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

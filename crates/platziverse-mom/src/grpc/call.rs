//! One call, whatever it asks for: how many there may be, and for how long.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use futures_util::StreamExt as _;
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::{HeaderMap, Request, Response};
use platziverse_service::listener::Peer;
use platziverse_service::{Drain, Service};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tower_service::Service as _;

use crate::core::{Code, Core, Refusal};
use crate::grpc::inflow::{Check, Inflow};
use crate::http::{caller, farewell};

/// Bytes of requests that are held at a time, until RabbitMQ has them.
const BYTES_MAX: usize = 64 * 1_048_576;
/// How much longer than a consumer may wait a call may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The paths of services that are about services.
const ABOUT: &str = "/grpc.";

/// What the calls of one listener share.
pub(super) struct Calls {
    routes: Router,
    core: Core,
    /// Whether calls show their keys before their messages.
    shows_keys: bool,
    bytes: Arc<Semaphore>,
    /// Calls that are not answered to the end; a stream is one as long as it lasts.
    open: Arc<Semaphore>,
    patience: Duration,
    farewell: Duration,
}

impl Calls {
    pub(super) fn new(routes: Router, core: &Core, service: &Service, shows_keys: bool) -> Self {
        let settings = core.settings();
        Self {
            routes,
            core: core.clone(),
            shows_keys,
            bytes: Arc::new(Semaphore::new(BYTES_MAX)),
            open: Arc::new(Semaphore::new(settings.connections_max)),
            patience: settings.wait_max + PATIENCE,
            farewell: farewell(service),
        }
    }

    pub(super) fn drain(&self) -> &Drain {
        self.core.drain()
    }

    /// How long a connection goes on when the process is to end.
    pub(super) fn farewell(&self) -> Duration {
        self.farewell
    }

    /// Answers a call.
    pub(super) async fn answer(
        &self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let Ok(call) = Arc::clone(&self.open).try_acquire_owned() else {
            return Ok(refused(Refusal::unavailable("the server has more calls than it may have")));
        };
        let is_about = request.uri().path().starts_with(ABOUT);
        let (mut parts, body) = request.into_parts();
        let check = self.check(&parts.headers);
        let (body, held) = Inflow::of(Body::new(body), Arc::clone(&self.bytes), check);
        parts.extensions.insert(peer);
        parts.extensions.insert(held);
        let request = Request::from_parts(parts, Body::new(body));
        // A router is always ready.
        let response = match timeout(self.patience, self.routes.clone().call(request)).await {
            Ok(Ok(response)) if is_about => response.map(|body| self.until_drained(body)),
            Ok(Ok(response)) => self.in_words(response),
            Err(_) => {
                let detail = format!("the call has taken longer than {:?}", self.patience);
                refused(Refusal::new(Code::RequestTimeout, detail))
            }
        };
        Ok(response.map(|body| Body::new(Answer { body, _call: call })))
    }

    /// Whether somebody is known who sends much; on the older wire, that is in what is sent.
    fn check(&self, headers: &HeaderMap) -> Option<Check> {
        if !self.shows_keys {
            return None;
        }
        let (core, caller) = (self.core.clone(), caller(headers));
        Some(Box::pin(async move { core.check_key(&caller?).await }))
    }

    /// Whoever watches or explores a server holds up its end no longer than others.
    fn until_drained(&self, body: Body) -> Body {
        let drain = self.drain().clone();
        let requested = Box::pin(async move { drain.requested().await });
        Body::new(StreamBody::new(BodyStream::new(body).take_until(requested)))
    }

    /// Gives a code to what is refused before it comes to the service: a request beyond all size.
    fn in_words(&self, response: Response<Body>) -> Response<Body> {
        match Status::from_header_map(response.headers()) {
            Some(status) if is_too_large(&status) => {
                refused(too_large(self.core.settings().body_bytes_max))
            }
            _ => response,
        }
    }
}

/// An answer, which ends its call.
struct Answer {
    body: Body,
    _call: OwnedSemaphorePermit,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether it says that a request has more bytes than any may have.
pub(super) fn is_too_large(status: &Status) -> bool {
    status.code() == tonic::Code::OutOfRange
}

/// That a request has more bytes than any may have.
pub(super) fn too_large(body_bytes_max: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("the body may have {body_bytes_max} bytes at most"))
}

fn refused(refusal: Refusal) -> Response<Body> {
    Status::from(refusal).into_http()
}

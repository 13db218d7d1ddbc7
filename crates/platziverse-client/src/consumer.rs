//! Messages as they come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use platziverse_rpc::mom;
use platziverse_rpc::mom::consume_stream_request::Request as Asked;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::attempts::Attempts;
use crate::client::Client;
use crate::destination::Destination;
use crate::error::Error;
use crate::message::Message;

/// A stream of messages, each of which has to be acknowledged.
///
/// It connects when it is first polled, and again when its connection is lost: what was not settled
/// by then is delivered again, maybe to another consumer. When no server lets it consume for
/// [`retry_for`](crate::Builder::retry_for), it yields the last error, which
/// [may pass](Error::is_passing), and tries again when it is polled again. Any other error ends it.
///
/// Dropped, it lets go of its messages at once, and an acknowledgement that was on its way may be
/// lost, so that its message is delivered again; [`close`](Consumer::close) waits for them.
#[must_use = "it does nothing unless it is polled"]
pub struct Consumer {
    client: Client,
    open: mom::Open,
    attempts: Attempts,
    state: State,
}

enum State {
    Opening(BoxFuture<'static, Result<Link, Error>>),
    Open(Box<Link>),
    Ended,
}

/// A stream with a server.
struct Link {
    /// Deliveries have weak ones: the server's stream ends when this one is dropped.
    settlements: mpsc::Sender<mom::ConsumeStreamRequest>,
    deliveries: Streaming<mom::ConsumeStreamResponse>,
    server: usize,
}

/// A message that waits for its acknowledgement. Dropped without one, it goes back.
#[derive(Debug)]
#[must_use = "unless it is acknowledged, it is delivered again"]
pub struct Delivery {
    /// The message.
    pub message: Message,
    tag: u64,
    settlements: Option<mpsc::WeakSender<mom::ConsumeStreamRequest>>,
}

impl Delivery {
    /// Is done with it. What the server has not heard of when the connection is lost is delivered
    /// again.
    pub fn ack(mut self) -> Result<(), Error> {
        self.settle(Asked::Ack)
    }

    /// Gives it back, to be delivered again.
    pub fn nack(mut self) -> Result<(), Error> {
        self.settle(Asked::Nack)
    }

    fn settle(&mut self, how: impl FnOnce(mom::Tags) -> Asked) -> Result<(), Error> {
        let Some(settlements) = self.settlements.take() else { return Ok(()) };
        let settlements = settlements.upgrade().ok_or(Error::Stale)?;
        let request = how(mom::Tags { tags: vec![self.tag] });
        // There is room for as many as can be unsettled.
        let sent = settlements.try_send(mom::ConsumeStreamRequest { request: Some(request) });
        sent.map_err(|_| Error::Stale)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // One that is stale goes back by itself.
        let _ = self.settle(Asked::Nack);
    }
}

impl Consumer {
    pub(crate) fn new(destination: &Destination, prefetch: u16) -> Self {
        let client = destination.client().clone();
        let open = mom::Open {
            kind: destination.kind().wire(),
            name: destination.name().to_owned(),
            prefetch: prefetch.max(1).into(),
        };
        let attempts = client.attempts();
        let state =
            State::Opening(Link::open(client.clone(), open.clone(), Duration::ZERO).boxed());
        Self { client, open, attempts, state }
    }

    /// Ends it, when the server has heard of every settlement. Messages that are not settled go
    /// back.
    pub async fn close(mut self) -> Result<(), Error> {
        let State::Open(link) = std::mem::replace(&mut self.state, State::Ended) else {
            return Ok(());
        };
        let Link { settlements, mut deliveries, .. } = *link;
        drop(settlements);
        let ended = async {
            // Those that were on their way go back.
            while deliveries.message().await?.is_some() {}
            Ok(())
        };
        match timeout(self.client.request_timeout(), ended).await {
            Ok(ended) => ended.map_err(|status: tonic::Status| Error::of_status(&status)),
            Err(_) => Err(self.client.too_slow()),
        }
    }

    /// Begins to open the stream anew after an error; answers the error if it is to be told.
    fn again(&mut self, error: Error) -> Option<Error> {
        let is_final = error.retry().is_none();
        let (wait, told) = match self.attempts.failed(error) {
            Ok(wait) => (wait, None),
            Err(error) => (Duration::ZERO, Some(error)),
        };
        self.state = match is_final {
            true => State::Ended,
            false => {
                State::Opening(Link::open(self.client.clone(), self.open.clone(), wait).boxed())
            }
        };
        told
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (error, server) = match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Opening(opening) => match ready!(opening.poll_unpin(context)) {
                    Ok(link) => {
                        self.state = State::Open(Box::new(link));
                        self.attempts.succeeded();
                        continue;
                    }
                    Err(error) => (error, None),
                },
                State::Open(link) => {
                    let error = match ready!(link.deliveries.poll_next_unpin(context)) {
                        Some(Ok(delivered)) => {
                            return Poll::Ready(Some(Ok(link.delivery(delivered))));
                        }
                        Some(Err(status)) => Error::of_status(&status),
                        None => Error::Unreached("the server has ended the stream".to_owned()),
                    };
                    (error, Some(link.server))
                }
            };
            server.into_iter().for_each(|server| self.client.leave(server));
            if let Some(error) = self.again(error) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Link {
    async fn open(client: Client, open: mom::Open, wait: Duration) -> Result<Self, Error> {
        sleep(wait).await;
        // The opening, and each message that may be unsettled.
        let room = 1 + open.prefetch as usize;
        let (settlements, requests) = mpsc::channel(room);
        let first = mom::ConsumeStreamRequest { request: Some(Asked::Open(open)) };
        settlements.try_send(first).map_err(|error| Error::Unreached(error.to_string()))?;
        let requests = stream::unfold(requests, async |mut requests| {
            requests.recv().await.map(|request| (request, requests))
        });
        let (server, mut stub) = client.server();
        let opening = stub.consume_stream(client.request(requests));
        let error = match timeout(client.request_timeout(), opening).await {
            Ok(Ok(answer)) => {
                return Ok(Self { settlements, deliveries: answer.into_inner(), server });
            }
            Ok(Err(status)) => Error::of_status(&status),
            Err(_) => client.too_slow(),
        };
        if error.retry().is_some() {
            client.leave(server);
        }
        Err(error)
    }

    fn delivery(&self, delivered: mom::ConsumeStreamResponse) -> Delivery {
        Delivery {
            message: delivered.message.unwrap_or_default().into(),
            tag: delivered.tag,
            settlements: Some(self.settlements.downgrade()),
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("name", &self.open.name).finish_non_exhaustive()
    }
}

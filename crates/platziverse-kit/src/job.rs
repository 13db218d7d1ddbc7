//! One message: done, answered and acknowledged.

use std::any::Any;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures_util::FutureExt;
use platziverse_broker::Delivery;
use platziverse_broker::aggregator::{Kind, Post, PostError, Request, To};
use platziverse_service::clock;
use tokio::time::{Instant, sleep, timeout};

use crate::book::Reply;
use crate::server::Shared;
use crate::{Answer, Work};

/// Between attempts, jitter aside.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// An error's text is cut here: headers must fit into one frame (AMQP 0-9-1, 2.3.5.2).
const ERROR_BYTES_MAX: usize = 4 << 10;

/// What does a channel's messages.
pub(crate) struct Job<H> {
    pub(crate) channel: String,
    pub(crate) handler: H,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It is done with.
    Acknowledge,
    /// It becomes a dead letter.
    Reject,
    /// RabbitMQ has taken it back: it comes again, to this server or another.
    Leave,
}

impl<H, F, E> Job<H>
where
    H: Fn(Work) -> F,
    F: Future<Output = Result<Answer, E>>,
    E: Display,
{
    /// Does a message, and settles it.
    pub(crate) async fn settle(&self, shared: &Shared, delivery: Delivery) {
        if delivery.is_stale() {
            return;
        }
        let work = Work::of(&self.channel, &delivery);
        let end = match (&work.request_id, &work.reply_to) {
            (Some(id), Some(to)) if work.kind == Kind::Request => {
                self.answer(shared, &delivery, &work, id, to).await
            }
            _ => match self.do_it(shared, &work).await {
                Ok(_) => End::Acknowledge,
                Err(error) => {
                    let id = delivery.message_id().unwrap_or("without an id");
                    tracing::error!(channel = self.channel, "given up: message {id}: {error}");
                    End::Reject
                }
            },
        };
        // What cannot be settled any more comes again.
        let _ = match end {
            End::Acknowledge => delivery.ack().await,
            End::Reject => delivery.reject().await,
            End::Leave => false,
        };
    }

    /// Does a request unless it is done, and answers it.
    async fn answer(
        &self,
        shared: &Shared,
        delivery: &Delivery,
        work: &Work,
        id: &str,
        to: &To,
    ) -> End {
        if work.is_late(clock::now()) {
            tracing::debug!(channel = self.channel, id, "its deadline is over: it is not done");
            return End::Acknowledge;
        }
        let request = (work.client.clone(), id.to_owned());
        let place = shared.book.place(&request, Instant::now());
        let doing = async {
            let reply = self.do_it(shared, work).await.map_err(Arc::from);
            shared.book.done(request, &reply, Instant::now());
            reply
        };
        let reply = place.get_or_init(|| doing).await;
        send(shared, delivery, reply, id, to).await
    }

    /// Lets the handler try until it succeeds, or has tried often enough: what went wrong then.
    async fn do_it(&self, shared: &Shared, work: &Work) -> Result<Bytes, String> {
        let waits = waits().with_max_times(shared.attempts.saturating_sub(1) as usize);
        let mut waits = waits.build();
        loop {
            let error = match self.attempt(shared.handler_timeout, work.clone()).await {
                Ok(Answer(body)) => return Ok(body),
                Err(error) => error,
            };
            let Some(wait) = waits.next() else { return Err(error) };
            tracing::warn!(channel = self.channel, "tried again in {wait:?}: {error}");
            sleep(wait).await;
        }
    }

    async fn attempt(&self, within: Duration, work: Work) -> Result<Answer, String> {
        // Also what the handler does before its future exists.
        let handling = AssertUnwindSafe(async { (self.handler)(work).await }).catch_unwind();
        match timeout(within, handling).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(panic)) => Err(format!("the handler panicked: {}", said(&*panic))),
            Err(_) => Err(format!("not done within {within:?}")),
        }
    }
}

/// Sends a reply until RabbitMQ has it, as long as the request is this server's to answer.
async fn send(shared: &Shared, delivery: &Delivery, reply: &Reply, id: &str, to: &To) -> End {
    let mut waits = waits().without_max_times().build();
    let mut reply = reply.clone();
    while !delivery.is_stale() {
        let post = post(&reply, id, to);
        let why = match shared.sender.posts.hand(post).await.confirmed().await {
            Ok(()) => return End::Acknowledge,
            Err(PostError::TooLarge(_)) if reply.is_err() => return End::Reject,
            Err(PostError::TooLarge(why)) => {
                reply = Err(format!("the reply cannot be sent: {why}").into());
                continue;
            }
            Err(why) => why,
        };
        tracing::warn!(id, "a reply is not sent yet: {why}");
        sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
    }
    End::Leave
}

fn post(reply: &Reply, id: &str, to: &To) -> Post {
    let (body, error) = match reply {
        Ok(body) => (body.clone(), None),
        Err(error) => {
            let cut = &error[..error.floor_char_boundary(ERROR_BYTES_MAX)];
            (Bytes::from_static(b"null"), Some(cut.to_owned()))
        }
    };
    let request = Some(Request { id: id.to_owned(), reply_to: None, deadline: None });
    Post { request, error, ..Post::new(to.clone(), Kind::Reply, body) }
}

fn waits() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .with_factor(2.0)
        .with_jitter()
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing").to_owned()
}

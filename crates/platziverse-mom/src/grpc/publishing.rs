//! `PublishStream`: many messages on their way at a time, in their order: what they need to know is
//! asked side by side, and then they go one after the other.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{Stream, StreamExt as _, stream};
use platziverse_rpc::mom::{PublishRequest, PublishResponse};
use tokio::sync::mpsc::{self, OwnedPermit, Sender};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use crate::core::{Caller, Code, Core, Prepared, Published, Refusal};
use crate::grpc::call::{is_too_large, too_large};
use crate::grpc::inflow::Held;
use crate::grpc::pace::Pace;
use crate::grpc::wire;

/// Messages of one stream that wait for RabbitMQ, or whose answers wait for the client.
const WINDOW: usize = 1_024;
/// How long a message waits because its user sends more than is allowed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after it came a message may still go: those before it may have waited as long as they
/// may.
const LATEST: Duration = Duration::from_secs(45);
/// How long a client may take to read why its stream ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a stream answers with.
pub(super) type Answers = BoxStream<'static, Result<PublishResponse, Status>>;

/// Publishes what comes, and answers each in any order.
pub(super) fn start(
    core: Core,
    caller: Caller,
    held: Held,
    requests: Streaming<PublishRequest>,
) -> Answers {
    let (answers, mut read) = mpsc::channel(WINDOW);
    let drain = core.drain().clone();
    drain.spawn_isolated(async move {
        let pace = Mutex::new(Pace::new(core.settings().rate_per_key));
        let publishing = Publishing { core: &core, caller, held, pace, answers: answers.clone() };
        if let Err(status) = publishing.run(requests).await {
            // Who does not read it sees the end of the stream.
            let _ = timeout(FAREWELL, answers.send(Err(status))).await;
        }
    });
    stream::poll_fn(move |context| read.poll_recv(context)).boxed()
}

struct Publishing<'a> {
    core: &'a Core,
    caller: Caller,
    held: Held,
    pace: Mutex<Pace>,
    answers: Sender<Result<PublishResponse, Status>>,
}

/// Room for an answer.
type Slot = OwnedPermit<Result<PublishResponse, Status>>;

/// A message's place among those of its stream.
struct Place {
    /// Closed when the message before it has its own.
    before: oneshot::Receiver<()>,
    /// Dropped when this one has it, or does not go.
    taken: oneshot::Sender<()>,
}

impl Publishing<'_> {
    /// Publishes until the client has no more to say, is gone, or is to be told that the stream ends.
    async fn run(&self, mut requests: Streaming<PublishRequest>) -> Result<(), Status> {
        let mut draining = pin!(self.core.drain().requested());
        let mut closed = pin!(self.answers.closed());
        let mut on_their_way = FuturesUnordered::new();
        let mut slot = None;
        // Before the first there is none.
        let (_, mut last) = oneshot::channel();
        let ended = loop {
            tokio::select! {
                biased;
                Some(done) = on_their_way.next() => done?,
                () = &mut draining => break Err(ending()),
                () = &mut closed => return Ok(()),
                // A client that does not read what became of its messages is not read on.
                reserved = async { self.answers.clone().reserve_owned().await }, if slot.is_none() => {
                    slot = reserved.ok();
                }
                request = requests.message(), if slot.is_some() => match (request, slot.take()) {
                    (Ok(Some(request)), Some(slot)) => {
                        let (taken, next) = oneshot::channel();
                        let place = Place { before: std::mem::replace(&mut last, next), taken };
                        on_their_way.push(self.publish(request, place, slot));
                    }
                    (Ok(_), _) => break Ok(()),
                    (Err(status), _) => break Err(self.lost(status)),
                },
            }
        };
        self.finish(&mut on_their_way).await?;
        ended
    }

    /// Waits for those that are on their way, unless nobody does.
    async fn finish(
        &self,
        on_their_way: &mut (impl Stream<Item = Result<(), Status>> + Unpin),
    ) -> Result<(), Status> {
        loop {
            tokio::select! {
                done = on_their_way.next() => match done {
                    Some(done) => done?,
                    None => return Ok(()),
                },
                () = self.answers.closed() => return Ok(()),
            }
        }
    }

    /// Publishes a message and answers. What concerns the whole stream is an error.
    async fn publish(
        &self,
        request: PublishRequest,
        place: Place,
        slot: Slot,
    ) -> Result<(), Status> {
        let _room = self.held.take();
        let sequence = request.sequence;
        let result = self.in_order(request, place).await;
        if let Err(refusal) = &result
            && refusal.code == Code::UnknownKey
        {
            return Err(refusal.clone().into());
        }
        slot.send(Ok(wire::published(result, sequence)));
        Ok(())
    }

    /// Publishes a message after those that came before it.
    async fn in_order(&self, request: PublishRequest, place: Place) -> Result<Published, Refusal> {
        let Place { before, taken } = place;
        let latest = Instant::now() + LATEST;
        let prepared = self.in_turn(request).await;
        // Also who does not go holds its place until then: those behind it must not overtake.
        let _ = before.await;
        let prepared = prepared?;
        if Instant::now() > latest {
            return Err(Refusal::unavailable("messages before it on the stream took too long"));
        }
        let mut sent = self.core.send(prepared);
        sent.placed().await;
        drop(taken);
        sent.confirmed().await
    }

    /// Prepares a message; one that is too much waits for its turn, and so in the end does the
    /// client.
    async fn in_turn(&self, mut request: PublishRequest) -> Result<Prepared, Refusal> {
        let kind = wire::kind(request.kind)?;
        let name = std::mem::take(&mut request.name);
        let message = wire::new_message(request);
        let end = Instant::now() + PATIENCE;
        loop {
            let prepared = self.core.prepare(&self.caller, kind, &name, message.clone()).await;
            let Err(refusal) = prepared else { return prepared };
            let (Code::TooManyRequests, Some(wait)) = (refusal.code, refusal.retry_after) else {
                return Err(refusal);
            };
            let turn = self.pace.lock().unwrap_or_else(PoisonError::into_inner).turn(wait);
            if turn > end {
                return Err(refusal);
            }
            sleep_until(turn).await;
        }
    }

    /// Why requests come no more.
    fn lost(&self, status: Status) -> Status {
        match is_too_large(&status) {
            true => too_large(self.core.settings().body_bytes_max).into(),
            false => status,
        }
    }
}

/// That the server ends.
pub(super) fn ending() -> Status {
    Refusal::unavailable("this server ends").into()
}

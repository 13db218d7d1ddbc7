//! `ConsumeStream`: messages as they come, settled one by one. A client that reads nothing costs as
//! many messages as its prefetch allows.

use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use platziverse_rpc::mom::consume_stream_request::Request as Asked;
use platziverse_rpc::mom::{ConsumeStreamRequest, ConsumeStreamResponse, Open};
use tokio::sync::mpsc::{self, Permit, Sender};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::core::{Caller, Core, MomError, MomStream, ObjectKind, Refusal, Settle, StreamDelivery};
use crate::grpc::inflow::Held;
use crate::grpc::publishing::ending;
use crate::grpc::wire;

/// How long a client may take to say what it wants.
const OPENING: Duration = Duration::from_secs(10);
/// How long a client may take to read why its stream ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Deliveries that are unsettled if the client does not say how many.
const PREFETCH: u16 = 100;
/// Deliveries on their way to the client.
const AHEAD: usize = 16;

/// What a stream answers with.
pub(super) type Deliveries = BoxStream<'static, Result<ConsumeStreamResponse, Status>>;

/// Opens a stream, and delivers until the client has enough.
pub(super) async fn start(
    core: Core,
    caller: Caller,
    held: Held,
    mut requests: Streaming<ConsumeStreamRequest>,
) -> Result<Deliveries, Status> {
    let Open { kind, name, prefetch } = opening(&mut requests).await?;
    drop(held.take());
    let kind = wire::kind(kind)?;
    let prefetch = match prefetch {
        0 => PREFETCH,
        asked => u16::try_from(asked).unwrap_or(u16::MAX),
    };
    let stream = core.stream(&caller, kind, &name, prefetch).await?;
    let (deliveries, mut read) = mpsc::channel(AHEAD);
    let drain = core.drain().clone();
    drain.spawn_isolated(async move {
        let consuming = Consuming { core, caller, kind, name, held, stream, last: 0 };
        if let Err(status) = consuming.run(requests, &deliveries).await {
            // Who does not read it sees the end of the stream.
            let _ = timeout(FAREWELL, deliveries.send(Err(status))).await;
        }
    });
    Ok(stream::poll_fn(move |context| read.poll_recv(context)).boxed())
}

/// What the first request says.
async fn opening(requests: &mut Streaming<ConsumeStreamRequest>) -> Result<Open, Status> {
    let wrong = || Refusal::invalid("the first request must be `open`, which says what to consume");
    let first = timeout(OPENING, requests.message()).await.map_err(|_| wrong())??;
    match first.and_then(|first| first.request) {
        Some(Asked::Open(open)) => Ok(open),
        Some(Asked::Ack(_) | Asked::Nack(_)) | None => Err(wrong().into()),
    }
}

struct Consuming {
    core: Core,
    caller: Caller,
    kind: ObjectKind,
    name: String,
    held: Held,
    stream: MomStream,
    /// The tag of the last delivery.
    last: u64,
}

type Delivered = Result<ConsumeStreamResponse, Status>;

/// What has happened.
enum Event<'a> {
    Asked(Option<ConsumeStreamRequest>),
    Delivery(Permit<'a, Delivered>, Result<StreamDelivery, MomError>),
    Gone,
    Ending,
}

impl Consuming {
    /// Delivers until the client has no more to say, is gone, or is to be told that the stream ends.
    /// Whatever is unsettled then goes back.
    async fn run(
        mut self,
        mut requests: Streaming<ConsumeStreamRequest>,
        deliveries: &Sender<Delivered>,
    ) -> Result<(), Status> {
        loop {
            match self.event(&mut requests, deliveries).await? {
                Event::Asked(Some(request)) => self.settle(request).await?,
                Event::Delivery(permit, Ok(delivery)) => {
                    let StreamDelivery { message, tag } = delivery;
                    self.last = tag;
                    self.core.delivered();
                    let message = Some(wire::message(message));
                    permit.send(Ok(ConsumeStreamResponse { tag, message }));
                }
                Event::Delivery(_, Err(error)) => return Err(self.missing(error).await),
                Event::Asked(None) | Event::Gone => return Ok(()),
                Event::Ending => return Err(ending()),
            }
        }
    }

    /// What happens next. Settlements are read also while the client reads no deliveries.
    async fn event<'a>(
        &mut self,
        requests: &mut Streaming<ConsumeStreamRequest>,
        deliveries: &'a Sender<Delivered>,
    ) -> Result<Event<'a>, Status> {
        let (stream, drain) = (&mut self.stream, self.core.drain());
        let next = async {
            // The client is gone if there is no room and will be none.
            let Ok(permit) = deliveries.reserve().await else { return Event::Gone };
            match stream.next().await {
                Some(delivery) => Event::Delivery(permit, delivery),
                None => Event::Ending,
            }
        };
        tokio::select! {
            request = requests.message() => Ok(Event::Asked(request?)),
            event = next => Ok(event),
            () = deliveries.closed() => Ok(Event::Gone),
            () = drain.requested() => Ok(Event::Ending),
        }
    }

    /// Does what a request says with what was delivered.
    async fn settle(&mut self, request: ConsumeStreamRequest) -> Result<(), Status> {
        drop(self.held.take());
        let (tags, how) = match request.request {
            Some(Asked::Ack(tags)) => (tags.tags, Settle::Ack),
            Some(Asked::Nack(tags)) => (tags.tags, Settle::Nack),
            Some(Asked::Open(_)) => {
                return Err(Refusal::invalid("the stream is open: settle, or open another").into());
            }
            None => return Err(Refusal::invalid("a request must be `ack` or `nack`").into()),
        };
        for tag in tags {
            if !(1..=self.last).contains(&tag) {
                let detail = format!("nothing was delivered under the tag {tag} in this stream");
                return Err(Refusal::invalid(detail).into());
            }
            let settled = match how {
                Settle::Ack => self.stream.ack(tag).await,
                Settle::Nack | Settle::Extend(_) => self.stream.nack(tag).await,
            };
            match settled {
                // It was settled before, or has gone back with a connection, and comes again.
                Ok(()) | Err(MomError::LeaseGone) => {}
                Err(error) => return Err(self.missing(error).await),
            }
        }
        Ok(())
    }

    async fn missing(&self, error: MomError) -> Status {
        self.core.missing(error, &self.caller, self.kind, &self.name).await.into()
    }
}

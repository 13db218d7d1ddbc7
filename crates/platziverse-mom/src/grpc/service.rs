//! `mom.v1.Mom`.

use platziverse_rpc::mom::mom_server::Mom;
use platziverse_rpc::mom::settle_request::How;
use platziverse_rpc::mom::{
    ConsumeRequest, ConsumeResponse, ConsumeStreamRequest, CreateRequest, CreateResponse,
    CreateUserRequest, CreateUserResponse, DeleteRequest, DeleteResponse, DeleteUserRequest,
    DeleteUserResponse, GetUserRequest, GetUserResponse, ListRequest, ListResponse, PeekRequest,
    PeekResponse, PublishRequest, PublishResponse, PurgeRequest, PurgeResponse, RotateKeyRequest,
    RotateKeyResponse, SettleRequest, SettleResponse, ShowRequest, ShowResponse, SubscribeRequest,
    SubscribeResponse, UnsubscribeRequest, UnsubscribeResponse,
};
use platziverse_service::listener::Peer;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::core::{
    Caller, Core, KeyForm, Listed, Listing, NewUser, Outcome, Page, Refusal, Settle, Shown, Taken,
};
use crate::grpc::inflow::Held;
use crate::grpc::{consuming, publishing, wire};
use crate::http::caller;

/// Objects of a page if nobody says how many.
const PAGE: u32 = 50;
/// Messages that are looked at if nobody says how many.
const PEEK: u16 = 10;

type Answer<T> = Result<Response<T>, Status>;

/// The service.
pub(super) struct MomService {
    core: Core,
}

impl MomService {
    pub(super) fn new(core: Core) -> Self {
        Self { core }
    }
}

/// Who calls, what for, and what came along.
fn open<T>(request: Request<T>) -> Result<(Caller, T, Extensions), Refusal> {
    let (metadata, extensions, message) = request.into_parts();
    let caller = caller(&metadata.into_headers())?;
    Ok((caller, message, extensions))
}

/// What holds the bytes of a call.
fn held(extensions: &mut Extensions) -> Result<Held, Refusal> {
    // Every call has it.
    extensions.remove::<Held>().ok_or_else(|| Refusal::unavailable("the call is not counted"))
}

#[tonic::async_trait]
impl Mom for MomService {
    async fn create_user(&self, request: Request<CreateUserRequest>) -> Answer<CreateUserResponse> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let NewUser { id, key } = self.core.create_user(KeyForm::Current, peer).await?;
        Ok(Response::new(CreateUserResponse { id: id.to_string(), key }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Answer<GetUserResponse> {
        let (caller, ..) = open(request)?;
        let id = self.core.user(&caller).await?.to_string();
        Ok(Response::new(GetUserResponse { id }))
    }

    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Answer<RotateKeyResponse> {
        let (caller, ..) = open(request)?;
        let key = self.core.rotate_key(&caller).await?;
        Ok(Response::new(RotateKeyResponse { key }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Answer<DeleteUserResponse> {
        let (caller, ..) = open(request)?;
        self.core.delete_user(&caller).await?;
        Ok(Response::new(DeleteUserResponse {}))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        let (caller, CreateRequest { kind, name, options }, _) = open(request)?;
        let options = wire::options(options)?;
        let outcome = self.core.create(&caller, wire::kind(kind)?, &name, options).await?;
        Ok(Response::new(CreateResponse { existed: outcome == Outcome::Exists }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let (caller, ListRequest { kind, which, after, limit }, _) = open(request)?;
        let page = Page {
            which: wire::which(which)?,
            after: (!after.is_empty()).then_some(after),
            limit: if limit == 0 { PAGE } else { limit },
            with_counts: true,
        };
        let Listed { items, next } = self.core.list(&caller, wire::kind(kind)?, &page).await?;
        let objects = items.into_iter().map(wire::object).collect();
        Ok(Response::new(ListResponse { objects, next: next.unwrap_or_default() }))
    }

    async fn show(&self, request: Request<ShowRequest>) -> Answer<ShowResponse> {
        let (caller, ShowRequest { kind, name }, _) = open(request)?;
        let shown = self.core.show(&caller, wire::kind(kind)?, &name).await?;
        let Shown { object, messages, subscribers, is_subscribed } = shown;
        Ok(Response::new(ShowResponse {
            object: Some(wire::object(Listing { object, messages })),
            subscribers: u32::try_from(subscribers).unwrap_or(u32::MAX),
            is_subscribed,
        }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        let (caller, DeleteRequest { kind, name }, _) = open(request)?;
        self.core.delete(&caller, wire::kind(kind)?, &name).await?;
        Ok(Response::new(DeleteResponse {}))
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Answer<SubscribeResponse> {
        let (caller, SubscribeRequest { kind, name }, _) = open(request)?;
        self.core.subscribe(&caller, wire::kind(kind)?, &name).await?;
        Ok(Response::new(SubscribeResponse {}))
    }

    async fn unsubscribe(
        &self,
        request: Request<UnsubscribeRequest>,
    ) -> Answer<UnsubscribeResponse> {
        let (caller, UnsubscribeRequest { kind, name }, _) = open(request)?;
        self.core.unsubscribe(&caller, wire::kind(kind)?, &name).await?;
        Ok(Response::new(UnsubscribeResponse {}))
    }

    async fn publish(&self, request: Request<PublishRequest>) -> Answer<PublishResponse> {
        // The body's bytes take their room until RabbitMQ has them.
        let (caller, mut message, _extensions) = open(request)?;
        let (kind, sequence) = (wire::kind(message.kind)?, message.sequence);
        let name = std::mem::take(&mut message.name);
        let message = wire::new_message(message);
        let published = self.core.publish(&caller, kind, &name, message).await?;
        Ok(Response::new(wire::published(Ok(published), sequence)))
    }

    type PublishStreamStream = publishing::Answers;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Answer<Self::PublishStreamStream> {
        let (caller, requests, mut extensions) = open(request)?;
        let held = held(&mut extensions)?;
        self.core.check_key(&caller).await?;
        Ok(Response::new(publishing::start(self.core.clone(), caller, held, requests)))
    }

    async fn consume(&self, request: Request<ConsumeRequest>) -> Answer<ConsumeResponse> {
        let (caller, request, _) = open(request)?;
        let (wait, mode) = wire::consuming(&request, self.core.settings().lease_default)?;
        let kind = wire::kind(request.kind)?;
        let taken = self.core.consume(&caller, kind, &request.name, wait, mode).await?;
        Ok(Response::new(match taken {
            Some(Taken { message, lease }) => ConsumeResponse {
                message: Some(wire::message(message)),
                lease: lease.unwrap_or_default(),
            },
            None => ConsumeResponse::default(),
        }))
    }

    type ConsumeStreamStream = consuming::Deliveries;

    async fn consume_stream(
        &self,
        request: Request<Streaming<ConsumeStreamRequest>>,
    ) -> Answer<Self::ConsumeStreamStream> {
        let (caller, requests, mut extensions) = open(request)?;
        let held = held(&mut extensions)?;
        let deliveries = consuming::start(self.core.clone(), caller, held, requests).await?;
        Ok(Response::new(deliveries))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Answer<SettleResponse> {
        let (caller, SettleRequest { lease, how }, _) = open(request)?;
        let how = match how {
            Some(How::Ack(_)) => Settle::Ack,
            Some(How::Nack(_)) => Settle::Nack,
            Some(How::Extend(extend)) => Settle::Extend(match extend.lease {
                Some(lease) => wire::duration("lease", lease)?,
                None => self.core.settings().lease_default,
            }),
            None => return Err(Refusal::invalid("how must be ack, nack or extend").into()),
        };
        self.core.settle(&caller, &lease, how).await?;
        Ok(Response::new(SettleResponse {}))
    }

    async fn peek(&self, request: Request<PeekRequest>) -> Answer<PeekResponse> {
        let (caller, PeekRequest { kind, name, limit }, _) = open(request)?;
        let count = match limit {
            0 => PEEK,
            asked => u16::try_from(asked).unwrap_or(u16::MAX),
        };
        let messages = self.core.peek(&caller, wire::kind(kind)?, &name, count).await?;
        let messages = messages.into_iter().map(wire::message).collect();
        Ok(Response::new(PeekResponse { messages }))
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Answer<PurgeResponse> {
        let (caller, PurgeRequest { kind, name }, _) = open(request)?;
        let purged = self.core.purge(&caller, wire::kind(kind)?, &name).await?;
        Ok(Response::new(PurgeResponse { purged }))
    }
}

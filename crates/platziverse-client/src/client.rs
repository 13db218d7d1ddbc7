//! The client: which server is asked, how, and how often.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use platziverse_rpc::mom;
use platziverse_rpc::mom::mom_client::MomClient;
use tokio::time::{sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::attempts::Attempts;
use crate::builder::Builder;
use crate::destination::{Destination, Info, Kind};
use crate::error::{Code, Error};

/// What an answer may have: a page of messages of the largest size.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A client; clones share its connections.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    servers: Servers,
    bearer: Option<MetadataValue<Ascii>>,
    request_timeout: Duration,
    retry_for: Duration,
}

/// A user, with the key that nobody tells again.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: Uuid,
    /// Its key.
    pub key: String,
}

/// Which topics or queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the user has created.
    Created,
    /// Those that the user subscribes to.
    Subscribed,
}

/// Some topics or queues, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What they are.
    pub objects: Vec<Info>,
    /// After which name the next page begins, if there is one.
    pub next: Option<String>,
}

impl Client {
    /// Begins to make a client for the gRPC listener at a URL such as `http://host:50052`.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder::new(endpoint.into())
    }

    pub(crate) fn new(
        servers: Servers,
        bearer: Option<MetadataValue<Ascii>>,
        request_timeout: Duration,
        retry_for: Duration,
    ) -> Self {
        Self(Arc::new(Shared { servers, bearer, request_timeout, retry_for }))
    }

    /// A topic; it need not exist yet.
    pub fn topic(&self, name: impl Into<String>) -> Destination {
        Destination::new(self.clone(), Kind::Topic, name.into())
    }

    /// A queue; it need not exist yet.
    pub fn queue(&self, name: impl Into<String>) -> Destination {
        Destination::new(self.clone(), Kind::Queue, name.into())
    }

    /// Makes a user. A client with its key has to be built for it.
    pub async fn register(&self) -> Result<User, Error> {
        let call = |mut client: MomClient<Channel>, request| async move {
            client.create_user(request).await
        };
        let made = self.call(mom::CreateUserRequest {}, &[], call).await?;
        Ok(User { id: made.id.parse().unwrap_or_default(), key: made.key })
    }

    /// The id of the user that the key belongs to.
    pub async fn user(&self) -> Result<Uuid, Error> {
        let call =
            |mut client: MomClient<Channel>, request| async move { client.get_user(request).await };
        let user = self.call(mom::GetUserRequest {}, &[], call).await?;
        Ok(user.id.parse().unwrap_or_default())
    }

    /// Replaces the user's key: this client's is invalid at once.
    ///
    /// It is tried once: whoever hears no answer does not know which key is valid.
    pub async fn rotate_key(&self) -> Result<String, Error> {
        let (_, channel) = self.0.servers.current();
        let request = self.request(mom::RotateKeyRequest {});
        let mut client = self.stub(channel);
        let answer = timeout(self.0.request_timeout, client.rotate_key(request)).await;
        let answer = answer.map_err(|_| self.too_slow())?;
        answer.map(|answer| answer.into_inner().key).map_err(|status| Error::of_status(&status))
    }

    /// Deletes the user and its subscriptions. Refused while it has topics or queues.
    pub async fn delete_user(&self) -> Result<(), Error> {
        let call = |mut client: MomClient<Channel>, request| async move {
            client.delete_user(request).await
        };
        self.call(mom::DeleteUserRequest {}, &[Code::UnknownKey], call).await?;
        Ok(())
    }

    /// Topics or queues, by name: at most `limit` of those after the name `after`.
    pub async fn list(
        &self,
        kind: Kind,
        which: Which,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page, Error> {
        let which = match which {
            Which::Created => mom::Which::Created,
            Which::Subscribed => mom::Which::Subscribed,
        };
        let request = mom::ListRequest {
            kind: kind.wire(),
            which: which.into(),
            after: after.unwrap_or_default().to_owned(),
            limit,
        };
        let call =
            |mut client: MomClient<Channel>, request| async move { client.list(request).await };
        let page = self.call(request, &[], call).await?;
        let objects = page.objects.into_iter().map(Info::from).collect();
        Ok(Page { objects, next: Some(page.next).filter(|next| !next.is_empty()) })
    }

    /// Makes a call, again while no server answers and there is time.
    ///
    /// `done` says which refusals of a later attempt mean that an earlier one, which had no answer or
    /// was not finished in time, has done it.
    pub(crate) async fn call<Q, A, F>(
        &self,
        message: Q,
        done: &[Code],
        call: impl Fn(MomClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        A: Default,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.call_waiting(message, Duration::ZERO, done, call).await
    }

    /// The same for a call that the server may take `wait` longer for.
    pub(crate) async fn call_waiting<Q, A, F>(
        &self,
        message: Q,
        wait: Duration,
        done: &[Code],
        call: impl Fn(MomClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        A: Default,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut attempts = self.attempts();
        let mut is_open = false;
        loop {
            let (index, channel) = self.0.servers.current();
            let answer = call(self.stub(channel), self.request(message.clone()));
            let answer = timeout(self.0.request_timeout.saturating_add(wait), answer).await;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Error::of_status(&status),
                Err(_) => self.too_slow(),
            };
            if is_open && error.code().is_some_and(|code| done.contains(code)) {
                return Ok(A::default());
            }
            is_open |= error.is_open();
            let wait = attempts.failed(error)?;
            self.0.servers.leave(index);
            sleep(wait).await;
        }
    }

    /// The server to open a stream with, and its number for [`Client::leave`].
    pub(crate) fn server(&self) -> (usize, MomClient<Channel>) {
        let (index, channel) = self.0.servers.current();
        (index, self.stub(channel))
    }

    /// Goes over to the next server, unless somebody has.
    pub(crate) fn leave(&self, index: usize) {
        self.0.servers.leave(index);
    }

    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.0.retry_for)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.0.request_timeout
    }

    pub(crate) fn too_slow(&self) -> Error {
        Error::Unreached(format!("it took longer than {:?}", self.0.request_timeout))
    }

    pub(crate) fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.0.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }

    fn stub(&self, channel: Channel) -> MomClient<Channel> {
        MomClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// The servers, one of which is asked until it does not answer.
pub(crate) struct Servers {
    channels: Vec<Channel>,
    current: AtomicUsize,
}

impl Servers {
    pub(crate) fn new(channels: Vec<Channel>) -> Self {
        Self { channels, current: AtomicUsize::new(0) }
    }

    fn current(&self) -> (usize, Channel) {
        let index = self.current.load(Ordering::Relaxed);
        (index, self.channels[index].clone())
    }

    /// Goes over to the one after `index`, unless somebody has.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.channels.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use platziverse_rpc::refusal;

    use super::*;
    use crate::fake::Fake;

    #[tokio::test]
    async fn what_was_not_finished_in_time_may_be_done() {
        fn unknown() -> Status {
            refusal(tonic::Code::NotFound, "unknown_queue", "gone", None)
        }
        fn away() -> Status {
            refusal(tonic::Code::Unavailable, "unavailable", "RabbitMQ is away", None)
        }
        let check = async |fake: Fake, want: Option<Code>| {
            let deleted = fake.beside(async |url| {
                Client::builder(url).build().unwrap().queue("q").delete().await
            });
            assert_eq!(deleted.await.err().and_then(|error| error.code().cloned()), want);
        };
        let none: crate::fake::Publishing = |_| Vec::new();
        // Somebody else has finished what the first attempt has begun.
        let begun = Fake::new(|n| Err(if n == 1 { away() } else { unknown() }), none);
        check(begun, None).await;
        check(Fake::new(|_| Err(unknown()), none), Some(Code::UnknownQueue)).await;
    }
}

//! A topic or queue.

use std::time::{Duration, SystemTime};

use platziverse_rpc::mom;
use platziverse_rpc::mom::mom_client::MomClient;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::client::Client;
use crate::consumer::Consumer;
use crate::error::{Code, Error};
use crate::lease::Lent;
use crate::message::{Message, NewMessage, Published};
use crate::time;

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Copies a message to each of its subscribers but the publisher.
    Topic,
    /// Gives a message to one of its subscribers.
    Queue,
}

/// A topic or queue, through a client; it need not exist yet.
#[derive(Clone, Debug)]
pub struct Destination {
    client: Client,
    kind: Kind,
    name: String,
}

/// What is asked for at creation; the server's settings say the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How many messages may wait, of a topic for each subscriber.
    pub max_length: Option<u64>,
    /// How long a message waits before it is dead.
    pub message_ttl: Option<Duration>,
    /// How often a message may come back, given back or with its lease over; once more, and it is dead.
    pub delivery_limit: Option<u32>,
}

/// What is known of a topic or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The user that created it.
    pub creator: Uuid,
    /// What was asked for at its creation.
    pub options: Options,
    /// When it was created.
    pub created_at: Option<SystemTime>,
    /// How many messages wait: of a topic, for the caller, if it subscribes.
    pub messages: Option<u32>,
}

/// What is known of one topic or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is known of each in a list.
    pub info: Info,
    /// How many users subscribe to it.
    pub subscribers: u32,
    /// Whether the caller does.
    pub is_subscribed: bool,
}

impl Destination {
    pub(crate) fn new(client: Client, kind: Kind, name: String) -> Self {
        Self { client, kind, name }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Creates it and subscribes the caller. Answers `false` if it was there already, the caller's
    /// and with these options.
    pub async fn create(&self, options: &Options) -> Result<bool, Error> {
        let request = mom::CreateRequest {
            kind: self.kind.wire(),
            name: self.name.clone(),
            options: Some(options.wire()),
        };
        let call =
            |mut client: MomClient<Channel>, request| async move { client.create(request).await };
        let created = self.client.call(request, &[], call).await?;
        Ok(!created.existed)
    }

    /// What is known of it.
    pub async fn show(&self) -> Result<Shown, Error> {
        let request = mom::ShowRequest { kind: self.kind.wire(), name: self.name.clone() };
        let call =
            |mut client: MomClient<Channel>, request| async move { client.show(request).await };
        let shown = self.client.call(request, &[], call).await?;
        Ok(Shown {
            info: shown.object.unwrap_or_default().into(),
            subscribers: shown.subscribers,
            is_subscribed: shown.is_subscribed,
        })
    }

    /// Deletes it with its messages. Only its creator may.
    pub async fn delete(&self) -> Result<(), Error> {
        let request = mom::DeleteRequest { kind: self.kind.wire(), name: self.name.clone() };
        let done = [Code::UnknownTopic, Code::UnknownQueue];
        let call =
            |mut client: MomClient<Channel>, request| async move { client.delete(request).await };
        self.client.call(request, &done, call).await?;
        Ok(())
    }

    /// Subscribes the caller.
    pub async fn subscribe(&self) -> Result<(), Error> {
        let request = mom::SubscribeRequest { kind: self.kind.wire(), name: self.name.clone() };
        let call = |mut client: MomClient<Channel>, request| async move {
            client.subscribe(request).await
        };
        self.client.call(request, &[Code::AlreadySubscribed], call).await?;
        Ok(())
    }

    /// Ends the caller's subscription; of a topic, also deletes the messages that wait for it.
    pub async fn unsubscribe(&self) -> Result<(), Error> {
        let request = mom::UnsubscribeRequest { kind: self.kind.wire(), name: self.name.clone() };
        let call = |mut client: MomClient<Channel>, request| async move {
            client.unsubscribe(request).await
        };
        self.client.call(request, &[Code::NotSubscribed], call).await?;
        Ok(())
    }

    /// Publishes a message; when it answers, the message is stored safely.
    pub async fn publish(&self, message: impl Into<NewMessage>) -> Result<Published, Error> {
        let request = self.publish_request(message.into(), 0);
        let call =
            |mut client: MomClient<Channel>, request| async move { client.publish(request).await };
        let published = self.client.call(request, &[], call).await?;
        Ok(Published::of(&published))
    }

    pub(crate) fn publish_request(
        &self,
        message: NewMessage,
        sequence: u64,
    ) -> mom::PublishRequest {
        mom::PublishRequest {
            kind: self.kind.wire(),
            name: self.name.clone(),
            content_type: message.content_type,
            headers: message.headers,
            body: message.body,
            idempotency_key: message.idempotency_key,
            sequence,
        }
    }

    /// Consumes messages as they come, at most `prefetch` of them unsettled at a time, from 1 to
    /// 1,000. Only subscribers may.
    pub fn consume(&self, prefetch: u16) -> Consumer {
        Consumer::new(self, prefetch)
    }

    /// Takes one message, waiting for it so long. It is gone with the answer, also if that is lost
    /// on its way.
    pub async fn take(&self, wait: Duration) -> Result<Option<Message>, Error> {
        let taken = self.consume_one(wait, mom::AckMode::Auto, None).await?;
        Ok(taken.message.map(Message::from))
    }

    /// Borrows one message, waiting for it so long. It goes back unless it is acknowledged before
    /// `lease` is over.
    pub async fn lend(&self, wait: Duration, lease: Duration) -> Result<Option<Lent>, Error> {
        let taken = self.consume_one(wait, mom::AckMode::Manual, Some(lease)).await?;
        Ok(taken.message.map(|message| Lent::new(&self.client, message.into(), taken.lease)))
    }

    async fn consume_one(
        &self,
        wait: Duration,
        ack: mom::AckMode,
        lease: Option<Duration>,
    ) -> Result<mom::ConsumeResponse, Error> {
        let request = mom::ConsumeRequest {
            kind: self.kind.wire(),
            name: self.name.clone(),
            wait: Some(time::duration(wait)),
            ack: ack.into(),
            lease: lease.map(time::duration),
        };
        let call =
            |mut client: MomClient<Channel>, request| async move { client.consume(request).await };
        self.client.call_waiting(request, wait, &[], call).await
    }

    /// The first messages that wait, at most `limit`; they stay where they are. Before RabbitMQ 4.3,
    /// each look counts as a delivery of theirs.
    pub async fn peek(&self, limit: u32) -> Result<Vec<Message>, Error> {
        let request = mom::PeekRequest { kind: self.kind.wire(), name: self.name.clone(), limit };
        let call =
            |mut client: MomClient<Channel>, request| async move { client.peek(request).await };
        let peeked = self.client.call(request, &[], call).await?;
        Ok(peeked.messages.into_iter().map(Message::from).collect())
    }

    /// Deletes the messages that wait, and answers how many: of a queue, for its creator; of a
    /// topic, the caller's own.
    pub async fn purge(&self) -> Result<u32, Error> {
        let request = mom::PurgeRequest { kind: self.kind.wire(), name: self.name.clone() };
        let call =
            |mut client: MomClient<Channel>, request| async move { client.purge(request).await };
        Ok(self.client.call(request, &[], call).await?.purged)
    }
}

impl Kind {
    pub(crate) fn wire(self) -> i32 {
        match self {
            Self::Topic => mom::Kind::Topic.into(),
            Self::Queue => mom::Kind::Queue.into(),
        }
    }
}

impl Options {
    fn wire(&self) -> mom::Options {
        mom::Options {
            max_length: self.max_length,
            message_ttl: self.message_ttl.map(time::duration),
            delivery_limit: self.delivery_limit,
        }
    }
}

impl From<mom::Object> for Info {
    fn from(object: mom::Object) -> Self {
        let kind = match object.kind() {
            mom::Kind::Topic => Kind::Topic,
            mom::Kind::Queue | mom::Kind::Unspecified => Kind::Queue,
        };
        let options = object.options.unwrap_or_default();
        Self {
            kind,
            name: object.name,
            creator: object.creator.parse().unwrap_or_default(),
            options: Options {
                max_length: options.max_length,
                message_ttl: options.message_ttl.and_then(|ttl| ttl.try_into().ok()),
                delivery_limit: options.delivery_limit,
            },
            created_at: time::time(object.created_at),
            messages: object.messages,
        }
    }
}

//! What a client asks for, carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use platziverse_broker::aggregator::PostError;
use platziverse_broker::aggregator::{
    Claim, ClaimState, Handed, Kind, Post, Request, Sender, To, client_key,
};
use platziverse_protocol::time::Timestamp;
use platziverse_service::clock;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::close::Close;
use super::pending::REQUESTS_MAX;
use super::wire::Wire;
use super::{Session, Working};
use crate::channel::{Channel, ChannelSet};
use crate::claims;
use crate::core::Core;
use crate::hub::Wants;
use crate::outbox::Frame;
use crate::packet::{
    Ask, Audience, Code, Existence, Order, Publish, Reason, Receipt, Reply, Subscription, pong,
};

/// A packet whose messages have their places among those that go to RabbitMQ.
pub(super) struct Entered {
    id: Option<String>,
    handed: Vec<Handed>,
    direct: Vec<String>,
}

/// What has become of a packet that took its time.
pub(super) enum Done {
    /// Something was published, or not; which of the clients there are.
    Published {
        id: Option<String>,
        clients: BTreeMap<String, Existence>,
        outcome: Result<(), PostError>,
    },
    /// A request was sent, or not.
    Asked { id: String, outcome: Result<Asked, PostError> },
    /// Others were told that the session goes on here, as far as they could be.
    Told,
}

/// What has become of a request.
pub(super) enum Asked {
    Sent,
    /// It had been sent before.
    Before,
    /// It had been sent before, and this came of it.
    Answered(Arc<Frame>),
    /// Its time was over before it could be sent.
    TooLate,
}

impl Session {
    /// Carries out a packet, or begins to.
    pub(super) async fn carry_out(&mut self, wire: &mut Wire, order: Order) -> Result<(), Close> {
        let Order { id, ask } = order;
        self.core.metrics.packet(name(&ask));
        match ask {
            Ask::Consume(what) => {
                for channel in self.chosen(&what).iter() {
                    self.consume(channel);
                }
                self.receive(wire, id).await
            }
            Ask::Unsubscribe(what) => {
                for channel in self.chosen(&what).iter() {
                    self.unsubscribe(channel);
                }
                self.receive(wire, id).await
            }
            Ask::Publish(publish) => {
                self.publish(id, publish);
                Ok(())
            }
            Ask::Request { channel, to, within, message } => {
                // It has one: else it is refused where packets are read.
                let id = id.unwrap_or_default();
                self.request(wire, id, channel, to, within, message).await
            }
            Ask::Reply(reply) => {
                self.reply(id, reply);
                Ok(())
            }
            Ask::Ack(offsets) => self.ack(wire, id, offsets).await,
            Ask::Ping => wire.say(pong(id.as_deref())).await,
            Ask::Pong => Ok(()),
        }
    }

    /// The channels that are meant: those with a source among the named ones, if any is named.
    fn chosen(&self, what: &Subscription) -> ChannelSet {
        if what.sources.is_empty() {
            return what.channels;
        }
        what.sources.iter().filter_map(|source| self.core.channels.of_source(source)).collect()
    }

    fn consume(&mut self, channel: Channel) {
        let Some(hub) = self.core.hub(channel) else { return };
        if self.consumes.insert(channel) {
            let next = hub.subscribe(&self.mailbox, Wants::Everything);
            self.attached.insert(channel);
            if let Some(offset) = self.offsets.get_mut(channel.index()) {
                *offset = next;
            }
        }
    }

    fn unsubscribe(&mut self, channel: Channel) {
        if self.consumes.remove(channel)
            && let Some(hub) = self.core.hub(channel)
        {
            hub.unsubscribe(&self.mailbox, Some(Wants::Replies));
        }
    }

    /// Says that a packet is carried out, and how to go on with the session from now on.
    async fn receive(&mut self, wire: &mut Wire, id: Option<String>) -> Result<(), Close> {
        let Some(id) = id else { return Ok(()) };
        let token = self.token();
        let receipt = Receipt { id: &id, clients: BTreeMap::new(), resume_token: Some(&token) };
        wire.say(receipt.packet()).await
    }

    async fn ack(
        &mut self,
        wire: &mut Wire,
        id: Option<String>,
        offsets: BTreeMap<String, u64>,
    ) -> Result<(), Close> {
        for (source, last) in offsets {
            let Some(channel) = self.core.channels.of_source(&source) else {
                let there: Vec<_> =
                    self.core.channels.iter().map(|one| self.core.channels.source(one)).collect();
                let detail =
                    format!("there is no source {source:?}: there are {}", there.join(", "));
                let reason = Reason::new(Code::UnknownTarget, detail);
                return self.refuse(wire, id.as_deref(), &reason).await;
            };
            let end = self.core.next(channel);
            if let Some(offset) = self.offsets.get_mut(channel.index()) {
                // Nobody has what has not come yet.
                *offset = last.saturating_add(1).min(end).max(*offset);
            }
        }
        self.receive(wire, id).await
    }

    fn publish(&mut self, id: Option<String>, publish: Publish) {
        let Publish { channels, audience, message } = publish;
        let body = Bytes::from(message);
        // It goes once for each channel, and each client that it names is looked for; once is what it
        // has counted for.
        let named = match &audience {
            Audience::Clients { clients, .. } => clients.len().max(1),
            Audience::Servers | Audience::Everyone => 1,
        };
        let copies = channels.iter().count();
        self.pace.pass((copies * named).saturating_sub(1));
        self.flow.pass(body.len() * copies.saturating_sub(1));
        let to = channels.iter().map(|channel| self.addressed(channel, &audience));
        let posts: Vec<_> =
            to.map(|to| self.signed(Post::new(to, Kind::Publish, body.clone()))).collect();
        let direct = match audience {
            Audience::Clients { clients, is_direct: true } => clients,
            _ => Vec::new(),
        };
        self.enter(id, posts, direct);
    }

    fn addressed(&self, channel: Channel, audience: &Audience) -> To {
        let channel = self.core.channels.name(channel).to_owned();
        match audience {
            Audience::Servers => To::Servers { channel },
            Audience::Everyone => To::Everyone { channel },
            Audience::Clients { clients, .. } => match clients.as_slice() {
                [client] => To::Client { channel, client: client.clone() },
                clients => To::Clients { channel, clients: clients.to_vec() },
            },
        }
    }

    fn reply(&mut self, id: Option<String>, reply: Reply) {
        let Reply { channel, to, request, message } = reply;
        let channel = self.core.channels.name(channel).to_owned();
        let to = match to {
            Some(client) => To::Client { channel, client },
            None => To::Servers { channel },
        };
        let request = Some(Request { id: request, reply_to: None, deadline: None });
        let post = self.signed(Post { request, ..Post::new(to, Kind::Reply, message) });
        self.enter(id, vec![post], Vec::new());
    }

    /// A message as one of this client.
    fn signed(&self, post: Post) -> Post {
        let client = Some(self.seat.client().to_string());
        Post { client, session: Some(self.mailbox.session()), ..post }
    }

    /// Gives the messages of a packet their places among those that go to RabbitMQ. The clients of
    /// `direct` are then looked for.
    fn enter(&mut self, id: Option<String>, posts: Vec<Post>, direct: Vec<String>) {
        let sender = self.core.sender.clone();
        let deadline = sender.deadline();
        self.entering = Some(Box::pin(async move {
            let mut handed = Vec::with_capacity(posts.len());
            for post in posts {
                handed.push(sender.hand_by(post, deadline).await);
            }
            Entered { id, handed, direct }
        }));
    }

    /// Waits for what becomes of a packet whose messages have their places.
    pub(super) fn await_published(&mut self, entered: Entered) {
        let core = Arc::clone(&self.core);
        self.begin(Box::pin(published(core, entered)));
    }

    pub(super) fn begin(&mut self, working: Working) {
        self.work.push(working);
    }

    async fn request(
        &mut self,
        wire: &mut Wire,
        id: String,
        channel: Channel,
        to: Option<String>,
        within: Duration,
        message: String,
    ) -> Result<(), Close> {
        let until = Instant::now() + within;
        if !self.pending.open(&id, to.as_deref(), until) {
            let text = format!("{REQUESTS_MAX} requests of this socket are open: wait for some");
            return wire.say(Reason::new(Code::TooMany, text).packet(Some(&id))).await;
        }
        self.attach(channel);
        let name = self.core.channels.name(channel).to_owned();
        let request = Request {
            id: id.clone(),
            reply_to: Some(client_key(&name, self.seat.client())),
            deadline: deadline(within),
        };
        let to = match to {
            Some(client) => To::Client { channel: name, client },
            None => To::Servers { channel: name },
        };
        let post =
            self.signed(Post { request: Some(request), ..Post::new(to, Kind::Request, message) });
        self.begin(Box::pin(ask(Arc::clone(&self.core), id, channel, post, until)));
        Ok(())
    }

    /// Tells what has become of a packet.
    pub(super) async fn answer(&mut self, wire: &mut Wire, done: Done) -> Result<(), Close> {
        match done {
            Done::Published { id, clients, outcome: Ok(()) } => {
                let Some(id) = id else { return Ok(()) };
                let clients = clients.iter().map(|(client, is)| (client.as_str(), *is)).collect();
                wire.say(Receipt { id: &id, clients, resume_token: None }.packet()).await
            }
            Done::Published { id, outcome: Err(error), .. } => {
                wire.say(reason(&error).packet(id.as_deref())).await
            }
            // The client has been told when the time was over.
            Done::Asked { outcome: Ok(Asked::Sent | Asked::TooLate), .. } | Done::Told => Ok(()),
            Done::Asked { outcome: Ok(Asked::Before), .. } => {
                self.core.metrics.repeated.inc();
                Ok(())
            }
            Done::Asked { outcome: Ok(Asked::Answered(frame)), .. } => {
                self.core.metrics.repeated.inc();
                self.write(wire, &frame, false).await?;
                wire.flush().await
            }
            Done::Asked { id, outcome: Err(error) } => {
                if !self.pending.close(&id) {
                    return Ok(());
                }
                self.core.metrics.request("error");
                wire.say(reason(&error).packet(Some(&id))).await
            }
        }
    }
}

/// Waits until everything is stored that makes up a publish.
async fn published(core: Arc<Core>, entered: Entered) -> Done {
    let Entered { id, handed, direct } = entered;
    let confirmed = join_all(handed.into_iter().map(Handed::confirmed));
    let (confirmed, clients) = tokio::join!(confirmed, existing(core, direct));
    let outcome: Result<(), PostError> = confirmed.into_iter().collect();
    match clients {
        Ok(clients) => Done::Published { id, clients, outcome },
        Err(error) => {
            let outcome = outcome.and(Err(error));
            Done::Published { id, clients: BTreeMap::new(), outcome }
        }
    }
}

/// Sends a request, unless it has been sent before. It is a task of its own: what is claimed when a
/// socket ends is to be sent.
async fn ask(core: Arc<Core>, id: String, channel: Channel, post: Post, until: Instant) -> Done {
    let (done, told) = oneshot::channel();
    let (drain, request) = (core.drain.clone(), id.clone());
    drain.spawn_isolated(async move {
        let _ = done.send(send(&core, channel, &request, post, until).await);
    });
    Done::Asked { id, outcome: told.await.unwrap_or_else(|_| Err(ending())) }
}

async fn send(
    core: &Core,
    channel: Channel,
    id: &str,
    post: Post,
    until: Instant,
) -> Result<Asked, PostError> {
    let client = post.client.clone().unwrap_or_default();
    let asked = match &post.to {
        To::Client { client, .. } => Some(client.clone()),
        _ => None,
    };
    let mut taken = tokio::select! {
        taken = claims::take(core, &client, id) => taken,
        () = sleep_until(until) => return Ok(Asked::TooLate),
        () = core.drain.requested() => return Err(ending()),
    };
    let is_ours = tokio::select! {
        // What is ours is to be sent.
        biased;
        is_ours = claims::is_ours(core, &mut taken, &client, id) => is_ours.map(Some),
        () = sleep_until(until) => Ok(None),
        () = core.drain.requested() => Err(ending()),
    };
    match is_ours {
        Ok(Some(true)) => {}
        Ok(Some(false)) => {
            let outcome = core.hub(channel);
            let outcome = outcome.and_then(|hub| hub.outcome(&client, id, asked.as_deref()));
            return Ok(outcome.map_or(Asked::Before, Asked::Answered));
        }
        Ok(None) | Err(_) => {
            tell(core, taken.claim.take(), ClaimState::Void);
            return is_ours.map(|_| Asked::TooLate);
        }
    }
    let sent = core.sender.hand(post).await.confirmed().await;
    match &sent {
        Ok(()) => {
            core.book.stored(&client, id);
            if asked.is_some() {
                // It is not in the stream of requests by itself.
                tell(core, taken.claim.take(), ClaimState::Sent);
            }
        }
        Err(PostError::Full) => withdraw(&core.sender, client, id.to_owned()).await,
        Err(PostError::TooLarge(_)) => tell(core, taken.claim.take(), ClaimState::Void),
        // What is read after another claim says whether RabbitMQ has it all the same.
        Err(PostError::Unavailable(_)) => {}
    }
    sent.map(|()| Asked::Sent)
}

/// Lets all aggregators know what has become of a claim. Nobody waits for it.
fn tell(core: &Core, claim: Option<Claim>, state: ClaimState) {
    let Some(claim) = claim else { return };
    core.drain.spawn_isolated(claims::tell(core.sender.clone(), Claim { state, ..claim }));
}

fn ending() -> PostError {
    PostError::Unavailable("this aggregator ends".to_owned())
}

/// Tells all aggregators that no server gets a request that is in the stream of requests.
async fn withdraw(sender: &Sender, client: String, request: String) {
    let post = Post::new(To::Withdrawn { client, request }, Kind::Publish, "");
    if let Err(error) = sender.hand(post).await.confirmed().await {
        tracing::debug!("a request that was refused could not be withdrawn: {error}");
    }
}

/// Which of these clients there are.
async fn existing(
    core: Arc<Core>,
    clients: Vec<String>,
) -> Result<BTreeMap<String, Existence>, PostError> {
    let mut asking = Vec::with_capacity(clients.len());
    for client in clients {
        asking.push(existence(Arc::clone(&core), client));
    }
    join_all(asking).await.into_iter().collect()
}

async fn existence(core: Arc<Core>, client: String) -> Result<(String, Existence), PostError> {
    let is_known = core.presence.has(&client) || core.sender.exists(&client).await?;
    Ok((client, if is_known { Existence::Known } else { Existence::Unknown }))
}

fn reason(error: &PostError) -> Reason {
    match error {
        PostError::Full => {
            let text = "the servers of the channel have more to do than its queue may hold: send it \
                        again later";
            Reason::new(Code::Unavailable, text)
        }
        PostError::TooLarge(why) => Reason::new(Code::TooLarge, why.clone()),
        PostError::Unavailable(why) => {
            tracing::debug!("a client's message could not be published: {why}");
            let text = "RabbitMQ does not answer as it should: it may have it all the same. A request can \
                        be sent again under the same id";
            Reason::new(Code::Unavailable, text)
        }
    }
}

fn deadline(within: Duration) -> Option<Timestamp> {
    let within = i64::try_from(within.as_millis()).ok()?;
    Timestamp::from_millis(clock::now().as_millis().checked_add(within)?).ok()
}

fn name(ask: &Ask) -> &'static str {
    match ask {
        Ask::Consume(_) => "consume",
        Ask::Unsubscribe(_) => "unsubscribe",
        Ask::Publish(_) => "publish",
        Ask::Request { .. } => "request",
        Ask::Reply(_) => "reply",
        Ask::Ack(_) => "ack",
        Ask::Ping => "ping",
        Ask::Pong => "pong",
    }
}

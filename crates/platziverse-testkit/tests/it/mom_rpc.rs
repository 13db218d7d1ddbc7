//! `mom.v1` over gRPC: every call, streams, and what becomes of them when something ends.

mod streams;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream;
use platziverse_rpc::code_of;
use platziverse_rpc::mom::consume_stream_request::Request as Settling;
use platziverse_rpc::mom::mom_client::MomClient;
use platziverse_rpc::mom::settle_request::How;
use platziverse_rpc::mom::{
    Ack, AckMode, ConsumeRequest, ConsumeStreamRequest, ConsumeStreamResponse, CreateRequest,
    CreateUserRequest, DeleteRequest, DeleteUserRequest, Extend, GetUserRequest, Kind, ListRequest,
    Message, Nack, Open, Options, PeekRequest, PublishRequest, PublishResponse, PurgeRequest,
    RotateKeyRequest, SettleRequest, ShowRequest, SubscribeRequest, Tags, UnsubscribeRequest,
    Which,
};
use platziverse_testkit::{Mom, PATIENCE, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const TOPIC: i32 = Kind::Topic as i32;
const QUEUE: i32 = Kind::Queue as i32;

/// A user at a server.
#[derive(Clone)]
struct User {
    stub: MomClient<Channel>,
    id: String,
    key: String,
}

async fn channel(address: std::net::SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("connected")
}

impl User {
    async fn new(mom: &Mom) -> Self {
        let mut stub = MomClient::new(channel(mom.grpc()).await);
        let user = stub.create_user(CreateUserRequest {}).await.expect("a user").into_inner();
        Self { stub, id: user.id, key: user.key }
    }

    /// The same user at another server.
    async fn at(&self, address: std::net::SocketAddr) -> Self {
        Self { stub: MomClient::new(channel(address).await), ..self.clone() }
    }

    fn asks<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.key).parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    fn stub(&self) -> MomClient<Channel> {
        self.stub.clone()
    }

    async fn create(&self, kind: i32, name: &str) {
        let request = CreateRequest { kind, name: name.to_owned(), options: None };
        self.stub().create(self.asks(request)).await.expect("created");
    }

    async fn subscribe(&self, kind: i32, name: &str) {
        let request = SubscribeRequest { kind, name: name.to_owned() };
        self.stub().subscribe(self.asks(request)).await.expect("subscribed");
    }

    async fn publish(&self, kind: i32, name: &str, body: &str) -> PublishResponse {
        let answer = self.stub().publish(self.asks(publish(kind, name, 0, body))).await;
        answer.expect("published").into_inner()
    }

    /// Publishes over one stream, and answers what each was told, by its sequence.
    async fn publish_all(
        &self,
        requests: Vec<PublishRequest>,
    ) -> Result<BTreeMap<u64, PublishResponse>, Status> {
        let answers = self.stub().publish_stream(self.asks(stream::iter(requests))).await?;
        let (mut answers, mut told) = (answers.into_inner(), BTreeMap::new());
        while let Some(answer) = answers.message().await? {
            assert!(told.insert(answer.sequence, answer).is_none(), "answered twice");
        }
        Ok(told)
    }

    async fn consume(&self, kind: i32, name: &str) -> Option<Message> {
        let request = ConsumeRequest { kind, name: name.to_owned(), ..ConsumeRequest::default() };
        let answer = self.stub().consume(self.asks(request)).await.expect("consumed");
        answer.into_inner().message
    }

    /// Takes a message that is lent for a minute.
    async fn borrow(&self, kind: i32, name: &str) -> (Message, String) {
        let request = ConsumeRequest {
            kind,
            name: name.to_owned(),
            wait: seconds(10),
            ack: AckMode::Manual.into(),
            lease: seconds(60),
        };
        let answer = self.stub().consume(self.asks(request)).await.expect("consumed").into_inner();
        (answer.message.expect("a message"), answer.lease)
    }

    async fn settle(&self, lease: &str, how: How) -> Result<(), Status> {
        let request = SettleRequest { lease: lease.to_owned(), how: Some(how) };
        self.stub().settle(self.asks(request)).await.map(drop)
    }

    /// How many messages wait.
    async fn waiting(&self, kind: i32, name: &str) -> u32 {
        let request = ShowRequest { kind, name: name.to_owned() };
        let shown = self.stub().show(self.asks(request)).await.expect("shown").into_inner();
        shown.object.expect("an object").messages.expect("a count")
    }

    async fn consumer(&self, kind: i32, name: &str, prefetch: u32) -> Result<Consumer, Status> {
        let (requests, mut asked) = mpsc::channel(64);
        let open = Settling::Open(Open { kind, name: name.to_owned(), prefetch });
        requests.try_send(ConsumeStreamRequest { request: Some(open) }).expect("room");
        let asked = self.asks(stream::poll_fn(move |context| asked.poll_recv(context)));
        let deliveries = self.stub().consume_stream(asked).await?.into_inner();
        Ok(Consumer { requests, deliveries })
    }
}

/// A stream of deliveries.
struct Consumer {
    requests: mpsc::Sender<ConsumeStreamRequest>,
    deliveries: Streaming<ConsumeStreamResponse>,
}

impl Consumer {
    async fn next(&mut self) -> Result<Option<(u64, Message)>, Status> {
        let next = timeout(PATIENCE, self.deliveries.message()).await.expect("in time")?;
        Ok(next.map(|next| (next.tag, next.message.expect("a message"))))
    }

    /// The next message, which there must be.
    async fn take(&mut self) -> (u64, Message) {
        self.next().await.expect("no error").expect("a message")
    }

    async fn settle(&self, settling: Settling) {
        let request = ConsumeStreamRequest { request: Some(settling) };
        self.requests.send(request).await.expect("sent");
    }

    async fn ack(&self, tags: &[u64]) {
        self.settle(Settling::Ack(Tags { tags: tags.to_vec() })).await;
    }

    /// How the stream ends.
    async fn end(&mut self) -> Result<(), Status> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Says that nothing more is settled, and waits for the end.
    async fn close(self) -> Result<(), Status> {
        let Self { requests, deliveries } = self;
        drop(requests);
        let (requests, _) = mpsc::channel(1);
        Self { requests, deliveries }.end().await
    }
}

fn publish(kind: i32, name: &str, sequence: u64, body: &str) -> PublishRequest {
    let (name, body) = (name.to_owned(), body.to_owned().into());
    PublishRequest { kind, name, sequence, body, ..PublishRequest::default() }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn text(message: &Message) -> &str {
    str::from_utf8(&message.body).expect("text")
}

/// The status and the stable code of what was refused.
fn refused<T>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.err().expect("it was not refused");
    let code = code_of(&status).map(|(code, _)| code);
    (status.code(), code.unwrap_or_else(|| panic!("no code: {status:?}")))
}

fn is(status: Code, code: &str) -> (Code, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_topics_and_queues_over_grpc() {
    let world = World::start().await;
    let mom = world.mom().await;
    let (mut alice, bob) = (User::new(&mom).await, User::new(&mom).await);
    let who = alice.stub().get_user(alice.asks(GetUserRequest {})).await.expect("a user");
    assert_eq!(who.into_inner().id, alice.id);
    let rotated = alice.stub().rotate_key(alice.asks(RotateKeyRequest {})).await.expect("a key");
    let unknown = alice.clone();
    alice.key = rotated.into_inner().key;
    let asked = unknown.stub().get_user(unknown.asks(GetUserRequest {})).await;
    assert_eq!(refused(asked), is(Code::Unauthenticated, "unknown_key"));
    let asked = alice.stub().get_user(GetUserRequest {}).await;
    assert_eq!(refused(asked), is(Code::Unauthenticated, "unknown_key"));

    let options = Options {
        max_length: Some(10),
        message_ttl: Some(prost_types::Duration { seconds: 60, nanos: 500_000_000 }),
        delivery_limit: Some(3),
    };
    for kind in [TOPIC, QUEUE] {
        let named =
            |name: &str| CreateRequest { kind, name: name.to_owned(), options: Some(options) };
        for existed in [false, true] {
            let created = alice.stub().create(alice.asks(named("a"))).await.expect("created");
            assert_eq!(created.into_inner().existed, existed);
        }
        let taken = bob.stub().create(bob.asks(named("a"))).await;
        assert_eq!(refused(taken), is(Code::AlreadyExists, "already_exists"));
        let wrong = alice.stub().create(alice.asks(named("a\n"))).await;
        assert_eq!(refused(wrong), is(Code::InvalidArgument, "invalid_name"));
        alice.create(kind, "b").await;
        bob.subscribe(kind, "a").await;

        let show = ShowRequest { kind, name: "a".to_owned() };
        let shown = alice.stub().show(alice.asks(show)).await.expect("shown").into_inner();
        assert_eq!((shown.subscribers, shown.is_subscribed), (2, true));
        let object = shown.object.expect("an object");
        assert_eq!((object.kind, &*object.name, &object.creator), (kind, "a", &alice.id));
        assert_eq!((object.options, object.messages), (Some(options), Some(0)));

        assert_eq!(list(&alice, kind, Which::Created).await, ["a", "b"]);
        assert_eq!(list(&bob, kind, Which::Created).await, [""; 0]);
        assert_eq!(list(&bob, kind, Which::Subscribed).await, ["a"]);

        let delete = |name: &str| DeleteRequest { kind, name: name.to_owned() };
        let not_theirs = bob.stub().delete(bob.asks(delete("a"))).await;
        assert_eq!(refused(not_theirs), is(Code::PermissionDenied, "not_creator"));
        let leave = || UnsubscribeRequest { kind, name: "a".to_owned() };
        bob.stub().unsubscribe(bob.asks(leave())).await.expect("unsubscribed");
        let left = bob.stub().unsubscribe(bob.asks(leave())).await;
        assert_eq!(refused(left), is(Code::PermissionDenied, "not_subscribed"));

        let used = alice.stub().delete_user(alice.asks(DeleteUserRequest {})).await;
        assert_eq!(refused(used), is(Code::FailedPrecondition, "has_objects"));
        for name in ["a", "b"] {
            alice.stub().delete(alice.asks(delete(name))).await.expect("deleted");
        }
        let deleted = alice.stub().delete(alice.asks(delete("a"))).await;
        let word = if kind == TOPIC { "unknown_topic" } else { "unknown_queue" };
        assert_eq!(refused(deleted), is(Code::NotFound, word));
    }
    alice.stub().delete_user(alice.asks(DeleteUserRequest {})).await.expect("deleted");
    let asked = alice.stub().get_user(alice.asks(GetUserRequest {})).await;
    assert_eq!(refused(asked), is(Code::Unauthenticated, "unknown_key"));
}

/// The names of a list, read page by page.
async fn list(user: &User, kind: i32, which: Which) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let request = ListRequest { kind, which: which.into(), after, limit: 1 };
        let page = user.stub().list(user.asks(request)).await.expect("a list").into_inner();
        names.extend(page.objects.into_iter().map(|object| object.name));
        if page.next.is_empty() {
            return names;
        }
        after = page.next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_over_grpc() {
    let world = World::start().await;
    let (first, second) = (world.mom().await, world.mom().await);
    let alice = User::new(&first).await;
    let elsewhere = alice.at(second.grpc()).await;
    alice.create(QUEUE, "work").await;
    assert_eq!(alice.consume(QUEUE, "work").await, None);

    let request = PublishRequest {
        content_type: "text/plain".to_owned(),
        headers: BTreeMap::from([("colour".to_owned(), "blau, grün".to_owned())]),
        idempotency_key: "k".to_owned(),
        ..publish(QUEUE, "work", 7, "hello")
    };
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let answer = alice.stub().publish(alice.asks(request.clone())).await.expect("published");
        let PublishResponse { id, receivers, sequence, problem } = answer.into_inner();
        assert_eq!((receivers, sequence, problem), (1, 7, None));
        ids.insert(id);
    }
    let peek = PeekRequest { kind: QUEUE, name: "work".to_owned(), limit: 0 };
    let seen = elsewhere.stub().peek(elsewhere.asks(peek)).await.expect("seen").into_inner();
    assert_eq!(seen.messages.iter().map(text).collect::<Vec<_>>(), ["hello"]);

    let (message, lease) = alice.borrow(QUEUE, "work").await;
    assert_eq!((text(&message), &*message.content_type), ("hello", "text/plain"));
    assert_eq!((message.headers, &message.publisher), (request.headers, &alice.id));
    assert!(ids == BTreeSet::from([message.id]) && message.timestamp.is_some());
    elsewhere.settle(&lease, How::Extend(Extend { lease: seconds(90) })).await.expect("extended");
    elsewhere.settle(&lease, How::Nack(Nack {})).await.expect("back");
    let gone = alice.settle(&lease, How::Ack(Ack {})).await;
    assert_eq!(refused(gone), is(Code::FailedPrecondition, "lease_gone"));
    let (again, lease) = elsewhere.borrow(QUEUE, "work").await;
    assert!(again.redelivered, "{again:?}");
    alice.settle(&lease, How::Ack(Ack {})).await.expect("settled");

    for body in ["1", "2"] {
        alice.publish(QUEUE, "work", body).await;
    }
    let purge = PurgeRequest { kind: QUEUE, name: "work".to_owned() };
    let purged = elsewhere.stub().purge(elsewhere.asks(purge)).await.expect("purged").into_inner();
    assert_eq!((purged.purged, alice.consume(QUEUE, "work").await), (2, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_requests_are_refused_in_words() {
    let world = World::start().await;
    let mom = world.mom_with(&[("PLATZIVERSE_MOM__BODY_BYTES_MAX", "2048")]).await;
    let user = User::new(&mom).await;
    user.create(QUEUE, "a").await;
    let wrong = is(Code::InvalidArgument, "invalid_request");
    for kind in [0, 3] {
        let answer = user.stub().publish(user.asks(publish(kind, "a", 0, "x"))).await;
        assert_eq!(refused(answer), wrong);
    }
    let consume = |wait, ack: AckMode, lease| {
        let (name, ack) = ("a".to_owned(), ack.into());
        let request = ConsumeRequest { kind: QUEUE, name, wait, ack, lease };
        async { refused(user.stub().consume(user.asks(request)).await) }
    };
    assert_eq!(consume(seconds(61), AckMode::Auto, None).await, wrong);
    assert_eq!(consume(seconds(-1), AckMode::Auto, None).await, wrong);
    assert_eq!(consume(None, AckMode::Auto, seconds(5)).await, wrong);
    assert_eq!(consume(None, AckMode::Manual, seconds(0)).await, wrong);
    let settle = SettleRequest { lease: "x".to_owned(), how: None };
    assert_eq!(refused(user.stub().settle(user.asks(settle)).await), wrong);

    // A little too large, and beyond all size.
    for bytes in [2_049, 3_000_000] {
        let message = publish(QUEUE, "a", 0, &"x".repeat(bytes));
        let answer = user.stub().publish(user.asks(message)).await;
        assert_eq!(refused(answer), is(Code::InvalidArgument, "too_large"), "{bytes}");
    }
    let streamed = user
        .publish_all(vec![
            publish(QUEUE, "a", 1, "ok"),
            publish(QUEUE, "a", 2, &"x".repeat(2_049)),
            publish(QUEUE, "none", 3, "x"),
            publish(9, "a", 4, "x"),
            publish(QUEUE, "a", 5, "ok"),
        ])
        .await
        .expect("the stream goes on");
    let problem = |answer: &PublishResponse| answer.problem.as_ref().map(|is| is.code.clone());
    let problems: Vec<_> = streamed.values().map(problem).collect();
    let [large, unknown, invalid] =
        ["too_large", "unknown_queue", "invalid_request"].map(|code| Some(code.to_owned()));
    assert_eq!(problems, [None, large, unknown, invalid, None]);
    assert_eq!(user.waiting(QUEUE, "a").await, 2);
    let beyond = vec![publish(QUEUE, "a", 1, "ok"), publish(QUEUE, "a", 2, &"x".repeat(3_000_000))];
    let ended = user.publish_all(beyond).await;
    assert_eq!(refused(ended), is(Code::InvalidArgument, "too_large"));
    assert_eq!(user.waiting(QUEUE, "a").await, 3);

    let stranger = User { key: "pk_nobody".to_owned(), ..user.clone() };
    let streamed = stranger.publish_all(vec![publish(QUEUE, "a", 1, "x")]).await;
    assert_eq!(refused(streamed), is(Code::Unauthenticated, "unknown_key"));
    assert_eq!(refused(user.consumer(QUEUE, "none", 1).await), is(Code::NotFound, "unknown_queue"));
    assert_eq!(refused(user.consumer(QUEUE, "a", 1_001).await), wrong);
    let ack = ConsumeStreamRequest { request: Some(Settling::Ack(Tags { tags: vec![1] })) };
    let unopened = user.stub().consume_stream(user.asks(stream::iter([ack]))).await;
    assert_eq!(refused(unopened), wrong);
    let mut consumer = user.consumer(QUEUE, "a", 1).await.expect("open");
    let (tag, _) = consumer.take().await;
    consumer.ack(&[tag + 1]).await;
    assert_eq!(refused(consumer.end().await), wrong);
}

/// The services that reflection tells of, and whether it describes them.
async fn reflected(address: std::net::SocketAddr) -> Vec<String> {
    let mut client = ServerReflectionClient::new(channel(address).await);
    let ask =
        |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let list = ask(MessageRequest::ListServices(String::new()));
    let answer = client.server_reflection_info(stream::iter([list])).await.expect("an answer");
    let answer = first(answer).await;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    for name in &names {
        let describe = ask(MessageRequest::FileContainingSymbol(name.clone()));
        let answer = client.server_reflection_info(stream::iter([describe])).await;
        let answer = first(answer.expect("an answer")).await;
        let described =
            matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_)));
        assert!(described, "{name}: {answer:?}");
    }
    names
}

async fn first(answer: Response<Streaming<ServerReflectionResponse>>) -> ServerReflectionResponse {
    answer.into_inner().message().await.expect("no error").expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_tell_what_they_are_and_how_they_are() {
    let world = World::start().await;
    let mom = world.mom().await;
    let health = "grpc.health.v1.Health";
    let mut names = reflected(mom.grpc()).await;
    names.sort_unstable();
    assert_eq!(names, [health, "mom.v1.Mom"]);
    let mut names = reflected(mom.older_grpc()).await;
    names.sort_unstable();
    assert_eq!(names, ["QueueService", "TopicService", "UserService", health]);

    for (address, service) in [(mom.grpc(), "mom.v1.Mom"), (mom.older_grpc(), "UserService")] {
        let mut client = HealthClient::new(channel(address).await);
        for service in ["", service] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let checked = client.check(request).await.expect("a status").into_inner();
            assert_eq!(checked.status(), ServingStatus::Serving, "{service:?}");
        }
        let request = HealthCheckRequest { service: "Other".to_owned() };
        assert_eq!(client.check(request).await.unwrap_err().code(), Code::NotFound);
    }
    let mut stub = MomClient::new(channel(mom.older_grpc()).await);
    let elsewhere = stub.create_user(CreateUserRequest {}).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_http2_is_let_go() {
    let world = World::start().await;
    let mom = world.mom().await;
    let mut silent = TcpStream::connect(mom.grpc()).await.expect("connected");
    let mut older = TcpStream::connect(mom.grpc()).await.expect("connected");
    older.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    for (what, connection) in [("silence", &mut silent), ("HTTP/1", &mut older)] {
        let mut said = Vec::new();
        let ended = timeout(PATIENCE, connection.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "{what}: it stays open");
    }
    assert_eq!(mom.metrics().await.get("platziverse_mom_grpc_connections"), 0.0);
}

//! Streams of `mom.v1`, and what becomes of them when something ends.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream;
use platziverse_rpc::code_of;
use platziverse_rpc::mom::consume_stream_request::Request as Settling;
use platziverse_rpc::mom::mom_client::MomClient;
use platziverse_rpc::mom::{
    ConsumeRequest, DeleteRequest, GetUserRequest, PublishRequest, Tags, UnsubscribeRequest,
};
use platziverse_testkit::{PATIENCE, Proxy, World, check, eventually};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{QUEUE, TOPIC, User, channel, is, publish, refused, seconds, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_over_streams_is_consumed_over_streams_of_another_server() {
    const MESSAGES: u64 = 5_000;
    let world = World::start().await;
    let (first, second) = (world.mom().await, world.mom().await);
    let (alice, bob) = (User::new(&first).await, User::new(&second).await);
    alice.create(TOPIC, "news").await;
    bob.subscribe(TOPIC, "news").await;
    let mut consumer = bob.consumer(TOPIC, "news", 200).await.expect("open");
    let consuming = async {
        for number in 1..=MESSAGES {
            let (tag, message) = consumer.take().await;
            assert_eq!(text(&message), number.to_string());
            consumer.ack(&[tag]).await;
        }
        consumer
    };
    let numbers = 1..=MESSAGES;
    let requests = numbers.map(|number| publish(TOPIC, "news", number, &number.to_string()));
    let (told, consumer) = tokio::join!(alice.publish_all(requests.collect()), consuming);
    let told = told.expect("all are answered");
    assert!(told.keys().copied().eq(1..=MESSAGES));
    for answer in told.values() {
        assert_eq!((&answer.problem, answer.receivers), (&None, 1));
    }
    consumer.close().await.expect("it ends well");
    assert_eq!(bob.consume(TOPIC, "news").await, None);
    assert_eq!(alice.consume(TOPIC, "news").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_stream_keep_their_order() {
    const MESSAGES: u64 = 1_500;
    let world = World::start().await;
    let mom = world.mom_with(&[("PLATZIVERSE_MOM__RATE_PER_KEY", "500")]).await;
    let (alice, bob) = (User::new(&mom).await, User::new(&mom).await);
    alice.create(QUEUE, "a").await;
    bob.subscribe(QUEUE, "a").await;
    // What has a key is looked for first, and what is above the rate waits: nothing may overtake it.
    let request = |number: u64| PublishRequest {
        idempotency_key: if number % 3 == 1 { number.to_string() } else { String::new() },
        ..publish(QUEUE, "a", number, &number.to_string())
    };
    // Those that are refused have no place.
    let wrong = PublishRequest { sequence: MESSAGES + 1, ..PublishRequest::default() };
    let mut requests: Vec<_> = (1..=MESSAGES).map(request).collect();
    requests.insert(700, wrong);
    let told = alice.publish_all(requests).await.expect("all are answered");
    let refused = told.iter().filter(|(_, answer)| answer.problem.is_some());
    assert!(refused.map(|(sequence, _)| *sequence).eq([MESSAGES + 1]));
    let mut consumer = bob.consumer(QUEUE, "a", 200).await.expect("open");
    for number in 1..=MESSAGES {
        let (tag, message) = consumer.take().await;
        assert_eq!(text(&message), number.to_string());
        consumer.ack(&[tag]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_holds_its_prefetch_and_gives_it_back() {
    let world = World::start().await;
    let mom = world.mom().await;
    let user = User::new(&mom).await;
    user.create(QUEUE, "work").await;
    for number in 1..=8 {
        user.publish(QUEUE, "work", &number.to_string()).await;
    }
    let proxy = Proxy::start(mom.grpc()).await;
    let mut consumer =
        user.at(proxy.address()).await.consumer(QUEUE, "work", 5).await.expect("open");
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(consumer.take().await);
    }
    assert_eq!(user.waiting(QUEUE, "work").await, 3);
    // What is given back comes again, and what is settled makes room.
    consumer.settle(Settling::Nack(Tags { tags: vec![held[4].0] })).await;
    let (tag, message) = consumer.take().await;
    assert!(message.redelivered && text(&message) == "5", "{message:?}");
    consumer.ack(&[held[0].0, held[1].0]).await;
    let more = [consumer.take().await, consumer.take().await];
    assert!(more.iter().all(|(_, message)| !message.redelivered), "{more:?}");
    assert_eq!(user.waiting(QUEUE, "work").await, 1);
    // Settled twice: nothing happens.
    consumer.ack(&[held[0].0, tag]).await;
    assert_eq!(text(&consumer.take().await.1), "8");
    assert_eq!(user.waiting(QUEUE, "work").await, 0);

    // 3, 4, 6, 7 and 8 are unsettled.
    proxy.cut();
    assert!(consumer.end().await.is_err());
    let mut another = user.consumer(QUEUE, "work", 5).await.expect("open");
    let mut again = Vec::new();
    for _ in 0..5 {
        let (tag, message) = another.take().await;
        assert!(message.redelivered, "{message:?}");
        again.push((text(&message).parse::<u32>().unwrap(), tag));
    }
    again.sort_unstable();
    assert!(again.iter().map(|(number, _)| *number).eq([3, 4, 6, 7, 8]), "{again:?}");
    // What was settled before the end is settled, the rest goes back.
    another.ack(&again[..4].iter().map(|(_, tag)| *tag).collect::<Vec<_>>()).await;
    another.close().await.expect("it ends well");
    eventually("the rest is back", PATIENCE, || async {
        let waiting = user.waiting(QUEUE, "work").await;
        check(waiting == 1, || format!("{waiting} wait"))
    })
    .await;
    assert_eq!(text(&user.consume(QUEUE, "work").await.expect("a message")), "8");
    assert_eq!(user.consume(QUEUE, "work").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_what_it_consumes() {
    let world = World::start().await;
    let (first, second) = (world.mom().await, world.mom().await);
    let (alice, bob) = (User::new(&first).await, User::new(&second).await);
    for kind in [QUEUE, TOPIC] {
        alice.create(kind, "a").await;
        bob.subscribe(kind, "a").await;
    }
    let mut left = bob.consumer(TOPIC, "a", 1).await.expect("open");
    let leave = UnsubscribeRequest { kind: TOPIC, name: "a".to_owned() };
    bob.stub().unsubscribe(bob.asks(leave)).await.expect("unsubscribed");
    assert_eq!(refused(left.end().await), is(Code::PermissionDenied, "not_subscribed"));
    for (kind, code) in [(QUEUE, "unknown_queue"), (TOPIC, "unknown_topic")] {
        alice.publish(kind, "a", "x").await;
        let mut consumers = [
            alice.consumer(kind, "a", 1).await.expect("open"),
            alice.consumer(kind, "a", 1).await.expect("open"),
        ];
        let delete = DeleteRequest { kind, name: "a".to_owned() };
        alice.stub().delete(alice.asks(delete)).await.expect("deleted");
        for consumer in &mut consumers {
            assert_eq!(refused(consumer.end().await), is(Code::NotFound, code));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_tells_its_streams() {
    let world = World::start().await;
    let (mut first, second) = (world.mom().await, world.mom().await);
    let user = User::new(&first).await;
    user.create(QUEUE, "a").await;
    user.publish(QUEUE, "a", "x").await;
    let mut consumer = user.consumer(QUEUE, "a", 1).await.expect("open");
    consumer.take().await;
    let mut idle = user.consumer(QUEUE, "a", 10).await.expect("open");
    let (requests, mut asked) = mpsc::channel(1);
    let asked = user.asks(stream::poll_fn(move |context| asked.poll_recv(context)));
    let mut publisher = user.stub().publish_stream(asked).await.expect("open").into_inner();
    requests.send(publish(QUEUE, "a", 1, "y")).await.expect("sent");
    let answer = publisher.message().await.expect("no error").expect("an answer");
    assert_eq!((answer.sequence, answer.problem), (1, None));
    let waiting = ConsumeRequest {
        kind: QUEUE,
        name: "a".to_owned(),
        wait: seconds(60),
        ..ConsumeRequest::default()
    };
    // The other stream has as many as it may have.
    idle.take().await;
    let mut stub = user.stub();
    let waiting = stub.consume(user.asks(waiting));
    let mut health = HealthClient::new(channel(first.grpc()).await);
    let watching = HealthCheckRequest { service: "mom.v1.Mom".to_owned() };
    let mut watched = health.watch(watching).await.expect("watching").into_inner();
    let seen = watched.message().await.expect("no error").expect("a status");
    assert_eq!(seen.status(), ServingStatus::Serving);
    let ending = async {
        first.counts("platziverse_mom_waiting_consumers", 1.0).await;
        first.terminate().await
    };
    let (waited, status) = tokio::join!(waiting, ending);
    assert!(status.success(), "{status}");
    assert_eq!(waited.expect("an answer").into_inner().message, None);
    let unavailable = is(Code::Unavailable, "unavailable");
    assert_eq!(refused(consumer.end().await), unavailable);
    assert_eq!(refused(idle.end().await), unavailable);
    assert_eq!(refused(publisher.message().await), unavailable);
    let user = user.at(second.grpc()).await;
    let mut again = [user.borrow(QUEUE, "a").await.0, user.borrow(QUEUE, "a").await.0];
    again.sort_by_key(|message| message.body.clone());
    assert_eq!(again.each_ref().map(text), ["x", "y"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_above_its_rate_waits() {
    let world = World::start().await;
    let mom = world.mom_with(&[("PLATZIVERSE_MOM__RATE_PER_KEY", "100")]).await;
    let user = User::new(&mom).await;
    user.create(QUEUE, "a").await;
    let requests = (1..=400).map(|number| publish(QUEUE, "a", number, "x")).collect();
    let told = user.publish_all(requests).await.expect("all are answered");
    assert_eq!(told.len(), 400);
    for answer in told.values() {
        assert_eq!(answer.problem, None);
    }
    let refusal = eventually("a single call is refused", PATIENCE, || async {
        let call = async || user.stub().get_user(user.asks(GetUserRequest {})).await;
        let answers = futures_util::future::join_all((0..200).map(|_| call())).await;
        answers.into_iter().find_map(Result::err).ok_or_else(|| "none was".to_owned())
    })
    .await;
    let (code, wait) = code_of(&refusal).expect("a code");
    assert_eq!((refusal.code(), &*code), (Code::ResourceExhausted, "too_many_requests"));
    assert!(wait.is_some_and(|wait| wait <= Duration::from_secs(1)), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_reads_no_answers_is_not_read_on() {
    const MESSAGES: u64 = 10_000;
    let world = World::start().await;
    let mom = world.mom().await;
    let user = User::new(&mom).await;
    user.create(QUEUE, "a").await;
    // How much the client takes of what is not read.
    let endpoint = Endpoint::from_shared(format!("http://{}", mom.grpc())).unwrap();
    let endpoint =
        endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut stub = MomClient::new(endpoint.connect().await.expect("connected"));
    let requests = (1..=MESSAGES).map(|number| publish(QUEUE, "a", number, "x"));
    let answers = stub.publish_stream(user.asks(stream::iter(requests))).await.expect("open");
    let received = eventually("nothing more is received", PATIENCE, || async {
        let look = async || {
            let metrics = mom.metrics().await;
            let open = metrics.get("platziverse_mom_publishes_in_flight");
            (open, metrics.get("platziverse_mom_publishes_received_total"))
        };
        let first = look().await;
        sleep(Duration::from_secs(1)).await;
        let second = look().await;
        let is_still = first == second && first.0 == 0.0 && first.1 > 0.0;
        check(is_still, || format!("{first:?}, then {second:?}"))?;
        Ok::<_, String>(first.1)
    })
    .await;
    assert!(received < MESSAGES as f64, "all were received");
    let (mut answers, mut told) = (answers.into_inner(), BTreeSet::new());
    while let Some(answer) = answers.message().await.expect("no error") {
        assert_eq!(answer.problem, None);
        told.insert(answer.sequence);
    }
    assert!(told.into_iter().eq(1..=MESSAGES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_a_call_as_long_as_it_lasts() {
    const CALLS: usize = 3;
    let world = World::start().await;
    let most = CALLS.to_string();
    let mom = world.mom_with(&[("PLATZIVERSE_MOM__CONNECTIONS_MAX", &most)]).await;
    let user = User::new(&mom).await;
    let opened = async || {
        let (requests, mut asked) = mpsc::channel::<PublishRequest>(1);
        let asked = user.asks(stream::poll_fn(move |context| asked.poll_recv(context)));
        let answers = user.stub().publish_stream(asked).await.map_err(|status| status.to_string());
        answers.map(|answers| (requests, answers))
    };
    let mut held = Vec::new();
    for _ in 0..CALLS {
        held.push(eventually("a stream is open", PATIENCE, opened).await);
    }
    let ask = async || user.stub().get_user(user.asks(GetUserRequest {})).await;
    assert_eq!(refused(ask().await), is(Code::Unavailable, "unavailable"));
    held.pop();
    let asked = async || ask().await.map_err(|status| status.to_string());
    eventually("there is room for a call", PATIENCE, asked).await;
}

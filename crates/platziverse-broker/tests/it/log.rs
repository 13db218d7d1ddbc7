//! Following a stream.

use std::time::Duration;

use futures_util::future::join_all;
use platziverse_broker::aggregator::{Kind, Post, Sender, SenderSettings, Sent, To};
use platziverse_broker::topology::StreamLimits;
use platziverse_broker::{Context, LogItem, LogOptions, LogReader, LogStart, Message, Topology};
use platziverse_config::IngestConfig;
use platziverse_service::clock;
use platziverse_testkit::Servers;
use uuid::Uuid;

use crate::world::*;

const STREAM: &str = "OUT_CHAT";
/// Small enough to have a stream drop what is in it.
const STREAM_BYTES: u64 = 4 << 20;

const SETTINGS: SenderSettings =
    SenderSettings { publish_timeout: Duration::from_secs(60), in_flight_bytes: 64 << 20 };

fn topology() -> Topology {
    let limits = StreamLimits { resume_window: Duration::from_secs(120), bytes_max: STREAM_BYTES };
    Topology::for_aggregator(&["chat".to_owned()], &IngestConfig::default(), limits)
}

async fn started() -> (World, Context, Sender) {
    let world = World::new();
    let context = world.context_of(topology());
    let sender = Sender::start(&context, SETTINGS).await.unwrap();
    (world, context, sender)
}

/// Publishes messages that begin with the numbers and have so many bytes.
async fn publish(sender: &Sender, numbers: std::ops::Range<u32>, bytes: usize) {
    let mut handed = Vec::new();
    for number in numbers {
        let to = To::Everyone { channel: "chat".to_owned() };
        let body = format!("{number:<bytes$}");
        handed.push(sender.hand(Post::new(to, Kind::Publish, body)).await);
    }
    let confirming = join_all(handed.into_iter().map(|one| one.confirmed()));
    for outcome in soon("confirmed", confirming).await {
        outcome.unwrap();
    }
}

async fn follow_from(context: &Context, stream: &str, from: LogStart) -> LogReader {
    let options = LogOptions { role: "log", stream: stream.to_owned(), from };
    LogReader::start(context, options).await.unwrap()
}

/// Follows a stream from its first message on.
pub(crate) async fn follow(context: &Context, stream: &str) -> LogReader {
    follow_from(context, stream, LogStart::Offset(0)).await
}

async fn next_item(log: &mut LogReader) -> LogItem {
    soon("an item", log.next()).await.unwrap()
}

pub(crate) async fn next_message(log: &mut LogReader) -> (u64, Message) {
    match next_item(log).await {
        LogItem::Message(offset, message) => (offset, message),
        other => panic!("{other:?}"),
    }
}

async fn next_loss(log: &mut LogReader) -> u64 {
    match next_item(log).await {
        LogItem::Lost(first) => first,
        other => panic!("{other:?}"),
    }
}

async fn next_number(log: &mut LogReader) -> (u64, u32) {
    let (offset, message) = next_message(log).await;
    (offset, number(&message))
}

fn number(message: &Message) -> u32 {
    std::str::from_utf8(&message.body).unwrap().trim_end().parse().unwrap()
}

/// Reads these numbers, whose offsets rise.
async fn read(log: &mut LogReader, numbers: std::ops::Range<u32>) {
    let mut least = 0;
    for expected in numbers {
        let (offset, number) = next_number(log).await;
        assert_eq!(number, expected);
        assert!(offset >= least, "{offset} after {least}");
        least = offset + 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_read_everything_from_where_they_like() {
    const MESSAGES: u32 = 1_200;
    const READERS: u32 = 20;
    let (_world, context, sender) = started().await;
    publish(&sender, 0..MESSAGES / 2, 10).await;
    let context = &context;
    let reading = join_all((0..READERS).map(|reader| async move {
        let first = reader * MESSAGES / 2 / READERS;
        let mut log = follow_from(context, STREAM, LogStart::Offset(first.into())).await;
        // So few fill no file of the stream, and leave no offset out: they are the numbers.
        assert_eq!(next_number(&mut log).await, (first.into(), first));
        read(&mut log, first + 1..MESSAGES).await;
    }));
    tokio::join!(reading, publish(&sender, MESSAGES / 2..MESSAGES, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_messages_is_waited_for() {
    let (_world, context, sender) = started().await;
    let mut from_first = follow(&context, STREAM).await;
    let mut from_now = follow_from(&context, STREAM, LogStart::Time(clock::now())).await;
    let mut later = follow_from(&context, STREAM, LogStart::Offset(2)).await;
    let waiting = tokio::time::timeout(Duration::from_millis(500), from_first.next()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    publish(&sender, 0..4, 10).await;
    for log in [&mut from_first, &mut from_now] {
        read(log, 0..4).await;
    }
    read(&mut later, 2..4).await;
    drop((from_first, from_now, later, sender));
    context.drain.request();
    soon("the end", context.drain.finished()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_at_a_time() {
    let (_world, context, sender) = started().await;
    publish(&sender, 0..5, 10).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let then = clock::now();
    publish(&sender, 5..10, 10).await;
    let mut log = follow_from(&context, STREAM, LogStart::Time(then)).await;
    let (_, first) = next_number(&mut log).await;
    assert!(first <= 5, "{first}");
    read(&mut log, first + 1..10).await;
    let long_ago = LogStart::Time(then.plus_millis(-3_600_000));
    read(&mut follow_from(&context, STREAM, long_ago).await, 0..10).await;
    // What is yet to come is waited for.
    let ahead = LogStart::Time(then.plus_millis(3_600_000));
    let mut log = follow_from(&context, STREAM, ahead).await;
    publish(&sender, 10..11, 10).await;
    let (_, first) = next_number(&mut log).await;
    assert!(first <= 10, "{first}");
    read(&mut log, first + 1..11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_loses_and_repeats_nothing() {
    const MESSAGES: u32 = 600;
    let (world, context, sender) = started().await;
    let mut log = follow(&context, STREAM).await;
    for chunk in 0..3 {
        let numbers = chunk * MESSAGES..(chunk + 1) * MESSAGES;
        // Confirmed before: whoever publishes again repeats, too.
        publish(&sender, numbers.clone(), 10).await;
        if chunk > 0 {
            world.close_connections(2).await;
        }
        read(&mut log, numbers).await;
    }
    let idle = async || context.readiness.is_ready();
    eventually("ready", idle).await;
    world.close_connections(2).await;
    eventually("noticed", async || !context.readiness.is_ready()).await;
    publish(&sender, 3 * MESSAGES..3 * MESSAGES + 1, 10).await;
    read(&mut log, 3 * MESSAGES..3 * MESSAGES + 1).await;
}

/// Fills a stream several times over, until its first messages are gone.
async fn overfill(sender: &Sender, from: u32) -> u32 {
    const MESSAGE: usize = 10_000;
    let count = 3 * u32::try_from(STREAM_BYTES).unwrap() / u32::try_from(MESSAGE).unwrap();
    publish(sender, from..from + count, MESSAGE).await;
    from + count
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_too_late_is_told() {
    let (_world, context, sender) = started().await;
    let end = overfill(&sender, 0).await;
    let mut log = follow(&context, STREAM).await;
    let first = next_loss(&mut log).await;
    let (offset, number) = next_number(&mut log).await;
    assert_eq!(offset, first);
    assert!(number > 0 && number < end, "{number}");
    read(&mut log, number + 1..end).await;
    let in_time = LogStart::Offset(first + 1);
    let mut log = follow_from(&context, STREAM, in_time).await;
    assert_eq!(next_number(&mut log).await, (first + 1, number + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_falls_behind_is_told() {
    const READ: u32 = 10;
    let (world, _context, sender) = started().await;
    publish(&sender, 0..READ, 10).await;
    let context = world.context_of(topology());
    let mut log = follow(&context, STREAM).await;
    read(&mut log, 0..READ).await;
    // The sender needs no permission to read while it is connected.
    world.permit_reading("^$");
    world.close_connection_of(&context).await;
    eventually("noticed", async || !context.readiness.is_ready()).await;
    let end = overfill(&sender, READ).await;
    world.permit_reading(".*");
    let first = next_loss(&mut log).await;
    let (offset, number) = next_number(&mut log).await;
    assert_eq!(offset, first);
    assert!(number > READ && number < end, "{number}");
    read(&mut log, number + 1..end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_that_is_killed_goes_on_where_it_was() {
    const MESSAGES: u32 = 500;
    let name = format!("platziverse-log-{}", Uuid::new_v4().simple());
    let servers = Servers::start_in(&name, "rabbitmq", &[]).await.unwrap();
    let world = World::at(servers.url("AMQP_URL"), servers.url("MANAGEMENT_URL"));
    let context = world.context_of(topology());
    let sender = Sender::start(&context, SETTINGS).await.unwrap();
    let mut log = follow(&context, STREAM).await;
    publish(&sender, 0..MESSAGES, 10).await;
    read(&mut log, 0..MESSAGES).await;
    let mut idle = follow_from(&context, "platziverse.requests", LogStart::Offset(0)).await;
    // Killed within a second or so of its first stream, RabbitMQ 3.10 does not know its streams.
    tokio::time::sleep(Duration::from_secs(5)).await;
    servers.run("kill", "rabbitmq").await;
    let restarting = async {
        eventually("noticed", async || !context.readiness.is_ready()).await;
        servers.run("start", "rabbitmq").await;
    };
    tokio::join!(publish(&sender, MESSAGES..2 * MESSAGES, 10), restarting);
    // What was on its way when RabbitMQ died may be there twice, and nothing is missing.
    let mut next = MESSAGES;
    while next < 2 * MESSAGES {
        let (_, number) = next_number(&mut log).await;
        assert!((MESSAGES..=next).contains(&number), "{number} before {next}");
        next = next.max(number + 1);
    }
    let id = Uuid::now_v7();
    let marker = Post::new(To::Marker { id, claims: Vec::new() }, Kind::Publish, "");
    sender.hand(marker).await.confirmed().await.unwrap();
    assert_eq!(Sent::read(&next_message(&mut idle).await.1), Sent::Marker(id, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_made_anew_begins_again() {
    let (world, context, sender) = started().await;
    let operator = world.operator().await;
    let mut log = follow(&context, STREAM).await;
    // Shorter than what was read, and longer.
    for (before, after) in [(20, 5), (20, 300)] {
        publish(&sender, 0..before, 10).await;
        // Numbers tell the streams apart.
        read(&mut log, 0..before).await;
        world.delete_queue(STREAM);
        operator.declare(&topology()).await.unwrap();
        publish(&sender, 1_000..1_000 + after, 10).await;
        let restarted = next_item(&mut log).await;
        assert!(matches!(restarted, LogItem::Restarted), "{restarted:?}");
        assert_eq!(next_number(&mut log).await, (0, 1_000));
        read(&mut log, 1_001..1_000 + after).await;
    }
    world.delete_queue(STREAM);
    let restarted = next_item(&mut log).await;
    assert!(matches!(restarted, LogItem::Restarted), "{restarted:?}");
    publish(&sender, 0..3, 10).await;
    read(&mut log, 0..3).await;
    operator.close().await;
}

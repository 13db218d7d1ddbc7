//! Topics and queues: what one server takes and gives over gRPC and HTTP, and what those cost who
//! wait.
//!
//! All messages go through one durable quorum queue, and each publish is answered after RabbitMQ's
//! confirm. Beside it, straight to RabbitMQ: pika with publisher confirms, and over HTTP what
//! RabbitMQ's management takes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use platziverse_client::Destination;
use platziverse_testkit::{World, memory};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::figure::{Goal, Played, Sample, Subject, Unit, thousands};
use crate::mom::{
    Asking, BYTES, Book, Counted, Crowd, Load, Stand, Target, Window, body, converse, number,
    queue_name, words,
};
use crate::pika;
use crate::site::{Site, hide, settle, show};
use crate::usage;

const STREAMS: usize = 4;
const CONNECTIONS: usize = 50;
const OVER_GRPC: &str = "gRPC, 4 streams";
const OVER_HTTP: &str = "HTTP, 50 connections";
/// Messages that pika has on their way.
const WINDOW: u64 = 1_000;
/// Unsettled deliveries of one stream.
const PREFETCH: u16 = 500;
const QUEUE: &str = "bench";
/// Before consuming counts.
const BEGINNING: Duration = Duration::from_millis(500);
/// Consumers that wait.
const WAITING: usize = 2_000;
const MANY_QUEUES: usize = 200;
/// Queues that are made at a time.
const AT_ONCE: usize = 8;
/// What there may still be to do once the last one waits.
const QUIET: Duration = Duration::from_secs(5);
/// Messages a second for those who wait.
const RATE: u64 = 50;

pub(crate) async fn play(site: &Site) -> Played {
    let has_pika = pika::versions().is_some();
    let mut played = Played::default();
    played.add(over_grpc(site).await);
    if has_pika {
        played.add(of_pika(site).await);
    }
    played.add(over_http(site).await);
    played.add(of_management(site).await);
    for queues in [1, MANY_QUEUES] {
        played.add(wait(site, queues).await);
    }
    if has_pika {
        played.add(pika_waits(site).await);
    }
    hide();
    played
}

type Tasks = JoinSet<Result<(), String>>;

/// Fills a queue for as long as a load lasts.
fn filling(site: &Site) -> Window {
    Window { warm_up: site.args.warm_up.into(), time: site.args.time.into(), most: u64::MAX }
}

/// Empties it for as long as that, or until it is empty.
fn emptying(site: &Site, most: u64) -> Window {
    Window { warm_up: BEGINNING, time: site.args.time.into(), most }
}

fn samples(case: &str, what: [&'static str; 2], counted: Counted) -> [Sample; 2] {
    let of = |what, unit, value| Sample::ours(case, what, unit, value);
    [of(what[0], Unit::PerSecond, counted.rate), of(what[1], Unit::Microseconds, counted.each)]
}

const PUBLISHED: &str = "published";

fn published(case: &str, counted: Counted, goal: f64) -> [Sample; 2] {
    let [rate, cost] = samples(case, [PUBLISHED, "server's processor time of each"], counted);
    [rate.with_goal(Goal::AtLeast(goal)), cost]
}

fn consumed(case: &str, counted: Counted) -> [Sample; 2] {
    samples(case, ["consumed", "processor time to consume each"], counted)
}

async fn over_grpc(site: &Site) -> Result<Vec<Sample>, String> {
    show("mom: gRPC");
    let stand = Stand::start(site).await?;
    let queue = stand.make(QUEUE).await?;
    settle().await;
    let (load, mut tasks) = (Arc::new(Load::new()), Tasks::new());
    for _ in 0..STREAMS {
        tasks.spawn(publish_all(stand.queue(QUEUE)?, Arc::clone(&load)));
    }
    let filled = load.run(tasks, stand.server.pid(), filling(site)).await?;
    let book = Arc::new(Book::new(load.count()));
    let (load, mut tasks) = (Arc::new(Load::new()), Tasks::new());
    for _ in 0..STREAMS {
        tasks.spawn(consume_all(stand.queue(QUEUE)?, Arc::clone(&load), Arc::clone(&book)));
    }
    let window = emptying(site, book.len());
    let emptied = load.run(tasks, stand.server.pid(), window).await?;
    book.close(queue.purge().await.map_err(words)?.into())?;
    let published = published(OVER_GRPC, filled, 8_000.0);
    Ok(published.into_iter().chain(consumed(OVER_GRPC, emptied)).collect())
}

/// Publishes over a stream as much as it takes.
async fn publish_all(queue: Destination, load: Arc<Load>) -> Result<(), String> {
    let numbers = Arc::clone(&load);
    let bodies = stream::iter(std::iter::from_fn(move || numbers.next().map(body)));
    let mut published = pin!(queue.publish_all(bodies));
    while let Some(one) = published.next().await {
        one.map_err(words)?;
        load.done();
    }
    Ok(())
}

/// Consumes and acknowledges what a stream brings.
async fn consume_all(queue: Destination, load: Arc<Load>, book: Arc<Book>) -> Result<(), String> {
    let mut deliveries = queue.consume(PREFETCH);
    let mut over = pin!(load.over());
    loop {
        let next = tokio::select! {
            biased;
            () = &mut over => break,
            next = deliveries.next() => next,
        };
        let delivery = next.ok_or("the stream has ended")?.map_err(words)?;
        book.note(number(&delivery.message.body)?)?;
        delivery.ack().map_err(words)?;
        load.done();
    }
    deliveries.close().await.map_err(words)
}

async fn over_http(site: &Site) -> Result<Vec<Sample>, String> {
    show("mom: HTTP");
    let stand = Stand::start(site).await?;
    let queue = stand.make(QUEUE).await?;
    settle().await;
    let path = format!("/v1/queues/{QUEUE}/messages");
    let load = Arc::new(Load::new());
    let tasks = publishers(&stand.http()?, &load, 201, move |number| (path.clone(), body(number)));
    let filled = load.run(tasks, stand.server.pid(), filling(site)).await?;
    let book = Arc::new(Book::new(load.count()));
    let (load, mut tasks) = (Arc::new(Load::new()), Tasks::new());
    for _ in 0..CONNECTIONS {
        let (load, book) = (Arc::clone(&load), Arc::clone(&book));
        tasks.spawn(converse(stand.http()?, |asking| consume(asking, load, book)));
    }
    let window = emptying(site, book.len());
    let emptied = load.run(tasks, stand.server.pid(), window).await?;
    book.close(queue.purge().await.map_err(words)?.into())?;
    let published = published(OVER_HTTP, filled, 4_000.0);
    Ok(published.into_iter().chain(consumed(OVER_HTTP, emptied)).collect())
}

/// Connections that publish one message at a time. Some servers close one after so many requests:
/// then there is another.
fn publishers(
    target: &Target,
    load: &Arc<Load>,
    status: u16,
    request: impl Fn(u64) -> (String, Bytes) + Clone + Send + Sync + 'static,
) -> Tasks {
    let mut tasks = Tasks::new();
    for _ in 0..CONNECTIONS {
        let (target, load, request) = (target.clone(), Arc::clone(load), request.clone());
        tasks.spawn(async move {
            while !load.is_over() {
                let (load, request) = (&load, &request);
                let publish = |mut asking: Asking| async move {
                    while let Some(number) = load.next() {
                        let (path, body) = request(number);
                        let answer = asking.post(&path, body).await?;
                        answer.is(status)?;
                        load.done();
                        if answer.is_last {
                            break;
                        }
                    }
                    Ok(())
                };
                converse(target.clone(), publish).await?;
            }
            Ok(())
        });
    }
    tasks
}

async fn consume(mut asking: Asking, load: Arc<Load>, book: Arc<Book>) -> Result<(), String> {
    let path = format!("/v1/queues/{QUEUE}/consume?ack=auto");
    while !load.is_over() {
        let answer = asking.post(&path, Bytes::new()).await?;
        if answer.status == 204 {
            return Ok(());
        }
        answer.is(200)?;
        book.note(number(&answer.body)?)?;
        load.done();
    }
    Ok(())
}

/// A quorum queue in a vhost of its own.
async fn bare(site: &Site) -> World {
    let world = World::on(Arc::clone(&site.servers)).await;
    world.rabbitmq().declare_queue(QUEUE, true, json!({"x-queue-type": "quorum"})).await;
    settle().await;
    world
}

async fn of_pika(site: &Site) -> Result<Vec<Sample>, String> {
    show("mom: pika");
    let world = bare(site).await;
    let pace = pika::fill(world.amqp_url(), QUEUE, WINDOW, &of_python(site)).await?;
    Ok(vec![Sample::of(Subject::Pika, OVER_GRPC, PUBLISHED, Unit::PerSecond, pace)])
}

/// One consumer of pika's, straight at RabbitMQ, to which the same number of messages comes.
async fn pika_waits(site: &Site) -> Result<Vec<Sample>, String> {
    show("mom: pika waits");
    let world = bare(site).await;
    let soon = pika::wait(world.amqp_url(), QUEUE, RATE, &of_python(site)).await?;
    let of = |what, value| Sample::of(Subject::Pika, &waiting(1), what, Unit::Milliseconds, value);
    Ok(SOON.into_iter().zip(soon).map(|(what, value)| of(what, value)).collect())
}

fn of_python(site: &Site) -> pika::Plan {
    pika::Plan { bytes: BYTES, warm_up: site.args.warm_up.into(), time: site.args.time.into() }
}

async fn of_management(site: &Site) -> Result<Vec<Sample>, String> {
    show("mom: RabbitMQ's management");
    let world = bare(site).await;
    let path = format!("/api/exchanges/{}/amq.default/publish", world.vhost());
    let request = move |number| {
        let body = String::from_utf8_lossy(&body(number)).into_owned();
        let request = json!({
            "routing_key": QUEUE, "properties": {"delivery_mode": 2}, "payload": body,
            "payload_encoding": "string",
        });
        (path.clone(), Bytes::from(request.to_string()))
    };
    let load = Arc::new(Load::new());
    let tasks = publishers(&Target::management(&world)?, &load, 200, request);
    let process = site.process("rabbitmq/vm.pid")?;
    let filled = load.run(tasks, process, filling(site)).await?;
    Ok(vec![Sample::of(Subject::Plugin, OVER_HTTP, PUBLISHED, Unit::PerSecond, filled.rate)])
}

fn waiting(queues: usize) -> String {
    let queues = if queues == 1 { "1 queue".to_owned() } else { format!("{queues} queues") };
    format!("{} wait, {queues}", thousands(WAITING as f64))
}

/// The median, and what 99 of 100 messages do not exceed.
const SOON: [&str; 2] = ["to arrival p50", "to arrival p99"];

/// Consumers that wait over HTTP: what they cost while nothing comes, and how soon they have what
/// does.
async fn wait(site: &Site, queues: usize) -> Result<Vec<Sample>, String> {
    let case = waiting(queues);
    show(&format!("mom: {case}"));
    let stand = Stand::start(site).await?;
    let made = stream::iter(0..queues).map(|queue| {
        let stand = &stand;
        async move { stand.make(&queue_name(queue)).await.map(drop) }
    });
    made.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    settle().await;
    let (process, time) = (stand.server.pid(), site.args.time.into());
    let before = memory(process)?;
    let mut crowd = Crowd::gather(&stand, WAITING, queues).await?;
    sleep(QUIET).await;
    let used = usage::processor_time(&[process]);
    sleep(time).await;
    let used = usage::processor_time(&[process]).saturating_sub(used).as_secs_f64();
    let after = memory(process)?;
    let latency = crowd.hear(RATE, site.args.warm_up.into(), time).await?;
    let of = |what, unit, value| Sample::ours(&case, what, unit, value);
    let share = 100.0 * used / time.as_secs_f64();
    let each = after.saturating_sub(before) as f64 / WAITING as f64;
    let soon = Goal::AtMost(20.0);
    Ok(vec![
        of("server's processor time", Unit::Percent, share).with_goal(Goal::AtMost(1.0)),
        of("memory of each", Unit::Kilobytes, each / 1_000.0),
        of("server's memory", Unit::Kilobytes, after as f64 / 1_000.0),
        of(SOON[0], Unit::Milliseconds, latency.p50),
        of(SOON[1], Unit::Milliseconds, latency.p99).with_goal(soon),
    ])
}

//! Clients with WebSockets: what they cost while they stay, and what one aggregator takes and gives.
//!
//! Beside it, on the same RabbitMQ, clients that speak STOMP with its own plugin for WebSockets.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use platziverse_testkit::{memory, program};
use tokio::time::{Instant, sleep};

use crate::aggregator::{CHANNELS, Socket, Split, Stand, out, write};
use crate::figure::{Goal, Played, Sample, Subject, Unit, thousands};
use crate::mom::{Counted, Window};
use crate::site::{Site, hide, settle, show};

const BOTH: [Subject; 2] = [Subject::Platziverse, Subject::Plugin];
const MANY: usize = 5_000;
/// RabbitMQ has processes, and a queue or two, for each.
const FEWER: usize = 1_000;
/// Sockets that are opened at the same time.
const AT_ONCE: usize = 64;
/// What there may still be to do once the last one is open.
const QUIET: Duration = Duration::from_secs(5);
/// Clients that hear a broadcast.
const LISTENERS: usize = 100;
/// Clients that publish, or ask.
const CLIENTS: usize = 50;
/// Messages a second from client to client.
const RATE: u64 = 1_000;
/// Requests that the server works on at a time.
const PREFETCH: &str = "200";
const SERVER: &str = "examples/echo_server";

pub(crate) async fn play(site: &Site) -> Played {
    // That it is missing is said at once.
    program(SERVER);
    let mut played = Played::default();
    played.add(hold(site, Subject::Platziverse, MANY, Split::Single).await);
    for subject in BOTH {
        played.add(hold(site, subject, FEWER, Split::Single).await);
    }
    for subject in BOTH {
        played.add(broadcast(site, subject, Split::Single).await);
    }
    for subject in BOTH {
        played.add(direct(site, subject).await);
    }
    for subject in BOTH {
        played.add(publish(site, subject).await);
    }
    played.add(ask(site).await);
    for split in [Split::Together, Split::Apart] {
        played.add(hold(site, Subject::Platziverse, FEWER, split).await);
        played.add(broadcast(site, Subject::Platziverse, split).await);
    }
    hide();
    played
}

fn window(site: &Site) -> Window {
    Window { warm_up: site.args.warm_up.into(), time: site.args.time.into(), most: u64::MAX }
}

fn taking(clients: usize, split: Split) -> String {
    let (clients, channels) = (thousands(clients as f64), CHANNELS.len());
    match split {
        Split::Single => format!("{clients} clients"),
        Split::Together => format!("{clients} clients, {channels} channels over one socket"),
        Split::Apart => format!("{clients} clients, {channels} channels over {channels} sockets"),
    }
}

/// Sockets that only stay: what each client's cost in memory.
async fn hold(
    site: &Site,
    subject: Subject,
    clients: usize,
    split: Split,
) -> Result<Vec<Sample>, String> {
    let case = format!("idle, {}", taking(clients, split));
    show(&format!("aggregator: {case}, {subject:?}"));
    let stand = Stand::start(site, subject).await?;
    let before = memory(stand.process)?;
    let begun = Instant::now();
    let all = (0..clients).flat_map(|client| {
        split.sockets().into_iter().map(move |channels| (format!("client-{client}"), channels))
    });
    let target = &stand.target;
    let opened = stream::iter(all)
        .map(|(client, channels)| async move { target.listen(&client, &channels).await });
    let sockets: Vec<Socket> = opened.buffer_unordered(AT_ONCE).try_collect().await?;
    let pace = sockets.len() as f64 / begun.elapsed().as_secs_f64();
    sleep(QUIET).await;
    let each = memory(stand.process)?.saturating_sub(before) as f64 / clients as f64;
    let live = stand.alive(sockets).await?;
    if live != clients * split.sockets().len() {
        return Err(format!("{case}: {live} sockets live"));
    }
    let of = |what, unit, value| Sample::of(subject, &case, what, unit, value);
    let mut memory = of("memory of each client", Unit::Kilobytes, each / 1_000.0);
    if split == Split::Single {
        memory = memory.with_goal(Goal::AtMost(20.0));
    }
    Ok(vec![memory, of("connected", Unit::PerSecond, pace)])
}

/// How many a second, and what each cost the aggregator. Of the plugin's time nothing is said: it is
/// all of RabbitMQ's, which ours does not have in it.
fn samples(subject: Subject, case: &str, what: &'static str, counted: Counted) -> Vec<Sample> {
    let of = |what, unit, value| Sample::of(subject, case, what, unit, value);
    let mut samples = vec![of(what, Unit::PerSecond, counted.rate)];
    if subject == Subject::Platziverse {
        let cost = of("aggregator's processor time of each", Unit::Microseconds, counted.each);
        samples.push(cost);
    }
    samples
}

/// Broadcasts, as many as all clients can take.
async fn broadcast(site: &Site, subject: Subject, split: Split) -> Result<Vec<Sample>, String> {
    let case = format!("broadcast, {}", taking(LISTENERS, split));
    show(&format!("aggregator: {case}, {subject:?}"));
    let stand = Stand::start(site, subject).await?;
    let counted = out(&stand, LISTENERS, split, window(site)).await?;
    let mut all = samples(subject, &case, "delivered", counted);
    if let Some(delivered) = all.first_mut() {
        delivered.goal = Some(Goal::AtLeast(20_000.0));
    }
    Ok(all)
}

/// Messages from one client to another.
async fn direct(site: &Site, subject: Subject) -> Result<Vec<Sample>, String> {
    let case = format!("direct, {}/s", thousands(RATE as f64));
    show(&format!("aggregator: {case}, {subject:?}"));
    let stand = Stand::start(site, subject).await?;
    let Window { warm_up, time, .. } = window(site);
    let latency = write(&stand.target, RATE, warm_up, time).await?;
    let of = |what, value| Sample::of(subject, &case, what, Unit::Milliseconds, value);
    let soon = Goal::AtMost(20.0);
    Ok(vec![of("to arrival p50", latency.p50), of("to arrival p99", latency.p99).with_goal(soon)])
}

/// Publishes of clients to servers, each with its receipt.
async fn publish(site: &Site, subject: Subject) -> Result<Vec<Sample>, String> {
    let case = format!("to servers, {CLIENTS} clients");
    show(&format!("aggregator: {case}, {subject:?}"));
    let stand = Stand::start(site, subject).await?;
    let counted = stand.publish(site, CLIENTS, window(site)).await?;
    Ok(samples(subject, &case, "published", counted))
}

/// Requests that the server of the kit's example answers.
async fn ask(site: &Site) -> Result<Vec<Sample>, String> {
    let case = format!("write and wait, {CLIENTS} clients");
    show(&format!("aggregator: {case}"));
    let stand = Stand::start(site, Subject::Platziverse).await?;
    let arguments = ["--channel", CHANNELS[0], "--prefetch", PREFETCH];
    let _server = stand.world.echo_server(stand.world.amqp_url(), &arguments);
    settle().await;
    let (counted, latency) = stand.ask(CLIENTS, window(site)).await?;
    let of = |what, value| Sample::ours(&case, what, Unit::Milliseconds, value);
    let mut all = samples(Subject::Platziverse, &case, "replied", counted);
    all.extend([of("to the reply p50", latency.p50), of("to the reply p99", latency.p99)]);
    Ok(all)
}

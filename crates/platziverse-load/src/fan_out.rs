//! One publisher, many subscribers: from the first connection to the report.

mod ledger;
mod mark;
mod publisher;
mod subscriber;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use self::ledger::Ledger;
use self::publisher::{Published, Publisher};
use self::subscriber::Subscriber;
use crate::connecting::{AT_ONCE, LoadError, connect, connect_all, in_time};
use crate::latency::Recorder;
use crate::message::Shape;
use crate::plan::{Pace, Server};
use crate::report::{FanOutReport, Progress};
use crate::socket::Socket;
use crate::telling::Telling;
use crate::timeline::Timeline;

/// One publisher at QoS 1, and many subscribers to what it publishes.
#[derive(Clone, Debug)]
pub struct FanOut {
    /// Where the one publisher connects.
    pub publisher: Server,
    /// Subscribers are spread over these.
    pub subscribers: Vec<Server>,
    /// How many subscribers.
    pub count: usize,
    /// Start of the client ids and of the agents' uuids. No other load on the same topic may have
    /// it.
    pub name: String,
    /// What the subscribers ask for, 0 or 1; greater ones mean 1.
    pub qos: u8,
    /// In a closed loop, how many published messages there are that some subscriber has not heard.
    /// One that is lost keeps its place to the end.
    pub pace: Pace,
    /// How long it lasts until it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub time: Duration,
    /// What is published, and so where to subscribe. Opaque bytes begin with the moment at which
    /// they are due, so there are at least 16.
    pub shape: Shape,
}

/// What the publisher and all subscribers share.
#[derive(Debug)]
struct Run {
    plan: FanOut,
    timeline: Timeline,
    ledger: Ledger,
    recorder: Recorder,
    /// Deliveries, each once.
    delivered: AtomicU64,
    /// Of these, those that came while it counted.
    in_time: AtomicU64,
    doubled: AtomicU64,
    /// Connections.
    open: AtomicU64,
}

/// Connects the subscribers and the publisher, publishes to the end of the plan, and waits at most
/// 10 s for what is not delivered then; `tell` hears every second how it goes.
///
/// # Errors
/// When a client is not let in within 30 s, with its subscription.
pub async fn fan_out(plan: &FanOut, tell: impl FnMut(Progress)) -> Result<FanOutReport, LoadError> {
    let qos = plan.qos.min(1);
    let open = |number, server: Server| {
        let (name, topic) = (plan.name.clone(), plan.shape.topic().to_owned());
        async move {
            let mut socket = Socket::new(connect(&server, &name, number, 0).await?);
            subscriber::subscribe(&mut socket, server.address, &topic, qos).await?;
            Ok((number, socket))
        }
    };
    let sockets = connect_all(&plan.subscribers, plan.count, AT_ONCE, open, |_| {}).await?;
    let publisher = connect(&plan.publisher, &plan.name, plan.count, 0);
    let stream = in_time(plan.publisher.address, publisher).await?;
    Ok(play(begin(plan), sockets, Socket::new(stream), tell).await)
}

fn begin(plan: &FanOut) -> Arc<Run> {
    Arc::new(Run {
        timeline: Timeline::soon(plan.warm_up, plan.time),
        ledger: Ledger::of(plan.count),
        plan: plan.clone(),
        recorder: Recorder::new(),
        delivered: AtomicU64::new(0),
        in_time: AtomicU64::new(0),
        doubled: AtomicU64::new(0),
        open: AtomicU64::new(plan.count as u64 + 1),
    })
}

async fn play(
    run: Arc<Run>,
    sockets: Vec<(usize, Socket)>,
    socket: Socket,
    mut tell: impl FnMut(Progress),
) -> FanOutReport {
    let (over, is_over) = watch::channel(false);
    let (mut publisher, mut subscribers) = (JoinSet::new(), JoinSet::new());
    for (number, socket) in sockets {
        let subscriber = Subscriber::new(Arc::clone(&run), number, socket);
        subscribers.spawn(subscriber.listen(is_over.clone()));
    }
    publisher.spawn(Publisher::new(Arc::clone(&run), socket).publish(is_over));
    let (mut report, mut unsent) = (FanOutReport::default(), 0);
    let mut telling = Telling::from(run.timeline.begin);
    loop {
        tokio::select! {
            Some(ended) = subscribers.join_next() => note(&mut report, unwound(ended)),
            Some(ended) = publisher.join_next() => {
                let Published { unsent_counted, result } = unwound(ended);
                unsent = unsent_counted;
                note(&mut report, result);
            }
            () = telling.due() => tell(progress(&run, &mut telling)),
        }
        match (publisher.is_empty(), subscribers.is_empty()) {
            (true, true) => break,
            (false, false) => {}
            // The rest has nothing to wait for.
            _ => drop(over.send(true)),
        }
    }
    finish(&run, unsent, report)
}

fn unwound<T>(ended: Result<T, JoinError>) -> T {
    // Nothing cancels a task.
    ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

fn note(report: &mut FanOutReport, result: io::Result<()>) {
    if let Err(error) = result {
        report.closed += 1;
        report.why.get_or_insert_with(|| error.to_string());
    }
}

fn progress(run: &Run, telling: &mut Telling) -> Progress {
    let delivered = run.delivered.load(Ordering::Relaxed);
    telling.progress(delivered, run.ledger.in_flight(), run.open.load(Ordering::Relaxed))
}

/// `unsent` messages were due while it counted, and could not be sent.
fn finish(run: &Run, unsent: u64, mut report: FanOutReport) -> FanOutReport {
    let counts = |due| run.timeline.counts(run.timeline.at(due));
    (report.published, report.delivered) = run.ledger.sums(counts);
    report.expected = (report.published + unsent) * run.plan.count as u64;
    report.missing = report.expected - report.delivered;
    report.doubled = run.doubled.load(Ordering::Relaxed);
    report.seconds = run.timeline.counted().as_secs_f64();
    report.rate = run.in_time.load(Ordering::Relaxed) as f64 / report.seconds.max(0.001);
    report.latency = run.recorder.read().1;
    report
}

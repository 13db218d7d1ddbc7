//! A run from its first connection to its report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::{Client, Run};
use crate::connecting::{AT_ONCE, LoadError, connect, connect_all};
use crate::latency::Recorder;
use crate::plan::Plan;
use crate::report::{Progress, Report};
use crate::telling::Telling;
use crate::timeline::Timeline;

/// Connects, publishes to the end of the plan, and reports; `tell` hears every second how it goes.
///
/// # Errors
/// When one of the clients is not let in within 30 s.
pub async fn run(plan: &Plan, mut tell: impl FnMut(Progress)) -> Result<Report, LoadError> {
    let streams = connected(plan).await?;
    let run = Arc::new(begin(plan.clone(), streams.len()));
    let mut clients = JoinSet::new();
    for (number, stream) in streams {
        clients.spawn(Client::new(Arc::clone(&run), number, stream).publish());
    }
    let mut report = Report::default();
    let mut telling = Telling::from(run.timeline.begin);
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(Ok((unanswered, result))) => {
                    report.unanswered += unanswered;
                    if let Err(error) = result {
                        report.closed += 1;
                        report.why.get_or_insert_with(|| error.to_string());
                    }
                }
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
                None => break,
            },
            () = telling.due() => {
                let answered = run.answered.load(Ordering::Relaxed);
                let in_flight = run.sent.load(Ordering::Relaxed).saturating_sub(answered);
                tell(telling.progress(answered, in_flight, run.open.load(Ordering::Relaxed)));
            }
        }
    }
    (report.acknowledged, report.latency) = run.recorder.read();
    report.sent = run.sent.load(Ordering::Relaxed);
    report.seconds = run.plan.time.as_secs_f64();
    report.rate = run.in_time.load(Ordering::Relaxed) as f64 / report.seconds;
    Ok(report)
}

/// The clients' connections, each with its client's number.
async fn connected(plan: &Plan) -> Result<Vec<(usize, TcpStream)>, LoadError> {
    let open = |number, server| {
        let name = plan.name.clone();
        async move { Ok((number, connect(&server, &name, number, 0).await?)) }
    };
    connect_all(&plan.servers, plan.clients, AT_ONCE, open, |_| {}).await
}

fn begin(plan: Plan, open: usize) -> Run {
    Run {
        timeline: Timeline::soon(plan.warm_up, plan.time),
        plan,
        recorder: Recorder::new(),
        sent: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        in_time: AtomicU64::new(0),
        open: AtomicU64::new(open as u64),
    }
}

//! Tasks that one worker handles, and beside it a consumer in Python with pika.
//!
//! `platziverse task send` fills the queue, RabbitMQ has confirmed all of it, and then one process
//! empties it. Both consume the same queue, each in a vhost of its own, with the same messages.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use platziverse_testkit::{Process, World};
use serde_json::json;

use crate::figure::{Goal, Played, Sample, Subject, Unit};
use crate::ours::{Ours, Setting};
use crate::pika;
use crate::scenarios::drain::PATIENCE;
use crate::site::{Site, hide, settle, show};

const QUEUE: &str = "platziverse.events";
const DONE: &str = "platziverse_worker_tasks_done_total";
/// How often a worker is asked how far it is: being late by this is a small part of a measurement.
const LOOK: Duration = Duration::from_millis(50);
/// The goal of a handler that does as good as nothing: tasks a second.
const LOGGED: f64 = 5_000.0;
/// The part of the usual tasks that is enough where one goes after the other.
const PART: u64 = 20;
/// So that filling is no longer than emptying.
const WINDOW: Setting<'static> = ("PLATZIVERSE_GATEWAY__PUBLISH_WINDOW", "1000");

/// What is handled, and how.
struct Case {
    name: &'static str,
    /// The events' name, which chooses their handler.
    event: &'static str,
    prefetch: u16,
    tasks: u64,
    /// Whether each is a row in the end.
    is_stored: bool,
    goal: Option<Goal>,
}

/// The handler `log` uses no database; its lines go to a file.
fn cases(tasks: u64) -> [Case; 3] {
    let log = |name, prefetch, tasks, goal| {
        let (event, is_stored) = ("log", false);
        Case { name, event, prefetch, tasks, is_stored, goal }
    };
    let goal = Some(Goal::AtLeast(LOGGED));
    let (name, event) = ("event.store, prefetch 200", "bench");
    [
        log("log, prefetch 200", 200, tasks, goal),
        log("log, prefetch 1", 1, tasks.div_ceil(PART), None),
        Case { name, event, prefetch: 200, tasks, is_stored: true, goal: None },
    ]
}

pub(crate) async fn play(site: &Site) -> Played {
    let has_pika = pika::versions().is_some();
    let mut played = Played::default();
    for case in cases(site.args.tasks) {
        played.add(ours(site, &case).await);
        // The consumer in Python stores nothing.
        if has_pika && !case.is_stored {
            played.add(theirs(site, &case).await);
        }
    }
    played
}

async fn ours(site: &Site, case: &Case) -> Result<Vec<Sample>, String> {
    let mut ours = Ours::start(site, 0, 0, &[]).await?;
    fill(&ours.world, case).await?;
    let prefetch = case.prefetch.to_string();
    let settings: [Setting<'_>; 2] =
        [("PLATZIVERSE_WORKER__ROLES", "tasks"), ("PLATZIVERSE_TASKS__PREFETCH", &prefetch)];
    ours.add_worker(&settings).await?;
    let [worker] = &mut ours.workers[..] else { return Err("there is no worker".to_owned()) };
    let pace = pace(worker, case).await?;
    let status = worker.terminate().await;
    if !status.success() {
        return Err(format!("{}: the worker ended with {status}", case.name));
    }
    is_empty(&ours.world).await?;
    let rows = ours.world.database().value("SELECT count(*) FROM events").await;
    let wanted = if case.is_stored { case.tasks } else { 0 };
    if rows != wanted.to_string() {
        return Err(format!("{}: there are {rows} rows and not {wanted}", case.name));
    }
    Ok(vec![sample(Subject::Platziverse, case, pace)])
}

async fn theirs(site: &Site, case: &Case) -> Result<Vec<Sample>, String> {
    let world = World::on(Arc::clone(&site.servers)).await;
    fill(&world, case).await?;
    let Case { prefetch, tasks, .. } = *case;
    let pace = pika::empty(world.amqp_url(), QUEUE, prefetch, tasks, PATIENCE).await?;
    is_empty(&world).await?;
    Ok(vec![sample(Subject::Pika, case, pace)])
}

fn sample(subject: Subject, case: &Case, pace: f64) -> Sample {
    let sample = Sample::of(subject, case.name, "handled", Unit::PerSecond, pace);
    Sample { goal: case.goal, ..sample }
}

/// Fills the queue, and waits until RabbitMQ has all and rests.
async fn fill(world: &World, case: &Case) -> Result<(), String> {
    show(&format!("tasks, {}: {} are sent", case.name, case.tasks));
    let path = world.folder().join("tasks.json");
    let file = path.to_string_lossy();
    fs::write(&path, text(case)).map_err(|error| format!("{file}: {error}"))?;
    let sent = world.run("platziverse", &["task", "send", "--file", &file], &[WINDOW]).await;
    hide();
    if !sent.status.success() {
        return Err(format!("platziverse task send: {}", sent.stderr));
    }
    settle().await;
    Ok(())
}

/// The tasks as JSON, about 200 bytes each. Their ids grow, as those do that are made when a task is
/// (UUIDv7).
fn text(case: &Case) -> String {
    let task = |number| {
        let task = json!({
            "kind": "event", "name": case.event, "source": "bench",
            "id": format!("01990000-0000-7000-8000-{number:012x}"),
            "payload": {"n": number, "memory": 1001, "temperature": 33.5},
            "timestamp": "2026-01-31T12:00:00Z",
        });
        format!("{task}\n")
    };
    (0..case.tasks).map(task).collect()
}

/// Tasks a second, from the first look that sees some done to the one that sees all of them. A task
/// is counted when it is done, and acknowledged at once.
async fn pace(worker: &Process, case: &Case) -> Result<f64, String> {
    let end = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        let (at, done) = (Instant::now(), worker.try_metrics().await?.try_get(DONE)?);
        let (begun, before) = match first {
            None if done > 0.0 => *first.insert((at, done)),
            None => (at, done),
            Some(first) => first,
        };
        if done >= case.tasks as f64 {
            let seconds = (at - begun).as_secs_f64();
            let pace = (seconds > 0.0).then(|| (done - before) / seconds);
            return pace.ok_or_else(|| format!("{}: too few tasks to measure", case.name));
        }
        if at >= end {
            let (name, tasks) = (case.name, case.tasks);
            return Err(format!("{name}: {done} of {tasks} tasks are done after {PATIENCE:?}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Fails if anything is in the queue, which nobody consumes any more: all is acknowledged.
async fn is_empty(world: &World) -> Result<(), String> {
    let left = world.rabbitmq().try_peek(QUEUE, 1).await?;
    if left.is_empty() { Ok(()) } else { Err(format!("{QUEUE} is not empty: {left:?}")) }
}

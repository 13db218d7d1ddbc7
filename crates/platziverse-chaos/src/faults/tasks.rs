//! Events and commands, while something is injured that they need.

use std::time::Duration;

use platziverse_testkit::Held;

use super::{Fault, postgres, processes, rabbitmq};
use crate::stage::Stage;
use crate::tasks::DEAD_EXPECTED;
use crate::work::Work;

/// The gauge of tasks that a worker has in its hands.
const TASKS: &str = "platziverse_worker_tasks_in_flight";
/// Ends the connections that wait for a lock.
const FORGET: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE datname = current_database() AND wait_event_type = 'Lock'";
/// More than the calls that are always under way.
const MANY: f64 = 10.0;
/// How long it may take until a worker has something in its hands.
const BUSY: Duration = Duration::from_secs(30);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    stage.dead_expected.extend(DEAD_EXPECTED);
    match fault {
        Fault::TasksWorkerKill | Fault::TasksWorkersKill => {
            stage.letters_may_repeat = true;
            let one = fault == Fault::TasksWorkerKill;
            let kill = if one { Fault::WorkerKill } else { Fault::WorkersKill };
            let lock = lock(stage, "events").await?;
            are_busy(stage, TASKS, MANY).await?;
            kill_unwritten(kill, stage, lock).await
        }
        Fault::TasksWorkerTerm => succeed_each_other(stage).await,
        Fault::TasksRabbitKill => {
            stage.letters_may_repeat = true;
            rabbitmq::begin(Fault::RabbitKill, stage).await
        }
        Fault::TasksRabbitCut => {
            stage.letters_may_repeat = true;
            rabbitmq::begin(Fault::RabbitCut, stage).await
        }
        Fault::TasksPostgresKill => postgres::begin(Fault::PostgresKill, stage).await,
        Fault::TasksTarget => {
            if let Some(Work::Tasks(tasks)) = &stage.work {
                tasks.fail_for(fault.hold());
            }
            Ok(())
        }
        other => Err(format!("{other:?} is no fault of tasks")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::TasksWorkerKill | Fault::TasksWorkersKill => processes::restart_workers(stage),
        Fault::TasksRabbitKill => rabbitmq::end(Fault::RabbitKill, stage).await,
        Fault::TasksRabbitCut => rabbitmq::end(Fault::RabbitCut, stage).await,
        Fault::TasksPostgresKill => postgres::end(Fault::PostgresKill, stage).await,
        Fault::TasksTarget => match &stage.work {
            Some(Work::Tasks(tasks)) if tasks.failed() > 0 => Ok(()),
            // A fault that does not bite proves nothing.
            _ => Err("nobody has called the service while it failed".to_owned()),
        },
        _ => Ok(()),
    }
}

/// Locks a table: what is to be written to it stays in workers' hands until the answer is dropped.
pub(super) async fn lock(stage: &Stage, table: &str) -> Result<Held, String> {
    stage
        .world
        .database()
        .hold(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        .await
}

/// Kills workers with what waits for the lock, of which PostgreSQL forgets what it was asked, too: it
/// does not notice that a client is gone before it has done what that wanted.
pub(super) async fn kill_unwritten(
    kill: Fault,
    stage: &mut Stage,
    lock: Held,
) -> Result<(), String> {
    processes::begin(kill, stage).await?;
    stage.world.database().try_sql(FORGET).await?;
    drop(lock);
    Ok(())
}

/// Waits until every worker has so much in its hands.
pub(super) async fn are_busy(stage: &mut Stage, held: &str, least: f64) -> Result<(), String> {
    stage
        .until("every worker is busy", BUSY, async |stage| {
            for worker in &stage.workers {
                let in_hand = worker.try_metrics().await?.try_get(held)?;
                if in_hand < least {
                    return Err(format!("{} has {in_hand} in hand", worker.name()));
                }
            }
            Ok(())
        })
        .await
}

/// Each worker ends in good order while its successor starts.
async fn succeed_each_other(stage: &mut Stage) -> Result<(), String> {
    for index in 0..stage.workers.len() {
        are_busy(stage, TASKS, 1.0).await?;
        processes::terminate(&mut stage.workers[index], stage.setup.outage).await?;
        stage.workers[index].start_again()?;
        stage.ready().await?;
    }
    Ok(())
}

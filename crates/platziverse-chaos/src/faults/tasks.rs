//! Events and commands, while something is injured that they need.

use std::time::Duration;

use super::{Fault, postgres, processes, rabbitmq};
use crate::stage::Stage;
use crate::tasks::{DEAD_EXPECTED, Tasks};

/// How long it may take until a worker has something in its hands.
const BUSY: Duration = Duration::from_secs(30);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    stage.dead_expected.extend(DEAD_EXPECTED);
    match fault {
        Fault::TasksWorkerKill | Fault::TasksWorkersKill => {
            stage.letters_may_repeat = true;
            are_busy(stage).await?;
            let one = fault == Fault::TasksWorkerKill;
            let kill = if one { Fault::WorkerKill } else { Fault::WorkersKill };
            processes::begin(kill, stage).await
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
            if let Some(tasks) = &stage.tasks {
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
        Fault::TasksTarget => match stage.tasks.as_ref().map_or(0, Tasks::failed) {
            // A fault that does not bite proves nothing.
            0 => Err("nobody has called the service while it failed".to_owned()),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Waits until every worker has tasks in its hands.
async fn are_busy(stage: &mut Stage) -> Result<(), String> {
    stage
        .until("every worker is busy", BUSY, async |stage| {
            for worker in &stage.workers {
                let held = "platziverse_worker_tasks_in_flight";
                if worker.try_metrics().await?.try_get(held)? == 0.0 {
                    return Err(format!("{} is not", worker.name()));
                }
            }
            Ok(())
        })
        .await
}

/// Each worker ends in good order while its successor starts.
async fn succeed_each_other(stage: &mut Stage) -> Result<(), String> {
    for index in 0..stage.workers.len() {
        are_busy(stage).await?;
        processes::terminate(&mut stage.workers[index], stage.setup.outage).await?;
        stage.workers[index].start_again()?;
        stage.ready().await?;
    }
    Ok(())
}

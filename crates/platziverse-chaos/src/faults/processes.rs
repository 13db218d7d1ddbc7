//! Services that are killed, ended and started again.

use std::time::Duration;

use platziverse_testkit::Process;
use tokio::time::Instant;

use super::{Fault, Target};
use crate::stage::Stage;

/// `ops.drain_timeout` and what a process needs to end.
const DRAIN: Duration = Duration::from_secs(12);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::None => {}
        Fault::GatewayKill => kill(&mut stage.gateways[..1]),
        Fault::GatewaysKill => kill(&mut stage.gateways),
        Fault::WorkerKill | Fault::PrefetchOne | Fault::PrefetchMany => {
            kill(&mut stage.workers[..1]);
        }
        Fault::WorkersKill => kill(&mut stage.workers),
        Fault::GatewayTerm => terminate(&mut stage.gateways[0]).await?,
        Fault::WorkerTerm => terminate(&mut stage.workers[0]).await?,
        Fault::Drain => drain(stage).await?,
        Fault::Rolling => rolling(stage).await?,
        other => return Err(format!("{other:?} is no fault of a process")),
    }
    Ok(())
}

/// What was injured is started again.
pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    if fault.target() != Target::Gateways {
        restart_workers(stage)?;
    }
    if fault.target() != Target::Workers {
        restart(&mut stage.gateways)?;
    }
    Ok(())
}

/// Starts the workers that do not run.
pub(super) fn restart_workers(stage: &mut Stage) -> Result<(), String> {
    restart(&mut stage.workers)
}

fn kill(processes: &mut [Process]) {
    processes.iter_mut().for_each(Process::kill);
}

fn restart(processes: &mut [Process]) -> Result<(), String> {
    for process in processes.iter_mut().filter_map(|one| (!one.is_running()).then_some(one)) {
        process.restart()?;
    }
    Ok(())
}

/// SIGTERM: it must end by itself, in its time, and say that it ended cleanly.
async fn terminate(process: &mut Process) -> Result<(), String> {
    let begun = Instant::now();
    let status = process.terminate().await;
    let took = begun.elapsed();
    match status.success() && took <= DRAIN {
        true => Ok(()),
        false => Err(format!("{} ended after {took:?} with {status}", process.name())),
    }
}

async fn drain(stage: &mut Stage) -> Result<(), String> {
    let all = stage.gateways.iter_mut().chain(&mut stage.workers);
    let mut ending: Vec<_> = all.collect();
    for process in &mut ending {
        process.signal("TERM");
    }
    let begun = Instant::now();
    for process in ending {
        let status = process.ended().await;
        let took = begun.elapsed();
        if !status.success() || took > DRAIN {
            return Err(format!("{} ended after {took:?} with {status}", process.name()));
        }
    }
    Ok(())
}

async fn rolling(stage: &mut Stage) -> Result<(), String> {
    for index in 0..stage.workers.len() {
        terminate(&mut stage.workers[index]).await?;
        stage.workers[index].restart()?;
        stage.ready().await?;
    }
    for index in 0..stage.gateways.len() {
        terminate(&mut stage.gateways[index]).await?;
        stage.gateways[index].restart()?;
        stage.ready().await?;
    }
    Ok(())
}

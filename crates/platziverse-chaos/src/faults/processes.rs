//! Services that are killed, ended and started again.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, Target};
use crate::service::Service;
use crate::stage::Stage;

/// `ops.drain_timeout` and what a process needs to end.
const DRAIN: Duration = Duration::from_secs(12);
/// The exit code of a process whose drain was cut short by `ops.drain_timeout`.
const FORCED: i32 = 2;

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::None => {}
        Fault::GatewayKill => kill(&mut stage.gateways[..1]),
        Fault::GatewaysKill => kill(&mut stage.gateways),
        Fault::WorkerKill | Fault::PrefetchOne | Fault::PrefetchMany => {
            kill(&mut stage.workers[..1]);
        }
        Fault::WorkersKill => kill(&mut stage.workers),
        Fault::GatewayTerm => terminate(&mut stage.gateways[0], stage.setup.outage).await?,
        Fault::WorkerTerm => terminate(&mut stage.workers[0], stage.setup.outage).await?,
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

pub(super) fn kill(services: &mut [Service]) {
    services.iter_mut().for_each(Service::kill);
}

pub(super) fn restart(services: &mut [Service]) -> Result<(), String> {
    services.iter_mut().try_for_each(Service::start_again)
}

/// SIGTERM: it must end by itself, in its time, and say that it ended cleanly. Without its server
/// it may say that it gave up waiting.
pub(super) async fn terminate(service: &mut Service, outage: bool) -> Result<(), String> {
    let begun = Instant::now();
    service.ask_to_end();
    let status = service.ended().await;
    let took = begun.elapsed();
    let is_right = status.success() || outage && status.code() == Some(FORCED);
    match is_right && took <= DRAIN {
        true => Ok(()),
        false => Err(format!("{} ended after {took:?} with {status}", service.name())),
    }
}

async fn drain(stage: &mut Stage) -> Result<(), String> {
    let all = stage.gateways.iter_mut().chain(&mut stage.workers);
    let mut ending: Vec<_> = all.collect();
    ending.iter_mut().for_each(|service| service.ask_to_end());
    let begun = Instant::now();
    for service in ending {
        let status = service.ended().await;
        let took = begun.elapsed();
        if !status.success() || took > DRAIN {
            return Err(format!("{} ended after {took:?} with {status}", service.name()));
        }
    }
    Ok(())
}

async fn rolling(stage: &mut Stage) -> Result<(), String> {
    for index in 0..stage.workers.len() {
        terminate(&mut stage.workers[index], stage.setup.outage).await?;
        stage.workers[index].start_again()?;
        stage.ready().await?;
    }
    for index in 0..stage.gateways.len() {
        terminate(&mut stage.gateways[index], stage.setup.outage).await?;
        stage.gateways[index].start_again()?;
        stage.ready().await?;
    }
    Ok(())
}

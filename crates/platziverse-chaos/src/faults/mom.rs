//! Topics and queues, while something is injured that they need.

use std::time::Duration;

use platziverse_testkit::Toxic;

use super::{Fault, postgres, processes, rabbitmq};
use crate::mom::churn::Temper;
use crate::mom::{Mom, kept};
use crate::stage::Stage;
use crate::work::Work;

/// The gauge of publishes that a server has in its hands.
const PUBLISHES: &str = "platziverse_mom_publishes_in_flight";
/// The gauge of consumers that wait for a message.
const WAITING: &str = "platziverse_mom_waiting_consumers";
/// Each way between a server that is to be killed and RabbitMQ: what it does takes longer.
const SLOW: Duration = Duration::from_millis(300);
/// How long it may take until the services are in the middle of something.
const BUSY: Duration = Duration::from_secs(30);
/// How often consumers are killed.
const TIMES: usize = 4;
/// The reason of messages to what has just been deleted.
const UNROUTABLE: &str = "unroutable";

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    stage.dead_expected.push(UNROUTABLE);
    match fault {
        Fault::MomNone => Ok(()),
        Fault::MomServerKill => kill(stage, 1).await,
        Fault::MomServersKill => {
            let all = stage.moms.len();
            kill(stage, all).await
        }
        Fault::MomServersTerm => succeed_each_other(stage).await,
        Fault::MomRabbitKill => rabbitmq::begin(Fault::RabbitKill, stage).await,
        Fault::MomRabbitCut => rabbitmq::begin(Fault::RabbitCut, stage).await,
        Fault::MomPostgresKill => postgres::begin(Fault::PostgresKill, stage).await,
        Fault::MomConsumersKill => kill_consumers(stage).await,
        other => Err(format!("{other:?} is no fault of topics and queues")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::MomServerKill | Fault::MomServersKill => processes::restart(&mut stage.moms),
        Fault::MomRabbitKill => {
            let bit = are_hindered(stage).await;
            rabbitmq::end(Fault::RabbitKill, stage).await?;
            bit
        }
        Fault::MomRabbitCut => {
            let bit = are_hindered(stage).await;
            rabbitmq::end(Fault::RabbitCut, stage).await?;
            bit
        }
        Fault::MomPostgresKill => {
            let bit = are_hindered(stage).await;
            postgres::end(Fault::PostgresKill, stage).await?;
            bit
        }
        Fault::MomConsumersKill => {
            let mom = of(stage)?;
            let (dropped, least) = (mom.letters.counts().dropped, mom.acknowledging() as u64);
            // A fault that does not bite proves nothing.
            match dropped >= least {
                true => Ok(()),
                false => Err(format!("{dropped} messages were in the hands of killed consumers")),
            }
        }
        _ => Ok(()),
    }
}

fn of(stage: &Stage) -> Result<&Mom, String> {
    match &stage.work {
        Some(Work::Mom(mom)) => Ok(mom),
        _ => Err("nobody uses topics and queues".to_owned()),
    }
}

/// Kills servers that have publishes in their hands, one of them with a change half-done that nobody
/// asks for again.
async fn kill(stage: &mut Stage, count: usize) -> Result<(), String> {
    stage.mom_amqp[..count].iter().for_each(|proxy| proxy.set(Toxic::Latency(SLOW)));
    let busy = stage
        .until("servers are in the middle of publishes and changes", BUSY, async |stage| {
            for server in &stage.moms[..count] {
                let publishes = server.try_metrics().await?.try_get(PUBLISHES)?;
                if publishes < 1.0 {
                    return Err(format!("{} has no publish in hand", server.name()));
                }
            }
            match kept::unfinished(&stage.world, Temper::Fickle.prefix()).await? {
                0 => Err("no change is half-done".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    processes::kill(&mut stage.moms[..count]);
    stage.mom_amqp[..count].iter().for_each(|proxy| proxy.set(Toxic::None));
    busy?;
    match kept::unfinished(&stage.world, Temper::Fickle.prefix()).await? {
        0 => Err("no change was half-done when the server was killed".to_owned()),
        _ => Ok(()),
    }
}

/// Each server ends in good order, while consumers wait for it, and starts again.
async fn succeed_each_other(stage: &mut Stage) -> Result<(), String> {
    for index in 0..stage.moms.len() {
        stage
            .until("consumers wait", BUSY, async |stage| {
                match stage.moms[index].try_metrics().await?.try_get(WAITING)? {
                    count if count > 0.0 => Ok(()),
                    _ => Err(format!("nobody waits at {}", stage.moms[index].name())),
                }
            })
            .await?;
        processes::terminate(&mut stage.moms[index], stage.setup.outage).await?;
        stage.moms[index].start_again()?;
        stage.ready().await?;
    }
    Ok(())
}

/// A fault that does not bite proves nothing: every server says that it waits for something, and
/// publishers are told so.
async fn are_hindered(stage: &mut Stage) -> Result<(), String> {
    let before = of(stage)?.letters.counts().failed;
    stage
        .until("servers are not ready and publishers hear of it", BUSY, async |stage| {
            for server in &stage.moms {
                if server.try_readyz().await?.0 == 200 {
                    return Err(format!("{} is ready", server.name()));
                }
            }
            match of(stage)?.letters.counts().failed {
                failed if failed > before => Ok(()),
                _ => Err("no publish has failed".to_owned()),
            }
        })
        .await
}

/// Kills consumers while most of them hold something, and lets others take their place.
async fn kill_consumers(stage: &mut Stage) -> Result<(), String> {
    for _ in 0..TIMES {
        stage
            .until("consumers hold messages", BUSY, async |stage| {
                let mom = of(stage)?;
                let (holding, all) = (mom.letters.holding(), mom.acknowledging());
                match holding * 2 > all {
                    true => Ok(()),
                    false => Err(format!("{holding} of {all} do")),
                }
            })
            .await?;
        of(stage)?.kill_consumers();
        stage.pass(Duration::from_secs(1)).await;
    }
    Ok(())
}

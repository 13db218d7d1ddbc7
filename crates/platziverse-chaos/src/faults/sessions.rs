//! Aggregators, while something is injured between clients and servers.

use std::time::Duration;

use platziverse_testkit::Toxic;

use super::{Fault, processes, rabbitmq};
use crate::service::Service;
use crate::sessions::Sessions;
use crate::stage::Stage;
use crate::work::Work;

/// How long it may take until clients are where a round wants them.
const BUSY: Duration = Duration::from_secs(30);
/// How often the connections of clients are reset.
const TIMES: u64 = 4;
/// Each way between an aggregator and RabbitMQ.
const SLOW: Duration = Duration::from_millis(200);
/// Bytes a second between clients and an aggregator, each way.
const NARROW: u64 = 4 << 10;
/// A RabbitMQ of 3.10 that is killed sooner forgets queues that it has just made.
const SETTLED: Duration = Duration::from_secs(2);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::AggregatorNone => Ok(()),
        Fault::AggregatorsKill => kill_in_turn(stage).await,
        Fault::AggregatorsTerm => succeed_each_other(stage).await,
        Fault::AggregatorServersKill => kill_servers(stage).await,
        Fault::AggregatorRabbitKill => {
            stage.pass(SETTLED).await;
            rabbitmq::begin(Fault::RabbitKill, stage).await
        }
        Fault::AggregatorRabbitCut => to_rabbitmq(stage, Toxic::Refuse),
        Fault::AggregatorRabbitStalled => to_rabbitmq(stage, Toxic::HalfOpen),
        Fault::AggregatorRabbitSlow => to_rabbitmq(stage, Toxic::Latency(SLOW)),
        Fault::AggregatorClientsCut => cut_clients(stage).await,
        Fault::AggregatorClientsStalled => {
            // One way only: there is somewhere else to go to.
            of(stage)?.ways[0].set(Toxic::HalfOpen);
            Ok(())
        }
        Fault::AggregatorClientsSlow => {
            of(stage)?.ways.iter().for_each(|way| way.set(Toxic::Bandwidth(NARROW)));
            Ok(())
        }
        other => Err(format!("{other:?} is no fault of aggregators")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::AggregatorServersKill => {
            servers(stage)?.iter_mut().try_for_each(Service::start_again)
        }
        Fault::AggregatorRabbitKill => {
            let bit = are_hindered(stage).await;
            rabbitmq::end(Fault::RabbitKill, stage).await?;
            bit
        }
        Fault::AggregatorRabbitCut => {
            let bit = are_hindered(stage).await;
            to_rabbitmq(stage, Toxic::None)?;
            bit
        }
        Fault::AggregatorRabbitStalled | Fault::AggregatorRabbitSlow => {
            to_rabbitmq(stage, Toxic::None)
        }
        Fault::AggregatorClientsStalled => {
            let before = of(stage)?.resumed();
            of(stage)?.leave();
            let gone_on = go_on(stage, before).await;
            of(stage)?.ways[0].set(Toxic::None);
            gone_on
        }
        Fault::AggregatorClientsSlow => {
            of(stage)?.ways.iter().for_each(|way| way.set(Toxic::None));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn of(stage: &Stage) -> Result<&Sessions, String> {
    match &stage.work {
        Some(Work::Sessions(sessions)) => Ok(sessions),
        _ => Err("nobody uses aggregators".to_owned()),
    }
}

fn servers(stage: &mut Stage) -> Result<&mut [Service], String> {
    match &mut stage.work {
        Some(Work::Sessions(sessions)) => Ok(&mut sessions.servers),
        _ => Err("nobody uses aggregators".to_owned()),
    }
}

fn to_rabbitmq(stage: &Stage, toxic: Toxic) -> Result<(), String> {
    stage.aggregator_amqp.iter().for_each(|proxy| proxy.set(toxic));
    Ok(())
}

/// Waits until clients wait for replies: what dies then dies in the middle of something.
async fn are_asking(stage: &mut Stage) -> Result<(), String> {
    stage
        .until("clients wait for replies", BUSY, async |stage| {
            let (asking, clients) = (of(stage)?.asking(), of(stage)?.clients());
            match asking * 2 >= clients {
                true => Ok(()),
                false => Err(format!("{asking} requests of {clients} clients do")),
            }
        })
        .await
}

/// Waits until at least half of the clients have gone on with their sessions: a fault that does not
/// bite proves nothing.
async fn go_on(stage: &mut Stage, before: u64) -> Result<(), String> {
    stage
        .until("clients go on with their sessions", BUSY, async |stage| {
            let sessions = of(stage)?;
            match (sessions.resumed() - before) * 2 >= sessions.clients() {
                true => Ok(()),
                false => Err(format!("{} have", sessions.resumed() - before)),
            }
        })
        .await
}

async fn kill_in_turn(stage: &mut Stage) -> Result<(), String> {
    for index in 0..stage.aggregators.len() {
        are_asking(stage).await?;
        let before = of(stage)?.resumed();
        stage.aggregators[index].kill();
        go_on(stage, before).await?;
        stage.aggregators[index].start_again()?;
        stage.ready().await?;
    }
    Ok(())
}

/// Each ends in good order, and its clients go on at the other.
async fn succeed_each_other(stage: &mut Stage) -> Result<(), String> {
    for index in 0..stage.aggregators.len() {
        are_asking(stage).await?;
        let before = of(stage)?.resumed();
        processes::terminate(&mut stage.aggregators[index], stage.setup.outage).await?;
        go_on(stage, before).await?;
        stage.aggregators[index].start_again()?;
        stage.ready().await?;
    }
    Ok(())
}

/// First one: the other does its work as well. Then both: it waits.
async fn kill_servers(stage: &mut Stage) -> Result<(), String> {
    are_asking(stage).await?;
    servers(stage)?[0].kill();
    stage.acknowledges().await?;
    servers(stage)?[0].start_again()?;
    are_asking(stage).await?;
    processes::kill(servers(stage)?);
    Ok(())
}

/// A fault that does not bite proves nothing: aggregators say that they are not ready, and clients
/// are told that RabbitMQ does not answer.
async fn are_hindered(stage: &mut Stage) -> Result<(), String> {
    stage
        .until("aggregators are not ready and clients hear of it", BUSY, async |stage| {
            for aggregator in &stage.aggregators {
                if aggregator.try_readyz().await?.0 == 200 {
                    return Err(format!("{} is ready", aggregator.name()));
                }
            }
            match of(stage)?.hindered() {
                0 => Err("nobody was told".to_owned()),
                _ => Ok(()),
            }
        })
        .await
}

async fn cut_clients(stage: &mut Stage) -> Result<(), String> {
    for _ in 0..TIMES {
        are_asking(stage).await?;
        let before = of(stage)?.resumed();
        of(stage)?.ways.iter().for_each(platziverse_testkit::Proxy::reset);
        go_on(stage, before).await?;
    }
    Ok(())
}

//! RabbitMQ, and the way to it.

use std::time::Duration;

use platziverse_testkit::{DeadLetter, Toxic};

use super::{Fault, processes};
use crate::fleet::Order;
use crate::kept;
use crate::service::Service;
use crate::stage::Stage;

const INGEST: &str = "platziverse.ingest";
const SLOW: Duration = Duration::from_millis(200);
/// Bytes a second, each way.
const NARROW: u64 = 256 << 10;
/// Below what RabbitMQ itself takes: the alarm is on at once.
const NO_MEMORY: &str = "0.0000001";
const SETTLE: Duration = Duration::from_secs(60);
/// How long a gateway that was started again in the meantime may need to notice.
const NOTICE: Duration = Duration::from_secs(10);
/// More than any other fault of a round leaves before it.
const LETTERS_LOOKED_AT: u32 = 5_000;
/// RabbitMQ's default.
const MEMORY: &str = "0.4";

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::RabbitRestart => stage.servers.try_run("stop", "rabbitmq").await,
        Fault::RabbitKill => stage.servers.try_run("kill", "rabbitmq").await,
        Fault::RabbitAlarm => watermark(stage, NO_MEMORY).await,
        Fault::QueueFull => {
            // Nobody takes anything out: it fills up.
            stage.workers.iter_mut().for_each(Service::kill);
            Ok(())
        }
        Fault::RabbitCut => {
            both(stage, Toxic::Refuse);
            Ok(())
        }
        Fault::RabbitHalfOpen => {
            both(stage, Toxic::HalfOpen);
            Ok(())
        }
        Fault::RabbitSlow => {
            stage.gateway_amqp.iter().for_each(|proxy| proxy.set(Toxic::Latency(SLOW)));
            stage.worker_amqp.set(Toxic::Bandwidth(NARROW));
            Ok(())
        }
        Fault::QueueDeleted => {
            // Workers are told that their consumers are cancelled, and make the queue again.
            stage.dead_expected.push("unroutable");
            delete_ingest(stage).await?;
            stage.fleet.order(Order::Report);
            Ok(())
        }
        other => Err(format!("{other:?} is no fault of RabbitMQ")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::RabbitRestart | Fault::RabbitKill => {
            stage.servers.try_run("start", "rabbitmq").await
        }
        Fault::RabbitAlarm => {
            let blocked = senders_wait(stage, "blocks").await;
            watermark(stage, MEMORY).await?;
            blocked
        }
        Fault::QueueFull => {
            let refused = publishes_were_refused(stage).await;
            processes::restart_workers(stage)?;
            refused
        }
        Fault::QueueDeleted => without_queue(stage).await,
        _ => {
            both(stage, Toxic::None);
            Ok(())
        }
    }
}

fn both(stage: &Stage, toxic: Toxic) {
    stage.to_rabbitmq().for_each(|proxy| proxy.set(toxic));
}

async fn watermark(stage: &Stage, share: &str) -> Result<(), String> {
    stage.servers.ctl(&["-q", "set_vm_memory_high_watermark", share]).await.map(drop)
}

/// A fault that does not bite proves nothing. One gateway that says so is enough: the other may be
/// away, or have had nothing to send since it came back.
async fn senders_wait(stage: &mut Stage, why: &str) -> Result<(), String> {
    stage
        .until("a gateway knows that RabbitMQ wants nothing", NOTICE, async |stage| {
            let mut heard = Vec::new();
            for gateway in &stage.gateways {
                match gateway.try_readyz().await {
                    Ok((status, body)) if status != 200 && body.to_string().contains(why) => {
                        return Ok(());
                    }
                    Ok((_, body)) => heard.push(format!("{}: {body}", gateway.name())),
                    Err(error) => heard.push(error),
                }
            }
            Err(format!("none says {why:?}; {}", heard.join("; ")))
        })
        .await
}

async fn publishes_were_refused(stage: &Stage) -> Result<(), String> {
    for gateway in &stage.gateways {
        let metrics = gateway.try_metrics().await?;
        if metrics.sum("platziverse_broker_refused_messages_total") > 0.0 {
            return Ok(());
        }
    }
    Err("no gateway was refused anything".to_owned())
}

/// What is in a queue goes with it, which is no fault of ours: so it is empty when it goes.
async fn delete_ingest(stage: &mut Stage) -> Result<(), String> {
    stage.fleet.order(Order::Settle);
    stage.settle(SETTLE).await?;
    stage.world.rabbitmq().delete_queue(INGEST).await;
    Ok(())
}

/// Nobody makes the queue again: what is acknowledged meanwhile must be kept as `unroutable`,
/// although listeners hear it.
async fn without_queue(stage: &mut Stage) -> Result<(), String> {
    stage.fleet.order(Order::Settle);
    stage.settle(SETTLE).await?;
    stage.workers.iter_mut().for_each(Service::kill);
    stage.world.rabbitmq().delete_queue(INGEST).await;
    stage.fleet.order(Order::Report);
    stage.pass(Fault::QueueDeleted.hold()).await;
    let kept = are_unroutable(stage).await;
    processes::restart_workers(stage)?;
    kept
}

/// A fault that does not bite proves nothing.
async fn are_unroutable(stage: &Stage) -> Result<(), String> {
    // The fleet goes on: read to its end, the queue would be read for as long as it grows.
    let letters = stage.world.rabbitmq().try_oldest_dead_letters(LETTERS_LOOKED_AT).await?;
    let unroutable = |letter: &DeadLetter| kept::reason(letter) == "unroutable";
    match letters.iter().any(unroutable) {
        true => Ok(()),
        false => Err(format!("none of {} dead letters is unroutable", letters.len())),
    }
}

//! Deliveries that come twice, or too often.

use std::time::Duration;

use platziverse_testkit::{DeadLetter, Toxic};

use super::Fault;
use crate::kept;
use crate::stage::Stage;

/// How long acknowledgements are held back before the connection is cut.
const DEAF: Duration = Duration::from_secs(2);
/// How often.
const TIMES: u32 = 3;
/// Of what is reported in that time, the share that must come again: what workers may hold without
/// an acknowledgement is bounded.
const AGAIN: f64 = 0.1;
/// How long the end of the connections may take.
const CUT: Duration = Duration::from_secs(5);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::Redelivery => {
            for _ in 0..TIMES {
                repeat(stage).await?;
            }
            Ok(())
        }
        Fault::DeliveryLimit => {
            stage.dead_expected.push("delivery_limit");
            // Nothing is stored meanwhile, so that what is given up is not stored already.
            let lock = "BEGIN; LOCK TABLE agents IN ACCESS EXCLUSIVE MODE";
            stage.held = Some(stage.world.database().hold(lock).await?);
            for _ in 0..4 {
                repeat(stage).await?;
            }
            Ok(())
        }
        other => Err(format!("{other:?} is no fault of deliveries")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    stage.worker_amqp.set(Toxic::None);
    stage.held = None;
    match fault {
        Fault::Redelivery => came_twice(stage).await,
        _ => were_given_up(stage).await,
    }
}

/// A fault that does not bite proves nothing.
async fn came_twice(stage: &mut Stage) -> Result<(), String> {
    let within = Duration::from_secs(30);
    let enough = stage.setup.plan.rate * (DEAF * TIMES).as_secs_f64() * AGAIN;
    stage
        .until("records came twice", within, async |stage| {
            let mut twice = 0.0;
            for worker in &stage.workers {
                let metrics = worker.try_metrics().await?;
                twice += metrics.try_get("platziverse_worker_records_duplicate_total")?;
            }
            if twice >= enough { Ok(()) } else { Err(format!("{twice} of {enough:.0} did")) }
        })
        .await
}

async fn were_given_up(stage: &mut Stage) -> Result<(), String> {
    let within = Duration::from_secs(30);
    stage
        .until("deliveries reached their limit", within, async |stage| {
            let letters = stage.world.rabbitmq().try_dead_letters().await?;
            let given_up = |letter: &DeadLetter| kept::reason(letter) == "delivery_limit";
            match letters.iter().any(given_up) {
                true => Ok(()),
                false => Err(format!("none of {} dead letters is of that reason", letters.len())),
            }
        })
        .await
}

/// What workers hold is stored, but RabbitMQ never learns it, and delivers it again.
async fn repeat(stage: &mut Stage) -> Result<(), String> {
    stage.worker_amqp.set(Toxic::Mute);
    stage.pass(DEAF).await;
    // Nothing that was held back gets through before the connections are gone.
    stage.worker_amqp.set(Toxic::Refuse);
    let gone = async |stage: &Stage| match stage.worker_amqp.connections() {
        0 => Ok(()),
        count => Err(format!("{count} are still there")),
    };
    stage.until("the workers' connections are gone", CUT, gone).await?;
    stage.worker_amqp.set(Toxic::None);
    stage.pass(DEAF).await;
    Ok(())
}

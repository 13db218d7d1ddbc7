//! Commands to agents, while something is injured that they need.

use std::time::Duration;

use super::{Fault, postgres, processes, rabbitmq, tasks};
use crate::commands::agent::Mood;
use crate::fleet::Order;
use crate::stage::Stage;
use crate::work::Work;

/// The gauge of what gateways and agents say of commands and a worker has in its hands.
const REPORTS: &str = "platziverse_worker_reports_in_flight";
/// How long agents keep their answers to themselves.
const HOLDING: Duration = Duration::from_secs(2);
/// How long what is said of commands before that may take to be written.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::CommandsGatewayKill => processes::begin(Fault::GatewayKill, stage).await,
        Fault::CommandsGatewaysKill => processes::begin(Fault::GatewaysKill, stage).await,
        Fault::CommandsWorkersKill => kill_with_answers(stage).await,
        Fault::CommandsRabbitRestart => rabbitmq::begin(Fault::RabbitRestart, stage).await,
        Fault::CommandsPostgresKill => postgres::begin(Fault::PostgresKill, stage).await,
        Fault::CommandsAgentsCrash => {
            if let Some(Work::Commands(commands)) = &stage.work {
                commands.set(Mood::Crashing);
            }
            Ok(())
        }
        other => Err(format!("{other:?} is no fault of commands to agents")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::CommandsGatewayKill => processes::end(Fault::GatewayKill, stage).await,
        Fault::CommandsGatewaysKill => processes::end(Fault::GatewaysKill, stage).await,
        Fault::CommandsWorkersKill => processes::end(Fault::WorkersKill, stage).await,
        Fault::CommandsRabbitRestart => rabbitmq::end(Fault::RabbitRestart, stage).await,
        Fault::CommandsPostgresKill => postgres::end(Fault::PostgresKill, stage).await,
        Fault::CommandsAgentsCrash => {
            let Some(Work::Commands(commands)) = &stage.work else { return Ok(()) };
            commands.set(Mood::Lively);
            let (crashes, agents) = (commands.crashes(), commands.answering());
            // A fault that does not bite proves nothing.
            match crashes >= agents {
                true => Ok(()),
                false => Err(format!("{crashes} crashes of {agents} agents")),
            }
        }
        _ => Ok(()),
    }
}

/// Kills workers with answers in their hands, which the agents give once only: what else is said of
/// commands is out of the way by then.
async fn kill_with_answers(stage: &mut Stage) -> Result<(), String> {
    tell(stage, Mood::Holding, Order::Report);
    stage.pass(HOLDING).await;
    tell(stage, Mood::Holding, Order::Settle);
    stage.pass(FLUSH).await;
    let lock = tasks::lock(stage, "commands").await?;
    tell(stage, Mood::Lively, Order::Settle);
    tasks::are_busy(stage, REPORTS, 1.0).await?;
    tasks::kill_unwritten(Fault::WorkersKill, stage, lock).await?;
    tell(stage, Mood::Lively, Order::Report);
    Ok(())
}

fn tell(stage: &Stage, agents: Mood, application: Order) {
    if let Some(Work::Commands(commands)) = &stage.work {
        commands.set(agents);
        commands.sender.order(application);
    }
}

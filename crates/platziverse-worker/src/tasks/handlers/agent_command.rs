//! `agent.command`: a command to an agent, over MQTT.

use std::time::Duration;

use platziverse_protocol::command::{self, Instruction};
use platziverse_protocol::task::Task;
use platziverse_service::clock;
use platziverse_store::commands::{self, CommandState, Step};
use tokio::time::{Instant, timeout_at};

use crate::tasks::agents;
use crate::tasks::handler::{Done, Failure, Handler, TaskContext, payload};

/// The part of an attempt that is left when the command stops waiting for RabbitMQ, whose absence is
/// no fault of it.
const LEFT: u32 = 10;

/// Sends commands to agents. What becomes of them is told by [`reports`](mod@crate::tasks::reports).
pub(super) struct AgentCommand {
    /// When one is given up that does not say so itself.
    pub(super) timeout: Duration,
}

impl Handler for AgentCommand {
    const NAME: &'static str = command::AGENT_COMMAND;

    async fn handle(&self, task: &Task, context: &TaskContext) -> Result<Done, Failure> {
        let Instruction { name, payload } = payload(task)?;
        let Some(agent) = task.target.as_deref() else {
            return Err(Failure::Reject("there is no target, the uuid of an agent".to_owned()));
        };
        let now = clock::now();
        let millis = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        let expires_at = context.expires_at.or(Some(now.plus_millis(millis)));
        let command = command::AgentCommand {
            id: context.id,
            name: &name,
            payload: &payload,
            expires: expires_at,
        };
        let outgoing = agents::outgoing(agent, &command, now)
            .map_err(|error| Failure::Reject(error.to_string()))?;
        // First the row: an agent that begins to listen before the message is out is sent what the
        // rows say was sent, and one that does so later hears the message.
        let sent = Step { expires_at, ..Step::to(CommandState::Sent, now) };
        commands::advance(&context.store, context.id, &sent).await?;
        let patience = context.deadline - (context.deadline - Instant::now()) / LEFT;
        match timeout_at(patience, context.publisher.publish_all(vec![outgoing])).await {
            Ok(Ok(())) => Ok(Done::Later),
            Ok(Err(error)) => Err(Failure::Hold(error.to_string())),
            Err(_) => Err(Failure::Hold("RabbitMQ does not take it".to_owned())),
        }
    }
}

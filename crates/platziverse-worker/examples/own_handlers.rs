//! A worker with handlers of its own beside those that are built in. It has the arguments, the
//! settings and the promises of `platziverse-worker`.
//!
//! ```sh
//! cargo run -p platziverse-worker --example own_handlers
//! platziverse task send event visitor.arrived --payload '{"name": "Ada"}'
//! platziverse command list --name greet
//! ```

use std::process::ExitCode;

use platziverse_broker::Lane;
use platziverse_config::WORKER_OPS;
use platziverse_protocol::task::Task;
use platziverse_protocol::task::TaskKind::{Command, Event};
use platziverse_service::About;
use platziverse_worker::tasks::handler::{Done, Failure, Handler, TaskContext, payload};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

fn main() -> ExitCode {
    let description = "Handles events and commands, and greets";
    let about = About { name: "worker", description, ops_listen: WORKER_OPS };
    platziverse_service::main(about, |service| {
        platziverse_worker::run_with(service, |handlers| {
            handlers.with(Command, Greet).with(Event, Welcome)
        })
    })
}

#[derive(Deserialize)]
struct Visitor {
    name: String,
}

/// The command `greet`. What it answers is the command's result.
struct Greet;

impl Handler for Greet {
    const NAME: &'static str = "greet";

    async fn handle(&self, task: &Task, _context: &TaskContext) -> Result<Done, Failure> {
        let Visitor { name } = payload(task)?; // what does not fit is rejected
        match name.as_str() {
            "" => Err(Failure::Reject("who has no name cannot be greeted".to_owned())),
            "nobody" => Err(Failure::Retry("nobody is there yet".to_owned())),
            _ => Done::with(&json!({ "greeting": format!("Hello, {name}!") })),
        }
    }
}

/// The event `visitor.arrived`: whoever arrives is greeted.
struct Welcome;

impl Handler for Welcome {
    const NAME: &'static str = "visitor.arrived";

    async fn handle(&self, task: &Task, context: &TaskContext) -> Result<Done, Failure> {
        let Visitor { name } = payload(task)?;
        // The same however often this event is handled, so that the visitor is greeted once.
        let id = Uuid::new_v5(&context.id, Greet::NAME.as_bytes());
        let payload = json!({ "name": name });
        let greet = json!({ "kind": Command, "name": Greet::NAME, "id": id, "payload": payload });
        let lane = Lane::task(Command.as_str(), Command);
        let published = context.publisher.publish_all(vec![(lane, id, greet.to_string().into())]);
        published.await.map_err(|error| Failure::Retry(error.to_string()))?;
        Ok(Done::Now)
    }
}

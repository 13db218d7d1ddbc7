//! The handlers that are built in.

mod agent_command;
mod event_store;
mod http_request;
mod log;

use platziverse_protocol::task::TaskKind::{Command, Event};
use platziverse_service::Service;
use platziverse_store::Store;

use self::agent_command::AgentCommand;
use self::event_store::EventStore;
use self::http_request::HttpRequest;
use self::log::Log;
use super::registry::Registry;

/// All of them. A handler is one file beside this one, and one line here.
pub(crate) fn all(service: &Service, store: &Store) -> Registry {
    let timeout = service.settings.tasks.command_timeout;
    Registry::default()
        .with_any_event(EventStore::start(service, store))
        .with(Event, Log)
        .with(Command, AgentCommand { timeout })
        .with(Command, Log)
        .with(Command, HttpRequest::new(&service.settings.tasks))
}

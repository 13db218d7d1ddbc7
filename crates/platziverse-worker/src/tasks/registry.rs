//! Which handler handles what.

use std::collections::BTreeMap;

use platziverse_protocol::task::{Task, TaskKind};

use super::handler::{AnyHandler, Handler};

/// The handlers, by the kind and the name of their tasks.
#[derive(Default)]
pub struct Registry {
    events: BTreeMap<&'static str, Box<dyn AnyHandler>>,
    any_event: Option<Box<dyn AnyHandler>>,
    commands: BTreeMap<&'static str, Box<dyn AnyHandler>>,
}

impl Registry {
    /// With a handler of the events, or of the commands, of its name, instead of one that they had.
    #[must_use]
    pub fn with<H: Handler>(mut self, kind: TaskKind, handler: H) -> Self {
        let handlers = match kind {
            TaskKind::Event => &mut self.events,
            TaskKind::Command => &mut self.commands,
        };
        handlers.insert(H::NAME, Box::new(handler));
        self
    }

    /// With a handler of all events that have none of their own, instead of the one that they had.
    #[must_use]
    pub fn with_any_event(mut self, handler: impl Handler) -> Self {
        self.any_event = Some(Box::new(handler));
        self
    }

    /// The handler of a task.
    pub(crate) fn find(&self, task: &Task) -> Option<&dyn AnyHandler> {
        let found = match task.kind {
            TaskKind::Event => self.events.get(task.name.as_str()).or(self.any_event.as_ref()),
            TaskKind::Command => self.commands.get(task.name.as_str()),
        };
        found.map(AsRef::as_ref)
    }

    /// The names of the commands that are handled, for a person.
    pub(crate) fn commands(&self) -> String {
        self.commands.keys().copied().collect::<Vec<_>>().join(", ")
    }
}

//! Who is connected to this gateway, by client id, by session and by connection.

use std::collections::HashMap;

use platziverse_protocol::presence::SessionId;

use crate::mailbox::Mailbox;
use crate::packet::Text;

/// One connection of this gateway; never used again after its end.
pub(crate) type ConnectionId = u64;

#[derive(Debug)]
struct Entry {
    client: Text,
    session: SessionId,
    mailbox: Mailbox,
}

/// The accepted clients.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    last: ConnectionId,
    connections: HashMap<ConnectionId, Entry>,
    clients: HashMap<Text, ConnectionId>,
    sessions: HashMap<SessionId, ConnectionId>,
}

impl Registry {
    /// Enters a client. Answers with its connection and, if another one had the same client id,
    /// that one's mailbox.
    pub(crate) fn enter(
        &mut self,
        client: &Text,
        session: SessionId,
        mailbox: Mailbox,
    ) -> (ConnectionId, Option<Mailbox>) {
        self.last += 1;
        let older = self.clients.insert(client.clone(), self.last);
        self.connections.insert(self.last, Entry { client: client.clone(), session, mailbox });
        self.sessions.insert(session, self.last);
        (self.last, older.and_then(|older| self.mailbox(older)).cloned())
    }

    /// Removes a connection.
    pub(crate) fn leave(&mut self, connection: ConnectionId) {
        let Some(entry) = self.connections.remove(&connection) else { return };
        self.sessions.remove(&entry.session);
        if self.clients.get(&entry.client) == Some(&connection) {
            self.clients.remove(&entry.client);
        }
    }

    /// Gives a connection another session.
    pub(crate) fn renew(&mut self, connection: ConnectionId, session: SessionId) {
        if let Some(entry) = self.connections.get_mut(&connection) {
            self.sessions.remove(&entry.session);
            entry.session = session;
            self.sessions.insert(session, connection);
        }
    }

    /// The mailbox of a connection.
    pub(crate) fn mailbox(&self, connection: ConnectionId) -> Option<&Mailbox> {
        self.connections.get(&connection).map(|entry| &entry.mailbox)
    }

    /// The connection that has a session.
    pub(crate) fn of_session(&self, session: SessionId) -> Option<ConnectionId> {
        self.sessions.get(&session).copied()
    }

    /// The connection that has a client id, with its session.
    pub(crate) fn session_of(&self, client: &str) -> Option<(&Mailbox, SessionId)> {
        let entry = self.connections.get(self.clients.get(client)?)?;
        Some((&entry.mailbox, entry.session))
    }

    /// Every client id with its session.
    pub(crate) fn roll(&self) -> Vec<(Text, SessionId)> {
        let entry = |entry: &Entry| (entry.client.clone(), entry.session);
        self.connections.values().map(entry).collect()
    }

    /// The mailboxes of all.
    pub(crate) fn all(&self) -> Vec<Mailbox> {
        self.connections.values().map(|entry| entry.mailbox.clone()).collect()
    }
}

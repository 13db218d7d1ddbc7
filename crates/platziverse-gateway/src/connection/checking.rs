//! Letting a client in, or not.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::{Accepted, Connection};
use crate::auth::{Permissions, Refusal};
use crate::mailbox::{Checked, Event};
use crate::packet::{Connect, Reason, Text, Told};
use crate::reporter::Reporter;
use crate::session::Verdict;

impl Connection {
    /// Has the credentials checked; the answer comes to the mailbox.
    pub(super) fn authenticate(&mut self, connect: Box<Connect>) {
        let (hub, mailbox, peer) = (Arc::clone(&self.hub), self.mailbox.clone(), self.peer.ip());
        self.hub.drain.spawn_isolated(async move {
            let password = connect.password.as_deref();
            let checking = hub.auth.check(connect.username.as_deref(), password, peer);
            // Whoever has given up, or came too late, is not to hold up those behind.
            let result = tokio::select! {
                result = checking => result,
                () = mailbox.closed() => return,
                () = hub.drain.requested() => Err(Refusal::Unavailable),
            };
            mailbox.send(Event::Checked(Box::new(Checked { connect, result })));
        });
    }

    pub(super) fn checked(&mut self, checked: Checked, now: Instant) {
        let Checked { connect, result } = checked;
        if self.session.is_closed() {
            return;
        }
        let verdict = match result {
            Err(Refusal::Unavailable) => going_down(),
            _ if self.hub.drain.is_requested() => going_down(),
            Err(Refusal::BadCredentials) => {
                refused(Reason::BAD_USERNAME_OR_PASSWORD, "unknown user or wrong password")
            }
            Err(Refusal::NotAuthorized) => {
                refused(Reason::NOT_AUTHORIZED, "a user name and a password are needed")
            }
            Ok(_) if self.hub.is_full() => {
                refused(Reason::QUOTA_EXCEEDED, "the gateway has as many connections as it takes")
            }
            Ok(permissions) => match self.will_forbidden(&connect, &permissions) {
                true => {
                    refused(Reason::NOT_AUTHORIZED, "the will's topic is not open to this client")
                }
                false => self.accept(&connect, permissions),
            },
        };
        if let Verdict::Refused(told) = &verdict {
            let why = told.text.as_deref().unwrap_or_default();
            tracing::info!(peer = %self.peer, client = &*connect.client_id, "a client is not let in: {why}");
        }
        self.session.verdict(verdict, now, &mut self.actions);
    }

    fn will_forbidden(&self, connect: &Connect, permissions: &Permissions) -> bool {
        connect.will.as_ref().is_some_and(|will| !permissions.may_publish(&will.topic))
    }

    fn accept(&mut self, connect: &Connect, permissions: Permissions) -> Verdict {
        let client_id = if connect.client_id.is_empty() {
            Text::from(format!("platziverse-{}", Uuid::now_v7().simple()))
        } else {
            connect.client_id.clone()
        };
        let (id, session) = self.hub.enter(&client_id, self.mailbox.clone());
        let reporter = Reporter::new(client_id.clone(), session, permissions);
        self.accepted = Some(Box::new(Accepted { id, reporter }));
        tracing::debug!(peer = %self.peer, client = &*client_id, %session, "a client is connected");
        Verdict::Accepted { client_id }
    }
}

fn going_down() -> Verdict {
    refused(Reason::SERVER_UNAVAILABLE, "the gateway is going down")
}

fn refused(reason: Reason, text: &'static str) -> Verdict {
    Verdict::Refused(Told::new(reason, text))
}

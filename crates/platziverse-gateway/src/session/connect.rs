//! CONNECT, the verdict on it, and CONNACK.

use std::time::Instant;

use platziverse_protocol::topic;

use super::{Action, Asked, Phase, Session, Verdict};
use crate::packet::{Connack, Connect, Outgoing, Reason, Text, Told, Version};

impl Session {
    pub(super) fn connect(&mut self, connect: Box<Connect>, out: &mut Vec<Action>) {
        self.version = connect.version;
        if let Err(told) = check(&connect) {
            return self.end(told, None, out);
        }
        self.asked = Asked {
            client_id: connect.client_id.is_empty(),
            session_expiry: connect.session_expiry,
        };
        self.will.clone_from(&connect.will);
        self.keep_alive = connect.keep_alive;
        let window = self.limits.outbound_window.min(connect.receive_maximum);
        self.outbound.limit(window, connect.max_packet_size);
        self.phase = Phase::Authenticating;
        out.push(Action::Authenticate(connect));
    }

    /// Takes the answer to [`Action::Authenticate`].
    pub fn verdict(&mut self, verdict: Verdict, now: Instant, out: &mut Vec<Action>) {
        if self.phase != Phase::Authenticating {
            return;
        }
        match verdict {
            Verdict::Accepted { .. } if self.draining => {
                self.end(Reason::SERVER_UNAVAILABLE.into(), None, out);
            }
            Verdict::Accepted { client_id } => {
                let connack = self.connack(Reason::SUCCESS.into(), Some(client_id));
                self.phase = Phase::Open;
                self.clock.connected(self.keep_alive, now);
                out.push(Action::Send(connack));
            }
            Verdict::Refused(told) => self.end(told, None, out),
        }
    }

    /// MQTT-3.2.2-7: a refusal is followed by closing the connection. In 3.1.1 some refusals have
    /// no code (MQTT-3.2.2-6), and the connection is closed without one.
    pub(super) fn connack_refused(&mut self, told: &Told, out: &mut Vec<Action>) {
        if self.version == Version::V5 || told.reason.connack_v3().is_some() {
            out.push(Action::Send(self.connack(told.clone(), None)));
        }
    }

    fn connack(&self, told: Told, client_id: Option<Text>) -> Outgoing {
        Outgoing::Connack(Box::new(Connack {
            told,
            receive_maximum: self.limits.receive_maximum,
            max_packet_size: self.limits.max_packet_size,
            topic_alias_max: self.limits.topic_alias_max,
            assigned_client_id: client_id.filter(|_| self.asked.client_id),
            session_expiry: (self.asked.session_expiry > 0).then_some(0),
        }))
    }
}

/// What makes a CONNECT unacceptable, whoever sends it.
fn check(connect: &Connect) -> Result<(), Told> {
    // Section 4.12: a method that the server does not have.
    if connect.enhanced_auth {
        let text = "enhanced authentication is not supported";
        return Err(Told::new(Reason::BAD_AUTHENTICATION_METHOD, text));
    }
    // MQTT 3.1.1, MQTT-3.1.3-8: without an identifier there is nothing to resume by.
    if connect.version == Version::V3 && connect.client_id.is_empty() && !connect.clean_start {
        return Err(Reason::CLIENT_IDENTIFIER_NOT_VALID.into());
    }
    let Some(will) = &connect.will else { return Ok(()) };
    if let Err(error) = topic::check_name(&will.topic) {
        return Err(Told::new(Reason::TOPIC_NAME_INVALID, format!("the will's topic: {error}")));
    }
    // MQTT-3.2.2-13.
    if will.retain {
        let text = "retained messages are not supported";
        return Err(Told::new(Reason::RETAIN_NOT_SUPPORTED, text));
    }
    Ok(())
}

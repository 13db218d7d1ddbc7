//! The state machine of one MQTT connection: packets and events in, actions out.
//!
//! It is pure: it does no I/O, time is an argument, and everything it decides is pushed to a
//! `Vec<Action>` that the connection carries out in order. One machine serves 3.1.1 and 5; they
//! differ in the codec, and in what a client can be told.
//!
//! Sessions are not persistent: Session Present is always 0, and the state ends with the
//! connection.

mod action;
mod clock;
mod connect;
mod inbound;
mod outbound;
mod subscribe;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

pub use action::{
    Action, By, Close, Commanded, Delivery, Dropped, Limits, Message, Receipt, Ticket, Verdict,
    Wanted,
};

use crate::frame::Fault;
use crate::packet::{
    Ack, Disconnect, Outgoing, Packet, PacketId, Publish, Reason, Told, Version, Will,
};
use clock::Clock;
use inbound::Inbound;
use outbound::Outbound;
use subscribe::Pending;

/// One MQTT connection, from its first byte to its end.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    phase: Phase,
    /// 3.1.1 until the first packet says otherwise.
    version: Version,
    clock: Clock,
    will: Option<Box<Will>>,
    /// Seconds, as the client asked.
    keep_alive: u16,
    /// Whether the client asked for an identifier, and for how long a session (seconds).
    asked: Asked,
    draining: bool,
    inbound: Inbound,
    outbound: Outbound,
    pending: Vec<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitConnect,
    Authenticating,
    Open,
    Closed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    client_id: bool,
    session_expiry: u32,
}

impl Session {
    /// A session whose transport has just been accepted.
    pub fn new(limits: Arc<Limits>, now: Instant) -> Self {
        let clock = Clock::new(now, limits.connect_timeout);
        let outbound = Outbound::new(limits.outbound_window);
        Self {
            limits,
            phase: Phase::AwaitConnect,
            version: Version::V3,
            clock,
            will: None,
            keep_alive: 0,
            asked: Asked::default(),
            draining: false,
            inbound: Inbound::default(),
            outbound,
            pending: Vec::new(),
        }
    }

    /// Takes a packet from the client.
    pub fn packet(&mut self, packet: Packet, now: Instant, out: &mut Vec<Action>) {
        match (self.phase, packet) {
            (Phase::Closed, _) => {}
            (Phase::AwaitConnect, Packet::Connect(connect)) => self.connect(connect, out),
            // MQTT-3.1.0-1: the first packet is a CONNECT. There is nobody to tell otherwise.
            (Phase::AwaitConnect, _) => {
                let told = Told::new(Reason::PROTOCOL_ERROR, "the first packet is not a CONNECT");
                self.close(By::Gateway, told, None, out);
            }
            (Phase::Authenticating, packet) => {
                self.protocol_error(&format!("{} before CONNACK", packet.name()), out);
            }
            (Phase::Open, packet) => {
                self.clock.heard(now);
                self.dispatch(packet, now, out);
            }
        }
    }

    fn dispatch(&mut self, packet: Packet, now: Instant, out: &mut Vec<Action>) {
        match packet {
            // MQTT-3.1.0-2.
            Packet::Connect(_) => self.protocol_error("a second CONNECT", out),
            Packet::Publish(publish) => self.publish(publish, out),
            Packet::Pubrel(packet_id, _) => self.pubrel(packet_id, out),
            Packet::Puback(packet_id, reason) => self.puback(packet_id, reason, now, out),
            Packet::Pubrec(packet_id, _) => self.unexpected_pubrec(packet_id, out),
            // Nothing is sent at QoS 2, so a PUBCOMP ends nothing.
            Packet::Pubcomp(..) => {}
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, out),
            // MQTT-3.12.4-1.
            Packet::Pingreq => out.push(Action::Send(Outgoing::Pingresp)),
            Packet::Disconnect(reason, expiry) => self.goodbye(reason, expiry, out),
            // Enhanced authentication is refused at CONNECT, so AUTH has no place (section 4.12).
            Packet::Auth => self.protocol_error("AUTH without an authentication method", out),
        }
    }

    /// A goodbye discards the will, unless it says otherwise (MQTT-3.14.4-3).
    fn goodbye(&mut self, reason: Reason, expiry: Option<u32>, out: &mut Vec<Action>) {
        // Section 3.14.2.2.2: a session that began without an expiry does not get one.
        if self.asked.session_expiry == 0 && expiry.is_some_and(|seconds| seconds > 0) {
            return self.protocol_error("a Session Expiry Interval at DISCONNECT", out);
        }
        if reason == Reason::SUCCESS {
            self.will = None;
        }
        self.close(By::Client, reason.into(), None, out);
    }

    /// Takes what the framing or the codec refused; `version` is the codec's, if it knows.
    pub fn fault(&mut self, fault: &Fault, version: Option<Version>, out: &mut Vec<Action>) {
        if let (Phase::AwaitConnect, Some(version)) = (self.phase, version) {
            self.version = version;
        }
        self.end(Told::new(fault.reason(), fault.to_string()), None, out);
    }

    /// The transport has ended without a goodbye.
    pub fn lost(&mut self, out: &mut Vec<Action>) {
        let told = Told::new(Reason::UNSPECIFIED_ERROR, "the connection was lost");
        self.close(By::Network, told, None, out);
    }

    /// Another connection has the same client identifier (MQTT-3.1.4-3).
    pub fn taken_over(&mut self, out: &mut Vec<Action>) {
        self.end(Reason::SESSION_TAKEN_OVER.into(), None, out);
    }

    /// The gateway ends the session, for instance because its client reads too slowly.
    pub fn evict(&mut self, told: Told, out: &mut Vec<Action>) {
        self.end(told, None, out);
    }

    /// Stops reading, and closes once every publish has its answer.
    pub fn drain(&mut self, out: &mut Vec<Action>) {
        self.draining = true;
        match self.phase {
            Phase::AwaitConnect => {
                self.close(By::Gateway, Reason::SERVER_UNAVAILABLE.into(), None, out)
            }
            Phase::Authenticating | Phase::Closed => {}
            Phase::Open => self.finish_drain(out),
        }
    }

    fn finish_drain(&mut self, out: &mut Vec<Action>) {
        if self.draining && self.phase == Phase::Open && self.in_flight() == 0 {
            self.end(Reason::SERVER_SHUTTING_DOWN.into(), None, out);
        }
    }

    /// Looks at the deadlines.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.phase {
            Phase::AwaitConnect => {
                let told = Told::new(Reason::UNSPECIFIED_ERROR, "no CONNECT in time");
                self.close(By::Gateway, told, None, out);
            }
            Phase::Authenticating => {
                let told =
                    Told::new(Reason::SERVER_BUSY, "credentials could not be checked in time");
                self.end(told, None, out);
            }
            // MQTT-3.1.2-22: one and a half times the keep-alive.
            _ => self.end(Reason::KEEP_ALIVE_TIMEOUT.into(), None, out),
        }
    }

    /// Says whether the connection reads from the transport. While it does not, keep-alive stands
    /// still: what the client sends is not seen.
    pub fn set_reading(&mut self, reading: bool, now: Instant) {
        self.clock.set_reading(reading, now);
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::AwaitConnect | Phase::Authenticating => Some(self.clock.connect_deadline()),
            Phase::Open => self.clock.keep_alive_deadline(),
            Phase::Closed => None,
        }
    }

    /// Whether the next packet may be decoded. To be asked before each one.
    ///
    /// In 3.1.1, which has no Receive Maximum, publishes wait in the transport while as many are
    /// in flight as that; in MQTT 5 the client keeps to it, and only QoS 0 is held back.
    pub fn may_read(&self) -> bool {
        match self.phase {
            Phase::AwaitConnect => true,
            Phase::Authenticating | Phase::Closed => false,
            Phase::Open => {
                let held_back = match self.version {
                    Version::V3 => self.in_flight(),
                    Version::V5 => self.inbound.unconfirmed_qos_0(),
                };
                !self.draining
                    && held_back < usize::from(self.limits.receive_maximum.get())
                    && self.pending.len() < self.limits.pending_subscribes
            }
        }
    }

    /// How many publishes of this client await their receipt or their answer.
    pub fn in_flight(&self) -> usize {
        self.inbound.in_flight()
    }

    /// How many messages wait for this subscriber, PUBACK not counted.
    pub fn queued(&self) -> usize {
        self.outbound.queued()
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether the client has been accepted and is connected.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The version that the client speaks; 3.1.1 until it has said.
    pub fn version(&self) -> Version {
        self.version
    }

    fn protocol_error(&mut self, text: &str, out: &mut Vec<Action>) {
        self.end(Told::new(Reason::PROTOCOL_ERROR, text), None, out);
    }

    /// Ends the session from this side: says why, as far as the protocol can, then closes.
    fn end(&mut self, told: Told, refused: Option<Box<Publish>>, out: &mut Vec<Action>) {
        match (self.phase, self.version) {
            (Phase::Closed, _) | (Phase::Open, Version::V3) => {}
            (Phase::Open, Version::V5) => {
                let told = told.clone();
                out.push(Action::Send(Outgoing::Disconnect(Disconnect { told })));
            }
            (Phase::AwaitConnect | Phase::Authenticating, _) => self.connack_refused(&told, out),
        }
        self.close(By::Gateway, told, refused, out);
    }

    fn close(&mut self, by: By, told: Told, refused: Option<Box<Publish>>, out: &mut Vec<Action>) {
        if self.phase == Phase::Closed {
            return;
        }
        // A client that was never accepted has no session, and so no will.
        let will = if self.phase == Phase::Open { self.will.take() } else { None };
        self.phase = Phase::Closed;
        let count = self.outbound.queued();
        if count > 0 {
            out.push(Action::Dropped { why: Dropped::Closed, count });
        }
        self.will = None;
        self.inbound = Inbound::default();
        self.outbound = Outbound::new(self.limits.outbound_window);
        self.pending = Vec::new();
        out.push(Action::Close(Box::new(Close { by, told, will, refused })));
    }

    fn ack(packet_id: PacketId, told: impl Into<Told>) -> Ack {
        Ack { packet_id, told: told.into() }
    }
}

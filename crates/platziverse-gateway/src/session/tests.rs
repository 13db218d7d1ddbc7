//! Scripts: what a client or the gateway does, and the actions that follow, in words.

mod connect;
mod inbound;
mod life;
mod outbound;
mod random;
mod subscribe;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::packet::{Bytes, Connect, Options, QoS, Subscribe, Text, Unsubscribe};

/// A session, its clock, and the tickets it has given.
struct World {
    session: Session,
    now: Instant,
    tickets: Vec<Ticket>,
}

fn limits() -> Limits {
    Limits {
        receive_maximum: id(3),
        outbound_window: id(2),
        outbound_queue: 2,
        pending_subscribes: 2,
        topic_alias_max: 4,
        ..Limits::default()
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        client_id: "me".into(),
        clean_start: true,
        keep_alive: 60,
        will: None,
        username: None,
        password: None,
        session_expiry: 0,
        receive_maximum: PacketId::MAX,
        max_packet_size: None,
        topic_alias_max: 0,
        request_problem_info: true,
        enhanced_auth: false,
    }
}

fn will() -> Option<Box<Will>> {
    Some(Box::new(Will {
        topic: "gone".into(),
        payload: Bytes::from_static(b"x"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: None,
    }))
}

fn publish(topic: &str, level: u8, packet_id: u16) -> Publish {
    Publish {
        topic: topic.into(),
        alias: None,
        payload: Bytes::from_static(b"x"),
        qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(level)],
        packet_id: PacketId::new(packet_id),
        dup: false,
        retain: false,
        properties: None,
    }
}

fn dup(publish: Publish) -> Publish {
    Publish { dup: true, ..publish }
}

fn message(level: u8) -> Message {
    let Publish { topic, payload, qos, .. } = publish("t", level, 0);
    Message { topic, payload, qos, expires: None, properties: None }
}

fn delivery(message: Message, granted: QoS) -> Delivery {
    Delivery {
        message: Arc::new(message),
        granted,
        retain: false,
        subscription_ids: Vec::new(),
        command: None,
    }
}

fn subscribe(packet_id: u16, filters: &[(&str, QoS)]) -> Packet {
    let options = |qos: QoS| Options { qos, ..Options::default() };
    let filters = filters.iter().map(|(filter, qos)| (Text::from(*filter), options(*qos)));
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        id: NonZeroU32::new(9),
        filters: filters.collect(),
    })
}

fn unsubscribe(packet_id: u16, filters: &[&str]) -> Packet {
    let filters = filters.iter().map(|filter| Text::from(*filter)).collect();
    Packet::Unsubscribe(Unsubscribe { packet_id: id(packet_id), filters })
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { session: Session::new(Arc::new(limits()), now), now, tickets: Vec::new() }
    }

    fn open(connect: Connect) -> Self {
        let mut world = Self::new();
        world.packet(Packet::Connect(Box::new(connect)));
        assert!(!world.session.may_read());
        world.accept();
        assert!(world.session.is_open());
        world
    }

    fn v3() -> Self {
        Self::open(connect(Version::V3))
    }

    fn v5() -> Self {
        Self::open(connect(Version::V5))
    }

    fn each() -> [Self; 2] {
        [Self::v3(), Self::v5()]
    }

    fn with_will(version: Version) -> Self {
        Self::open(Connect { will: will(), ..connect(version) })
    }

    /// Does something to the session; the actions, in words.
    fn act(&mut self, act: impl FnOnce(&mut Session, Instant, &mut Vec<Action>)) -> String {
        let mut out = Vec::new();
        act(&mut self.session, self.now, &mut out);
        let words: Vec<_> = out.into_iter().map(|action| self.show(action)).collect();
        words.join("; ")
    }

    fn packet(&mut self, packet: Packet) -> String {
        self.act(|session, now, out| session.packet(packet, now, out))
    }

    fn publish(&mut self, publish: Publish) -> String {
        self.packet(Packet::Publish(publish))
    }

    fn accept(&mut self) -> String {
        let verdict = Verdict::Accepted { client_id: "me".into() };
        self.act(|session, now, out| session.verdict(verdict, now, out))
    }

    /// The receipt for the publish that came as number `index`.
    fn receipt(&mut self, index: usize, receipt: Receipt) -> String {
        let ticket = self.tickets[index];
        self.act(|session, _, out| session.receipt(ticket, receipt, out))
    }

    fn confirm(&mut self, index: usize) -> String {
        self.receipt(index, Receipt::Confirmed)
    }

    fn refuse(&mut self, index: usize) -> String {
        self.receipt(index, Receipt::Refused(Told::new(Reason::NOT_AUTHORIZED, "words")))
    }

    fn deliver(&mut self, message: Message, granted: QoS) -> String {
        self.act(|session, now, out| session.deliver(delivery(message, granted), now, out))
    }

    fn pass(&mut self, milliseconds: u64) -> String {
        self.now += Duration::from_millis(milliseconds);
        self.act(|session, now, out| session.tick(now, out))
    }

    fn show(&mut self, action: Action) -> String {
        match action {
            Action::Send(packet) => sent(&packet),
            Action::Authenticate(connect) => format!("authenticate {:?}", &*connect.client_id),
            Action::Publish { ticket, publish } => {
                self.tickets.push(ticket);
                assert!(publish.alias.is_none() && !publish.retain);
                format!("take {}", publish.topic)
            }
            Action::Subscribe { packet_id, wanted } => {
                let filters = wanted
                    .iter()
                    .map(|wanted| format!("{}@{}", wanted.filter, wanted.options.qos.level()));
                format!("subscribe {packet_id} {}", filters.collect::<Vec<_>>().join(","))
            }
            Action::Unsubscribe { packet_id, filters } => {
                let filters = filters.iter().map(ToString::to_string);
                format!("unsubscribe {packet_id} {}", filters.collect::<Vec<_>>().join(","))
            }
            Action::Acknowledged(command) => format!("{} has {}", command.agent, command.id),
            Action::Dropped { why, count } => format!("drop {count} {why:?}"),
            Action::Close(close) => {
                assert!(self.session.is_closed() && !self.session.may_read());
                let will = if close.will.is_some() { " +will" } else { "" };
                let refused = close.refused.map_or(String::new(), |p| format!(" +{}", p.topic));
                let code = close.told.reason.code();
                format!("close {:?} {code:02x}{will}{refused}", close.by)
            }
        }
    }
}

fn sent(packet: &Outgoing) -> String {
    let codes = |reasons: &[Reason]| {
        reasons.iter().map(|reason| format!(" {:02x}", reason.code())).collect::<String>()
    };
    let ack = |name: &str, ack: &Ack| {
        let text = ack.told.text.as_ref().map_or(String::new(), |text| format!(" {text}"));
        format!("{name} {}{}{text}", ack.packet_id, codes(&[ack.told.reason]))
    };
    match packet {
        Outgoing::Connack(connack) => format!("CONNACK{}", codes(&[connack.told.reason])),
        Outgoing::Publish(packet) => match packet.packet_id {
            Some(id) => format!("PUBLISH@{} {id}", packet.qos.level()),
            None => format!("PUBLISH@{}", packet.qos.level()),
        },
        Outgoing::Puback(packet) => ack("PUBACK", packet),
        Outgoing::Pubrec(packet) => ack("PUBREC", packet),
        Outgoing::Pubrel(packet) => ack("PUBREL", packet),
        Outgoing::Pubcomp(packet) => ack("PUBCOMP", packet),
        Outgoing::Suback(packet) => {
            format!("SUBACK {}{}", packet.packet_id, codes(&packet.reasons))
        }
        Outgoing::Unsuback(packet) => {
            format!("UNSUBACK {}{}", packet.packet_id, codes(&packet.reasons))
        }
        Outgoing::Pingresp => "PINGRESP".to_owned(),
        Outgoing::Disconnect(packet) => format!("DISCONNECT{}", codes(&[packet.told.reason])),
    }
}

//! MQTT 3.1.1.

use ntex_mqtt::v3::codec as c3;

use crate::packet::{
    Bytes, Connect, Delivered, Options, Outgoing, Packet, PacketId, Publish, QoS, Reason,
    Subscribe, Text, Unsubscribe, Version, Will,
};

/// `None` is a packet that clients do not send, or not all of one.
pub(super) fn packet(decoded: Option<c3::Decoded>) -> Option<Packet> {
    Some(match decoded? {
        c3::Decoded::Publish(head, payload, _) => {
            let whole = head.payload_size as usize == payload.len();
            whole.then(|| Packet::Publish(publication(head, payload)))?
        }
        c3::Decoded::PayloadChunk(..) => return None,
        c3::Decoded::Packet(packet, _) => match packet {
            c3::Packet::Connect(connect) => Packet::Connect(Box::new(connection(*connect))),
            c3::Packet::PublishAck { packet_id } => Packet::Puback(packet_id, Reason::SUCCESS),
            c3::Packet::PublishReceived { packet_id } => Packet::Pubrec(packet_id, Reason::SUCCESS),
            c3::Packet::PublishRelease { packet_id } => Packet::Pubrel(packet_id, Reason::SUCCESS),
            c3::Packet::PublishComplete { packet_id } => {
                Packet::Pubcomp(packet_id, Reason::SUCCESS)
            }
            c3::Packet::Subscribe { packet_id, topic_filters } => {
                let filters = topic_filters.into_iter().map(|(filter, level)| {
                    (filter, Options { qos: qos(level), ..Options::default() })
                });
                Packet::Subscribe(Subscribe { packet_id, id: None, filters: filters.collect() })
            }
            c3::Packet::Unsubscribe { packet_id, topic_filters } => {
                Packet::Unsubscribe(Unsubscribe { packet_id, filters: topic_filters })
            }
            c3::Packet::PingRequest => Packet::Pingreq,
            c3::Packet::Disconnect => Packet::Disconnect(Reason::SUCCESS, None),
            c3::Packet::ConnectAck(_)
            | c3::Packet::SubscribeAck { .. }
            | c3::Packet::UnsubscribeAck { .. }
            | c3::Packet::PingResponse => return None,
        },
    })
}

fn connection(connect: c3::Connect) -> Connect {
    Connect {
        version: Version::V3,
        client_id: owned(&connect.client_id),
        clean_start: connect.clean_session,
        keep_alive: connect.keep_alive,
        will: connect.last_will.map(|will| {
            Box::new(Will {
                topic: owned(&will.topic),
                payload: Bytes::copy_from_slice(&will.message),
                qos: qos(will.qos),
                retain: will.retain,
                properties: None,
            })
        }),
        username: connect.username.as_ref().map(owned),
        password: connect.password.map(|password| Bytes::copy_from_slice(&password)),
        session_expiry: 0,
        receive_maximum: PacketId::MAX,
        max_packet_size: None,
        topic_alias_max: 0,
        request_problem_info: true,
        enhanced_auth: false,
    }
}

fn publication(head: c3::Publish, payload: Bytes) -> Publish {
    Publish {
        topic: head.topic,
        alias: None,
        payload,
        qos: qos(head.qos),
        packet_id: head.packet_id,
        dup: head.dup,
        retain: head.retain,
        properties: None,
    }
}

/// A copy that shares no read buffer.
pub(super) fn owned(text: &Text) -> Text {
    Text::from(text.as_str())
}

pub(super) fn qos(level: c3::QoS) -> QoS {
    match level {
        c3::QoS::AtMostOnce => QoS::AtMostOnce,
        c3::QoS::AtLeastOnce => QoS::AtLeastOnce,
        c3::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

pub(super) fn level(qos: QoS) -> c3::QoS {
    match qos {
        QoS::AtMostOnce => c3::QoS::AtMostOnce,
        QoS::AtLeastOnce => c3::QoS::AtLeastOnce,
        QoS::ExactlyOnce => c3::QoS::ExactlyOnce,
    }
}

pub(super) fn publish(publish: &Delivered) -> c3::Encoded {
    let message = &publish.message;
    let head = c3::Publish {
        dup: false,
        retain: publish.retain,
        qos: level(publish.qos),
        topic: message.topic.clone(),
        packet_id: publish.packet_id,
        payload_size: u32::try_from(message.payload.len()).unwrap_or(u32::MAX),
    };
    c3::Encoded::Publish(head, Some(message.payload.clone()))
}

/// `None` where 3.1.1 says nothing.
pub(super) fn outgoing(packet: &Outgoing) -> Option<c3::Encoded> {
    Some(c3::Encoded::Packet(match packet {
        Outgoing::Connack(connack) => {
            let code = connack.told.reason.connack_v3()?;
            let return_code = c3::ConnectAckReason::try_from(code).ok()?;
            c3::Packet::ConnectAck(c3::ConnectAck { return_code, session_present: false })
        }
        Outgoing::Publish(packet) => return Some(publish(packet)),
        Outgoing::Puback(ack) => c3::Packet::PublishAck { packet_id: ack.packet_id },
        Outgoing::Pubrec(ack) => c3::Packet::PublishReceived { packet_id: ack.packet_id },
        Outgoing::Pubrel(ack) => c3::Packet::PublishRelease { packet_id: ack.packet_id },
        Outgoing::Pubcomp(ack) => c3::Packet::PublishComplete { packet_id: ack.packet_id },
        Outgoing::Suback(suback) => {
            let status = suback.reasons.iter().map(|reason| match reason.suback_v3() {
                0 => c3::SubscribeReturnCode::Success(c3::QoS::AtMostOnce),
                1 => c3::SubscribeReturnCode::Success(c3::QoS::AtLeastOnce),
                2 => c3::SubscribeReturnCode::Success(c3::QoS::ExactlyOnce),
                _ => c3::SubscribeReturnCode::Failure,
            });
            c3::Packet::SubscribeAck { packet_id: suback.packet_id, status: status.collect() }
        }
        Outgoing::Unsuback(unsuback) => {
            c3::Packet::UnsubscribeAck { packet_id: unsuback.packet_id }
        }
        Outgoing::Pingresp => c3::Packet::PingResponse,
        Outgoing::Disconnect(_) => return None,
    }))
}

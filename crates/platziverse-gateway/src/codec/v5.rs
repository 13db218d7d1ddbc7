//! MQTT 5.

use ntex_mqtt::v5::codec as c5;

use super::v3::{level, owned, qos};
use crate::packet::{
    Ack, Bytes, Connack, Connect, Delivered, Disconnect, Options, Outgoing, Packet, PacketId,
    Properties, Publish, Reason, Subscribe, Text, Told, Unsubscribe, Version, Will,
};

/// `None` is a packet that clients do not send, or not all of one.
pub(super) fn packet(decoded: Option<c5::Decoded>) -> Option<Packet> {
    Some(match decoded? {
        c5::Decoded::Publish(head, payload, _) => {
            let whole = head.payload_size as usize == payload.len();
            whole.then(|| Packet::Publish(publication(head, payload)))?
        }
        c5::Decoded::PayloadChunk(..) => return None,
        c5::Decoded::Packet(packet, _) => match packet {
            c5::Packet::Connect(connect) => Packet::Connect(Box::new(connection(*connect))),
            c5::Packet::PublishAck(ack) => Packet::Puback(ack.packet_id, code(ack.reason_code)),
            c5::Packet::PublishReceived(ack) => {
                Packet::Pubrec(ack.packet_id, code(ack.reason_code))
            }
            c5::Packet::PublishRelease(ack) => Packet::Pubrel(ack.packet_id, code(ack.reason_code)),
            c5::Packet::PublishComplete(ack) => {
                Packet::Pubcomp(ack.packet_id, code(ack.reason_code))
            }
            c5::Packet::Subscribe(subscribe) => Packet::Subscribe(subscription(subscribe)),
            c5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
                packet_id: unsubscribe.packet_id,
                filters: unsubscribe.topic_filters,
            }),
            c5::Packet::PingRequest => Packet::Pingreq,
            c5::Packet::Disconnect(goodbye) => {
                Packet::Disconnect(code(goodbye.reason_code), goodbye.session_expiry_interval_secs)
            }
            c5::Packet::Auth(_) => Packet::Auth,
            c5::Packet::ConnectAck(_)
            | c5::Packet::SubscribeAck(_)
            | c5::Packet::UnsubscribeAck(_)
            | c5::Packet::PingResponse => return None,
        },
    })
}

fn code(reason: impl Into<u8>) -> Reason {
    Reason::from_code(reason.into())
}

fn connection(connect: c5::Connect) -> Connect {
    Connect {
        version: Version::V5,
        client_id: owned(&connect.client_id),
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive,
        will: connect.last_will.map(|will| Box::new(testament(will))),
        username: connect.username.as_ref().map(owned),
        password: connect.password.map(|password| Bytes::copy_from_slice(&password)),
        session_expiry: connect.session_expiry_interval_secs,
        receive_maximum: connect.receive_max.unwrap_or(PacketId::MAX),
        max_packet_size: connect.max_packet_size,
        topic_alias_max: connect.topic_alias_max,
        request_problem_info: connect.request_problem_info,
        enhanced_auth: connect.auth_method.is_some() || connect.auth_data.is_some(),
    }
}

fn testament(will: c5::LastWill) -> Will {
    let properties = Properties {
        utf8_payload: will.is_utf8_payload.unwrap_or(false),
        expiry: will.message_expiry_interval,
        content_type: will.content_type.as_ref().map(owned),
        response_topic: will.response_topic.as_ref().map(owned),
        correlation_data: will.correlation_data.map(|data| Bytes::copy_from_slice(&data)),
        user: will.user_properties.iter().map(|(key, value)| (owned(key), owned(value))).collect(),
    };
    Will {
        topic: owned(&will.topic),
        payload: Bytes::copy_from_slice(&will.message),
        qos: qos(will.qos),
        retain: will.retain,
        properties: boxed(properties),
    }
}

fn publication(head: c5::Publish, payload: Bytes) -> Publish {
    let c5::PublishProperties {
        topic_alias,
        correlation_data,
        message_expiry_interval,
        content_type,
        user_properties,
        is_utf8_payload,
        response_topic,
        // Framing refuses a PUBLISH that has one.
        subscription_ids: _,
    } = head.properties;
    Publish {
        topic: head.topic,
        alias: topic_alias,
        payload,
        qos: qos(head.qos),
        packet_id: head.packet_id,
        dup: head.dup,
        retain: head.retain,
        properties: boxed(Properties {
            utf8_payload: is_utf8_payload,
            expiry: message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user: user_properties,
        }),
    }
}

fn boxed(properties: Properties) -> Option<Box<Properties>> {
    (properties != Properties::default()).then(|| Box::new(properties))
}

fn subscription(subscribe: c5::Subscribe) -> Subscribe {
    let filters = subscribe.topic_filters.into_iter().map(|(filter, options)| {
        let options = Options {
            qos: qos(options.qos),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling.into(),
        };
        (filter, options)
    });
    let filters = filters.collect();
    Subscribe { packet_id: subscribe.packet_id, id: subscribe.id, filters }
}

pub(super) fn publish(publish: &Delivered) -> c5::Encoded {
    let message = &publish.message;
    let mut properties = c5::PublishProperties {
        message_expiry_interval: publish.expiry,
        subscription_ids: publish.subscription_ids.clone(),
        ..c5::PublishProperties::default()
    };
    if let Some(about) = message.properties.as_deref() {
        properties.is_utf8_payload = about.utf8_payload;
        properties.content_type.clone_from(&about.content_type);
        properties.response_topic.clone_from(&about.response_topic);
        properties.correlation_data.clone_from(&about.correlation_data);
        properties.user_properties.clone_from(&about.user);
    }
    let head = c5::Publish {
        dup: false,
        retain: publish.retain,
        qos: level(publish.qos),
        packet_id: publish.packet_id,
        topic: message.topic.clone(),
        payload_size: u32::try_from(message.payload.len()).unwrap_or(u32::MAX),
        properties,
    };
    c5::Encoded::Publish(head, Some(message.payload.clone()))
}

/// `text` says whether the packet has its reason string.
pub(super) fn outgoing(packet: &Outgoing, text: bool) -> Option<c5::Encoded> {
    Some(c5::Encoded::Packet(match packet {
        Outgoing::Connack(packet) => c5::Packet::ConnectAck(Box::new(connack(packet, text))),
        Outgoing::Publish(packet) => return Some(publish(packet)),
        Outgoing::Puback(packet) => c5::Packet::PublishAck(ack(packet, text)),
        Outgoing::Pubrec(packet) => c5::Packet::PublishReceived(ack(packet, text)),
        Outgoing::Pubrel(packet) => c5::Packet::PublishRelease(ack_2(packet)),
        Outgoing::Pubcomp(packet) => c5::Packet::PublishComplete(ack_2(packet)),
        Outgoing::Suback(packet) => c5::Packet::SubscribeAck(c5::SubscribeAck {
            packet_id: packet.packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: (packet.reasons.iter())
                .map(|reason| known(*reason, c5::SubscribeAckReason::UnspecifiedError))
                .collect(),
        }),
        Outgoing::Unsuback(packet) => c5::Packet::UnsubscribeAck(c5::UnsubscribeAck {
            packet_id: packet.packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: (packet.reasons.iter())
                .map(|reason| known(*reason, c5::UnsubscribeAckReason::UnspecifiedError))
                .collect(),
        }),
        Outgoing::Pingresp => c5::Packet::PingResponse,
        Outgoing::Disconnect(packet) => c5::Packet::Disconnect(disconnect(packet, text)),
    }))
}

/// The code of a reason where it is one of those that the packet may have.
fn known<T: TryFrom<u8>>(reason: Reason, otherwise: T) -> T {
    T::try_from(reason.code()).unwrap_or(otherwise)
}

fn connack(packet: &Connack, text: bool) -> c5::ConnectAck {
    let reason_code = known(packet.told.reason, c5::ConnectAckReason::UnspecifiedError);
    let reason_string = said(&packet.told, text);
    if packet.told.reason != Reason::SUCCESS {
        return c5::ConnectAck { reason_code, reason_string, ..c5::ConnectAck::default() };
    }
    c5::ConnectAck {
        reason_code,
        reason_string,
        receive_max: packet.receive_maximum,
        max_packet_size: Some(packet.max_packet_size),
        topic_alias_max: packet.topic_alias_max,
        assigned_client_id: packet.assigned_client_id.clone(),
        session_expiry_interval_secs: packet.session_expiry,
        retain_available: false,
        shared_subscription_available: false,
        ..c5::ConnectAck::default()
    }
}

fn ack(packet: &Ack, text: bool) -> c5::PublishAck {
    c5::PublishAck {
        packet_id: packet.packet_id,
        reason_code: known(packet.told.reason, c5::PublishAckReason::UnspecifiedError),
        properties: Vec::new(),
        reason_string: said(&packet.told, text),
    }
}

fn ack_2(packet: &Ack) -> c5::PublishAck2 {
    let reason_code = match packet.told.reason {
        Reason::SUCCESS => c5::PublishAck2Reason::Success,
        _ => c5::PublishAck2Reason::PacketIdNotFound,
    };
    c5::PublishAck2 {
        packet_id: packet.packet_id,
        reason_code,
        properties: Vec::new(),
        reason_string: None,
    }
}

fn disconnect(packet: &Disconnect, text: bool) -> c5::Disconnect {
    let reason_code = known(packet.told.reason, c5::DisconnectReasonCode::UnspecifiedError);
    c5::Disconnect::new(reason_code).reason_string(said(&packet.told, text))
}

/// The longest Reason String that is sent, in bytes: it is for people.
const TEXT_MAX: usize = 1_024;

fn said(told: &Told, text: bool) -> Option<Text> {
    let text = told.text.as_ref().filter(|_| text)?;
    Some(text.slice(..text.floor_char_boundary(TEXT_MAX)))
}

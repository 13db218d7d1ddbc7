//! rumqttc for MQTT 5.

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Packet, PubAckReason, PubRecReason, Publish, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};

use super::book::{Ack, Closed, Entry, Heard};
use super::{Events, Options, PACKET_BYTES_MAX};

pub(super) fn open(options: &Options) -> (AsyncClient, EventLoop) {
    let address = options.address;
    let mut mqtt = MqttOptions::new(&options.id, address.ip().to_string(), address.port());
    mqtt.set_keep_alive(options.keep_alive).set_connect_properties(ConnectProperties {
        max_packet_size: Some(PACKET_BYTES_MAX),
        ..ConnectProperties::new()
    });
    mqtt.set_outgoing_inflight_upper_limit(options.window);
    mqtt.set_manual_acks(options.acks_by_hand);
    if let Some((username, password)) = &options.credentials {
        mqtt.set_credentials(username, password);
    }
    AsyncClient::new(mqtt, usize::from(options.window))
}

pub(super) fn qos(qos: super::QoS) -> QoS {
    match qos {
        super::QoS::AtMostOnce => QoS::AtMostOnce,
        super::QoS::AtLeastOnce => QoS::AtLeastOnce,
        super::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// A message, as far as its acknowledgement needs it.
pub(super) fn acked(packet: u16) -> Publish {
    Publish { qos: QoS::AtLeastOnce, pkid: packet, ..Publish::default() }
}

impl Events for EventLoop {
    async fn next(&mut self) -> Result<Option<Entry>, Closed> {
        match self.poll().await {
            Ok(Event::Outgoing(Outgoing::Publish(id))) => Ok(Some(Entry::Written(id))),
            Ok(Event::Outgoing(_)) => Ok(None),
            Ok(Event::Incoming(packet)) => Ok(read(packet)),
            Err(error) => Err(closed(&error)),
        }
    }
}

fn read(packet: Packet) -> Option<Entry> {
    Some(match packet {
        Packet::ConnAck(_) => Entry::Connected,
        Packet::PubAck(ack) => {
            let text = ack.properties.and_then(|properties| properties.reason_string);
            Entry::Acknowledged(ack.pkid, Ack { code: puback(ack.reason), text })
        }
        Packet::PubRec(ack) if pubrec(ack.reason) >= 0x80 => {
            let text = ack.properties.and_then(|properties| properties.reason_string);
            Entry::Acknowledged(ack.pkid, Ack { code: pubrec(ack.reason), text })
        }
        Packet::PubComp(ack) => Entry::Acknowledged(ack.pkid, Ack { code: 0, text: None }),
        Packet::SubAck(answer) => {
            Entry::Subscribed(answer.return_codes.into_iter().map(suback).collect())
        }
        Packet::Publish(publish) => Entry::Heard(Heard {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            qos: publish.qos as u8,
            packet: publish.pkid,
        }),
        _ => return None,
    })
}

// rumqttc keeps the numbers to itself (MQTT 5, section 2.4).
fn puback(reason: PubAckReason) -> u8 {
    match reason {
        PubAckReason::Success => 0x00,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}

fn pubrec(reason: PubRecReason) -> u8 {
    match reason {
        PubRecReason::Success => 0x00,
        PubRecReason::NoMatchingSubscribers => 0x10,
        PubRecReason::UnspecifiedError => 0x80,
        PubRecReason::ImplementationSpecificError => 0x83,
        PubRecReason::NotAuthorized => 0x87,
        PubRecReason::TopicNameInvalid => 0x90,
        PubRecReason::PacketIdentifierInUse => 0x91,
        PubRecReason::QuotaExceeded => 0x97,
        PubRecReason::PayloadFormatInvalid => 0x99,
    }
}

fn suback(reason: SubscribeReasonCode) -> u8 {
    match reason {
        SubscribeReasonCode::Success(qos) => qos as u8,
        SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified => 0x80,
        SubscribeReasonCode::ImplementationSpecific => 0x83,
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8F,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        SubscribeReasonCode::SharedSubscriptionsNotSupported => 0x9E,
        SubscribeReasonCode::SubscriptionIdNotSupported => 0xA1,
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => 0xA2,
    }
}

fn closed(error: &ConnectionError) -> Closed {
    match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            Closed {
                code: Some(*reason_code as u8),
                text: reason_string.clone().unwrap_or_else(|| format!("{reason_code:?}")),
            }
        }
        ConnectionError::ConnectionRefused(code) => {
            Closed { code: None, text: format!("{code:?}") }
        }
        other => Closed { code: None, text: other.to_string() },
    }
}

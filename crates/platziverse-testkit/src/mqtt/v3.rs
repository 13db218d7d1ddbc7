//! rumqttc for MQTT 3.1.1.

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, Outgoing, Publish, QoS,
    SubscribeReasonCode,
};

use super::book::{Ack, Closed, Entry, Heard};
use super::{Events, Options, PACKET_BYTES_MAX};

pub(super) fn open(options: &Options) -> (AsyncClient, EventLoop) {
    let address = options.address;
    let mut mqtt = MqttOptions::new(&options.id, address.ip().to_string(), address.port());
    mqtt.set_keep_alive(options.keep_alive)
        .set_inflight(options.window)
        .set_manual_acks(options.acks_by_hand)
        .set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
    if let Some((username, password)) = &options.credentials {
        mqtt.set_credentials(username, password);
    }
    AsyncClient::new(mqtt, usize::from(options.window))
}

/// A message, as far as its acknowledgement needs it.
pub(super) fn acked(packet: u16) -> Publish {
    let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
    publish.pkid = packet;
    publish
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

fn read(packet: Incoming) -> Option<Entry> {
    let accepted = Ack { code: 0, text: None };
    Some(match packet {
        Incoming::ConnAck(_) => Entry::Connected,
        Incoming::PubAck(ack) => Entry::Acknowledged(ack.pkid, accepted),
        Incoming::PubComp(ack) => Entry::Acknowledged(ack.pkid, accepted),
        Incoming::SubAck(answer) => {
            Entry::Subscribed(answer.return_codes.into_iter().map(code).collect())
        }
        Incoming::Publish(publish) => Entry::Heard(Heard {
            topic: publish.topic,
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            qos: publish.qos as u8,
            packet: publish.pkid,
        }),
        _ => return None,
    })
}

fn code(answer: SubscribeReasonCode) -> u8 {
    match answer {
        SubscribeReasonCode::Success(qos) => qos as u8,
        SubscribeReasonCode::Failure => 0x80,
    }
}

fn closed(error: &ConnectionError) -> Closed {
    let text = match error {
        ConnectionError::ConnectionRefused(code) => format!("{code:?}"),
        other => other.to_string(),
    };
    Closed { code: None, text }
}

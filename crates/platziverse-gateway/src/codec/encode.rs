//! How large a PUBLISH gets.

use crate::packet::{Delivered, Properties, QoS, Version};

/// The size of a PUBLISH in bytes, fixed header included.
pub fn publish_size(publish: &Delivered, version: Version) -> usize {
    let message = &publish.message;
    let packet_id = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    let mut remaining = 2 + message.topic.len() + packet_id + message.payload.len();
    if version == Version::V5 {
        let ids = publish.subscription_ids.iter().map(|id| 1 + varint_size(id.get() as usize));
        let expiry = if publish.expiry.is_some() { 5 } else { 0 };
        let properties = message.properties.as_deref().map_or(0, properties_size);
        let properties = properties + expiry + ids.sum::<usize>();
        remaining += varint_size(properties) + properties;
    }
    1 + varint_size(remaining) + remaining
}

/// All but the Message Expiry Interval, which is what is left of it.
pub(crate) fn properties_size(properties: &Properties) -> usize {
    let field = |length: Option<usize>| length.map_or(0, |length| 3 + length);
    let Properties { utf8_payload, expiry: _, content_type, response_topic, .. } = properties;
    let user = properties.user.iter().map(|(key, value)| 5 + key.len() + value.len());
    usize::from(*utf8_payload) * 2
        + field(content_type.as_ref().map(|text| text.len()))
        + field(response_topic.as_ref().map(|text| text.len()))
        + field(properties.correlation_data.as_ref().map(|data| data.len()))
        + user.sum::<usize>()
}

fn varint_size(value: usize) -> usize {
    match value {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

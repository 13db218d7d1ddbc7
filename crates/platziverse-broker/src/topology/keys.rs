//! Routing keys of what is stored, and binding keys of who listens.

use platziverse_protocol::topic::{
    AGENT_CONNECTED, AGENT_DISCONNECTED, AGENT_MESSAGE, KEY_BYTES_MAX, TopicFilter, binding_key,
    cut_binding_key, routing_key,
};

/// The MQTT topics whose messages are stored.
pub const STORED_TOPICS: [&str; 3] = [AGENT_MESSAGE, AGENT_CONNECTED, AGENT_DISCONNECTED];

/// The shard that an agent's records go to. Every gateway must come to the same: FNV-1a, whose
/// result no version of a library changes.
pub fn shard_of(agent_uuid: &str, shards: u16) -> u16 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash =
        agent_uuid.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let shard = hash % u64::from(shards.max(1));
    u16::try_from(shard).unwrap_or(0)
}

/// The routing key of a record whose topic has `key`: as it is with one shard, `key.<shard>` with
/// more.
pub fn sharded_key(key: &str, shard: u16, shards: u16) -> String {
    if shards > 1 { format!("{key}.{shard}") } else { key.to_owned() }
}

/// The routing key of a record without its shard, if it has one.
pub(crate) fn unsharded_key(key: &str) -> &str {
    match key.rsplit_once('.') {
        Some((start, _)) if STORED_TOPICS.iter().any(|topic| routing_key(topic) == start) => start,
        _ => key,
    }
}

/// The binding key of what is published under a setting of one shard: its keys have two words.
pub(super) const UNSHARDED: &str = "agent.*";

/// The binding key of an ingest queue among several.
pub(super) fn shard_key(shard: u16) -> String {
    format!("agent.*.{shard}")
}

/// Every key under which a queue must be bound to the live exchange to hear all that `filter`
/// matches, whether ingest is sharded or not. It may hear more.
pub fn live_binding_keys(filter: &TopicFilter) -> Vec<String> {
    let key = binding_key(filter);
    if key == "#" {
        return vec![key];
    }
    let mut keys = Vec::with_capacity(2);
    // `agent.*` does not cover `agent.message.3`; gateways with other settings may use shards.
    if !key.ends_with(".#") {
        let matched = STORED_TOPICS.iter().filter(|topic| filter.matches(topic));
        keys.extend(matched.map(|topic| format!("{}.*", routing_key(topic))));
    }
    if filter.len() > KEY_BYTES_MAX || filter.contains(['+', '#']) {
        keys.push(cut_binding_key());
    }
    keys.insert(0, key);
    keys
}

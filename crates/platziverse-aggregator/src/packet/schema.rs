//! `packet.schema.json` describes what [`super::read`] takes and what [`super::write`] gives.

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value, json};

use super::{Code, Existence, MessageFrame, Missed, Reason, Receipt, Welcome, pong, read, reply};
use crate::channel::Channels;

const SCHEMA: &str = include_str!("../../packet.schema.json");
const README: &str = include_str!("../../README.md");

struct Schema {
    schemas: Schemas,
    from_client: SchemaIndex,
    from_aggregator: SchemaIndex,
}

impl Schema {
    fn new() -> Self {
        let document: Value = serde_json::from_str(SCHEMA).unwrap();
        let id = document["$id"].as_str().unwrap().to_owned();
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.add_resource(&id, document).unwrap();
        let [from_client, from_aggregator] = ["from_client", "from_aggregator"]
            .map(|side| compiler.compile(&format!("{id}#/$defs/{side}"), &mut schemas).unwrap());
        Self { schemas, from_client, from_aggregator }
    }

    fn is_from_client(&self, packet: &Value) -> bool {
        self.schemas.validate(packet, self.from_client).is_ok()
    }

    fn is_from_aggregator(&self, packet: &Value) -> bool {
        self.schemas.validate(packet, self.from_aggregator).is_ok()
    }
}

fn is_read(packet: &Value) -> bool {
    let channels = Channels::new(&["voice", "chat", "tickets"].map(str::to_owned));
    read(&packet.to_string(), &channels).is_ok()
}

/// The packets of the README's blocks of JSON.
fn examples() -> Vec<Value> {
    let blocks = README.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let packets = blocks.flat_map(|block| Deserializer::from_str(block).into_iter::<Value>());
    packets.map(|packet| packet.unwrap_or_else(|error| panic!("the README: {error}"))).collect()
}

/// The words that a packet of one side can begin with.
fn actions(side: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(SCHEMA).unwrap();
    let all = document["$defs"][side]["oneOf"].as_array().unwrap();
    let actions = all.iter().map(|reference| {
        let name = reference["$ref"].as_str().unwrap().trim_start_matches("#/$defs/");
        document["$defs"][name]["properties"]["packet_action"]["const"].clone()
    });
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_examples_are_packets() {
    let (schema, examples) = (Schema::new(), examples());
    let mut shown = [Vec::new(), Vec::new()];
    for packet in &examples {
        let sides = [schema.is_from_client(packet), schema.is_from_aggregator(packet)];
        assert!(sides.contains(&true), "{packet}");
        assert_eq!(sides[0], is_read(packet), "{packet}");
        for (side, shown) in sides.iter().zip(&mut shown) {
            shown.extend(side.then(|| packet["packet_action"].as_str().unwrap().to_owned()));
        }
    }
    for (side, shown) in ["from_client", "from_aggregator"].into_iter().zip(&shown) {
        for action in actions(side) {
            assert!(shown.contains(&action), "the README has no {action} {side}");
        }
    }
}

/// A packet with some of its fields set to others.
fn with(mut packet: Value, rest: &Value) -> Value {
    packet.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    packet
}

/// Publishes beside the examples, each with whether it is right.
fn publishes() -> Vec<(bool, Value)> {
    let chat = json!({ "chat": true });
    let plain = json!({ "packet_action": "publish", "channel": chat, "message": 1 });
    let publish = |rest: Value| with(plain.clone(), &rest);
    let long = "x".repeat(101);
    vec![
        (true, publish(json!({ "id": null, "publish_target": null, "deadline_ms": null }))),
        (true, publish(json!({ "consume_target": [], "offsets": {}, "reply_to": null }))),
        (true, publish(json!({ "distribution": {} }))),
        (true, publish(json!({ "distribution": { "broadcast": false, "multicast": [] } }))),
        (
            true,
            publish(json!({ "publish_target": "OUTBOUND", "distribution": { "direct": ["a"] } })),
        ),
        (true, publish(json!({ "channel": { "chat": true, "voice": false } }))),
        (true, publish(json!({ "id": "x".repeat(100) }))),
        (false, publish(json!({ "message": null }))),
        (false, publish(json!({ "id": "" }))),
        (false, publish(json!({ "id": long }))),
        (false, publish(json!({ "id": 7 }))),
        (false, publish(json!({ "publish_target": "amq.topic" }))),
        (false, publish(json!({ "publish_target": "OUTBOUND" }))),
        (
            false,
            publish(json!({ "publish_target": "INBOUND", "distribution": { "broadcast": true } })),
        ),
        (false, publish(json!({ "distribution": { "broadcast": true, "direct": ["a"] } }))),
        (false, publish(json!({ "distribution": { "multicast": ["a"], "direct": ["a"] } }))),
        (false, publish(json!({ "distribution": { "direct": ["a.b"] } }))),
        (false, publish(json!({ "distribution": { "direct": [long] } }))),
        (false, publish(json!({ "distribution": { "direct": "a" } }))),
        (false, publish(json!({ "distribution": { "unicast": ["a"] } }))),
    ]
}

/// Requests and replies beside the examples, each with whether it is right.
fn requests() -> Vec<(bool, Value)> {
    let chat = json!({ "chat": true });
    let plain = json!({ "packet_action": "request", "id": "1", "channel": chat, "message": 1 });
    let request = |rest: Value| with(plain.clone(), &rest);
    vec![
        (true, request(json!({ "deadline_ms": 10, "publish_target": "INBOUND" }))),
        (true, request(json!({ "deadline_ms": 300_000 }))),
        (false, request(json!({ "id": null }))),
        (false, request(json!({ "deadline_ms": 9 }))),
        (false, request(json!({ "deadline_ms": 300_001 }))),
        (false, request(json!({ "deadline_ms": "1 s" }))),
        (false, request(json!({ "publish_target": "OUTBOUND" }))),
        (false, request(json!({ "distribution": { "broadcast": true } }))),
        (false, request(json!({ "distribution": { "multicast": ["a"] } }))),
        (false, request(json!({ "distribution": { "direct": ["a", "b"] } }))),
        (false, request(json!({ "packet_action": "reply" }))),
        (false, request(json!({ "packet_action": "reply", "reply_to": { "client": "a" } }))),
        (false, request(json!({ "packet_action": "reply", "reply_to": { "request_id": "" } }))),
    ]
}

/// Other packets beside the examples, each with whether it is right.
fn others() -> Vec<(bool, Value)> {
    let chat = json!({ "chat": true });
    vec![
        (true, json!({ "packet_action": "ack", "offsets": { "OUT_CHAT": u64::MAX } })),
        (true, json!({ "packet_action": "ping" })),
        (false, json!({})),
        (false, json!([])),
        (false, json!("ping")),
        (false, json!({ "packet_action": "jump" })),
        (false, json!({ "packet_action": "welcome" })),
        (false, json!({ "packet_action": "ping", "unknown": 1 })),
        (false, json!({ "packet_action": "consume" })),
        (false, json!({ "packet_action": "consume", "channel": {} })),
        (false, json!({ "packet_action": "consume", "channel": { "chat": false } })),
        (false, json!({ "packet_action": "consume", "channel": { "chat": 1 } })),
        (false, json!({ "packet_action": "consume", "channel": ["chat"] })),
        (
            false,
            json!({ "packet_action": "consume", "channel": chat, "consume_target": "OUT_CHAT" }),
        ),
        (
            false,
            json!({ "packet_action": "unsubscribe", "channel": chat, "consume_target": ["IN_CHAT"] }),
        ),
        (false, json!({ "packet_action": "publish", "channel": chat })),
        (false, json!({ "packet_action": "ack" })),
        (false, json!({ "packet_action": "ack", "offsets": {} })),
        (false, json!({ "packet_action": "ack", "offsets": { "OUT_CHAT": -1 } })),
        (false, json!({ "packet_action": "ack", "offsets": { "OUT_CHAT": "1" } })),
    ]
}

#[test]
fn the_schema_takes_what_is_read_and_nothing_else() {
    let schema = Schema::new();
    for (is_right, packet) in publishes().into_iter().chain(requests()).chain(others()) {
        let found = (schema.is_from_client(&packet), is_read(&packet));
        assert_eq!(found, (is_right, is_right), "by the schema, by read: {packet}");
    }
}

/// What depends on the settings, or counts channels, is beyond the schema.
#[test]
fn only_the_aggregator_knows_its_channels() {
    let schema = Schema::new();
    for packet in [
        json!({ "packet_action": "consume", "channel": { "news": true } }),
        json!({ "packet_action": "consume", "channel": { "chat": true }, "consume_target": ["OUT_VOICE"] }),
        json!({ "packet_action": "request", "id": "1", "channel": { "chat": true, "voice": true }, "message": 1 }),
    ] {
        assert_eq!((schema.is_from_client(&packet), is_read(&packet)), (true, false), "{packet}");
    }
}

#[test]
fn what_is_written_is_as_the_schema_says() {
    let schema = Schema::new();
    let message = RawValue::from_string("{\"a\": 1}".to_owned()).unwrap();
    let welcome = Welcome {
        client: "ana",
        resume_token: "e30.e30.e30",
        resumed: true,
        missed: [("OUT_CHAT", Missed { from: 1, to: 7 })].into(),
        channels: vec!["chat", "voice"],
        resume_window_ms: 120_000,
        packet_bytes_max: 65_536,
    };
    let receipt = Receipt {
        id: "1",
        clients: [("ana", Existence::Known), ("bob", Existence::Unknown)].into(),
        resume_token: Some("e30.e30.e30"),
    };
    let bare = Receipt { id: "1", ..Receipt::default() };
    let full = MessageFrame {
        channel: "chat",
        source: "OUT_CHAT",
        offset: u64::MAX,
        from: Some("ana"),
        request_id: Some("7"),
        message: &message,
    };
    let unsigned = MessageFrame { from: None, request_id: None, ..full.clone() };
    let written =
        [welcome.packet(), receipt.packet(), bare.packet(), full.packet(), unsigned.packet()];
    let errors = Code::ALL.iter().map(|code| Reason::new(*code, "why").packet(Some("1")));
    let unnamed = Reason::new(Code::Dropped, "why").packet(None);
    let short = [
        unnamed,
        reply("7", None, &message),
        reply("7", Some("bob"), &message),
        pong(Some("1")),
        pong(None),
    ];
    for text in written.into_iter().chain(errors).chain(short) {
        let packet: Value = serde_json::from_str(&text).unwrap();
        assert!(schema.is_from_aggregator(&packet), "{text}");
        for field in packet.as_object().unwrap().keys() {
            let renamed = text.replacen(&format!("\"{field}\":"), "\"other\":", 1);
            let renamed: Value = serde_json::from_str(&renamed).unwrap();
            assert!(!schema.is_from_aggregator(&renamed), "{renamed}");
        }
    }
    let document: Value = serde_json::from_str(SCHEMA).unwrap();
    let codes = &document["$defs"]["error"]["properties"]["code"]["enum"];
    assert_eq!(*codes, serde_json::to_value(Code::ALL).unwrap());
}

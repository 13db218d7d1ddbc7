use super::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

#[test]
fn one_shard() {
    let topology = Topology::for_ingest(&IngestConfig::default(), &[]);
    let text = topology.to_string();
    for line in [
        "platziverse.telemetry  topic   platziverse.dead",
        "platziverse.live       topic   -",
        "platziverse.telemetry  agent.#         exchange platziverse.live",
        "platziverse.ingest     topic   platziverse.dead",
        "platziverse.telemetry  agent.#         exchange platziverse.ingest",
        "platziverse.ingest     agent.#         queue platziverse.ingest",
        "platziverse.dead       #               queue platziverse.dead",
        "  x-overflow              reject-publish",
        "  x-dead-letter-strategy  at-least-once",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn every_queue_has_its_limits() {
    let config = IngestConfig { shards: 3, ..IngestConfig::default() };
    let topology = Topology::for_ingest(&config, &[(filter("plant/+"), "plant".to_owned())]);
    assert_eq!(topology.queues.len(), 5);
    for queue in &topology.queues {
        for needed in
            ["x-queue-type", "x-overflow", "x-max-length", "x-max-length-bytes", "x-delivery-limit"]
        {
            assert!(queue.arguments.iter().any(|a| a.name == needed), "{} {needed}", queue.name);
        }
        let leads_on = queue.arguments.iter().any(|a| a.name == "x-dead-letter-exchange");
        assert_eq!(leads_on, queue.name != DEAD, "{}", queue.name);
    }
}

#[test]
fn shards() {
    assert_eq!(ingest_queues(1), ["platziverse.ingest"]);
    assert_eq!(ingest_queues(2), ["platziverse.ingest.0", "platziverse.ingest.1"]);
    assert_eq!(sharded_key("agent.message", 3, 4), "agent.message.3");
    assert_eq!(sharded_key("agent.message", 0, 1), "agent.message");
    assert_eq!(shard_of("yyy", 1), 0);
    // Written down: another value would send an agent's records to two queues during an update.
    assert_eq!(shard_of("yyy", 1_000), 562);
    let spread: std::collections::BTreeSet<_> =
        (0..100).map(|n| shard_of(&format!("agent-{n}"), 4)).collect();
    assert_eq!(spread.len(), 4);
}

#[test]
fn what_a_live_queue_is_bound_to() {
    let check = |text: &str, keys: &[&str]| assert_eq!(live_binding_keys(&filter(text)), keys);
    check("#", &["#"]);
    check("plant/temp", &["plant.temp"]);
    check("plant/+", &["plant.*", "#./cut"]);
    check("agent/#", &["agent.#", "#./cut"]);
    check("agent/message", &["agent.message", "agent.message.*"]);
    check("+/connected", &["*.connected", "agent.connected.*", "#./cut"]);
}

#[test]
fn routes_are_bound_to_what_subscribers_get() {
    let routes = [(filter("a/#"), "kept".to_owned()), (filter("b"), "kept".to_owned())];
    let topology = Topology::for_ingest(&IngestConfig::default(), &routes);
    let keys: Vec<_> = topology.bindings.iter().filter(|b| b.source == LIVE).collect();
    assert_eq!(keys.iter().map(|b| b.key.as_str()).collect::<Vec<_>>(), ["a.#", "#./cut", "b"]);
    assert_eq!(topology.queues.iter().filter(|q| q.name == "kept").count(), 1);
}

#[test]
fn as_json() {
    let topology = Topology::for_ingest(&IngestConfig::default(), &[]);
    let json = serde_json::to_value(&topology).unwrap();
    assert_eq!(json["exchanges"][1]["alternate"], "platziverse.dead");
    assert_eq!(json["bindings"][0]["destination"]["queue"], "platziverse.dead");
    assert_eq!(json["queues"][1]["arguments"][0]["value"], "quorum");
}

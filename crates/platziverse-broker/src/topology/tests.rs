use std::collections::BTreeSet;

use std::time::Duration;

use super::tasks::RETRY;
use super::*;
use platziverse_config::TasksConfig;
use platziverse_protocol::command::{DELIVERED, LISTENING, response_topic};
use platziverse_protocol::topic::{TopicFilter, routing_key};
use proptest::prelude::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn route(text: &str, queue: &str) -> Route {
    Route { filter: filter(text), queue: queue.to_owned() }
}

#[test]
fn one_shard() {
    let topology = Topology::for_ingest(&IngestConfig::default(), &[]);
    let text = topology.to_string();
    for line in [
        "platziverse.telemetry  topic   platziverse.dead",
        "platziverse.live       topic   -",
        "platziverse.telemetry  agent.#              exchange platziverse.live",
        "platziverse.ingest     topic   platziverse.dead",
        "platziverse.telemetry  agent.#              exchange platziverse.ingest",
        "platziverse.ingest     agent.#              queue platziverse.ingest",
        "platziverse.dead       #                    queue platziverse.dead",
        "  x-overflow              reject-publish",
        "  x-dead-letter-strategy  at-least-once",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn every_queue_has_its_limits() {
    let config = IngestConfig { shards: 3, ..IngestConfig::default() };
    let topology = Topology::for_ingest(&config, &[route("plant/+", "plant")]);
    let topology = topology.and(Topology::for_tasks(&TasksConfig::default(), &config));
    assert_eq!(topology.queues.len(), 6 + 2 + 4 + 1);
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
    assert_eq!(
        ingest_queues(2),
        ["platziverse.ingest.0", "platziverse.ingest.1", "platziverse.ingest"]
    );
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

/// Where what is published to `exchange` under `key` ends: alternates count only where nothing is
/// bound, exchange by exchange, as in RabbitMQ.
fn reached(topology: &Topology, exchange: &str, key: &str) -> BTreeSet<String> {
    let words: Vec<_> = key.split('.').collect();
    let bindings = topology.bindings.iter().filter(|binding| binding.source == exchange);
    let known = topology.exchanges.iter().find(|known| known.name == exchange);
    let leads_on = |pattern: &str| match known.map(|exchange| exchange.kind) {
        Some(Kind::Topic) => amqp_matches(&words, &pattern.split('.').collect::<Vec<_>>()),
        Some(Kind::Direct) => pattern == key,
        Some(Kind::Fanout) | None => true,
    };
    let mut hit = false;
    let mut queues = BTreeSet::new();
    for Binding { key: pattern, destination, .. } in bindings {
        if leads_on(pattern) {
            hit = true;
            match destination {
                Destination::Queue(name) => drop(queues.insert(name.clone())),
                Destination::Exchange(name) => queues.extend(reached(topology, name, key)),
            }
        }
    }
    match known.and_then(|exchange| exchange.alternate).filter(|_| !hit) {
        Some(alternate) => reached(topology, alternate, key),
        None => queues,
    }
}

#[test]
fn every_record_reaches_one_ingest_queue_whatever_its_gateway_was_set_to() {
    let check = |shards: u16, key: &str, queue: &str| {
        let config = IngestConfig { shards, ..IngestConfig::default() };
        let topology = Topology::for_ingest(&config, &[route("agent/+", "kept")]);
        let wanted = [queue, "kept"].map(str::to_owned);
        assert_eq!(reached(&topology, TELEMETRY, key), BTreeSet::from(wanted), "{shards} {key}");
    };
    check(1, "agent.message", "platziverse.ingest");
    check(1, "agent.message.3", "platziverse.ingest");
    check(4, "agent.message.3", "platziverse.ingest.3");
    check(4, "agent.disconnected", "platziverse.ingest");
}

#[test]
fn nothing_is_both_bound_and_unbound() {
    for shards in [1, 4] {
        let config = IngestConfig { shards, ..IngestConfig::default() };
        let routes = [route("a/#", "kept"), route("agent/+", "kept")];
        let Topology { bindings, unbindings, .. } = Topology::for_ingest(&config, &routes);
        assert!(!unbindings.is_empty());
        for binding in &unbindings {
            assert!(!bindings.contains(binding), "{binding}");
        }
    }
}

#[test]
fn a_route_ends_in_its_queue_or_the_dead_letters() {
    let routes = [route("a/#", "kept"), route("b", "kept"), route("b", "other")];
    let topology = Topology::for_ingest(&IngestConfig::default(), &routes);
    let text = topology.to_string();
    for line in [
        "platziverse.route.kept topic   platziverse.dead",
        "platziverse.route.other topic   platziverse.dead",
        "platziverse.live       a.#                  exchange platziverse.route.kept",
        "platziverse.route.kept #                    queue kept",
        "NO LONGER FROM",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert_eq!(topology.queues.iter().filter(|queue| queue.name == "kept").count(), 1);
    assert_eq!(reached(&topology, LIVE, "a.x"), BTreeSet::from(["kept".to_owned()]));
    assert_eq!(reached(&topology, LIVE, "b").len(), 2);
    assert!(reached(&topology, LIVE, "c").is_empty());
}

#[test]
fn routes_are_bound_to_what_subscribers_get() {
    let check = |shards: u16, texts: &[&str], want: &[&str]| {
        let config = IngestConfig { shards, ..IngestConfig::default() };
        let routes: Vec<_> = texts.iter().map(|text| route(text, "kept")).collect();
        let topology = Topology::for_ingest(&config, &routes);
        let keys = topology.bindings.iter().filter(|b| b.source == LIVE).map(|b| b.key.as_str());
        assert_eq!(keys.collect::<Vec<_>>(), want, "{texts:?}");
        assert_eq!(topology.queues.iter().filter(|q| q.name == "kept").count(), 1);
    };
    check(1, &["a/#", "b"], &["a.#", "#./cut", "b"]);
    check(2, &["agent/message"], &["agent.message", "agent.message.*"]);
    check(2, &["#"], &["#"]);
}

/// RabbitMQ's topic matching: `*` is one word, `#` any number of them.
fn amqp_matches(key: &[&str], binding: &[&str]) -> bool {
    match binding.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|skip| amqp_matches(&key[skip..], rest)),
        Some((&"*", rest)) => !key.is_empty() && amqp_matches(&key[1..], rest),
        Some((word, rest)) => key.first() == Some(word) && amqp_matches(&key[1..], rest),
    }
}

/// A topic, and a filter that matches it: some levels are `+`, and from some level on it is `#`.
fn matching() -> impl Strategy<Value = (TopicFilter, String)> {
    let level = || "[ab.*]{0,3}|[a]{60,80}";
    let other = prop::collection::vec(level(), 1..8).prop_map(|levels| levels.join("/"));
    let stored = prop::sample::select(&STORED_TOPICS[..]).prop_map(str::to_owned);
    let topic = prop_oneof![3 => other, 1 => stored].prop_filter("a topic", |t| !t.is_empty());
    let wild = prop::collection::vec(prop::bool::weighted(0.3), 8);
    (topic, wild, prop::option::of(0..9usize)).prop_map(|(topic, wild, cut)| {
        let levels = topic.split('/').zip(&wild);
        let mut levels: Vec<_> =
            levels.map(|(level, wild)| if *wild { "+" } else { level }).collect();
        // `#` stands for the level before it too.
        if let Some(cut) = cut.filter(|cut| *cut <= levels.len()) {
            levels.truncate(cut);
            levels.push("#");
        }
        (filter(&levels.join("/")), topic)
    })
}

proptest! {
    #[test]
    fn a_binding_is_never_too_narrow((filter, topic) in matching(), shards in 1u16..4) {
        prop_assert!(filter.matches(&topic), "{} on {topic}", filter);
        let mut key = routing_key(&topic);
        if STORED_TOPICS.contains(&&*topic) {
            key = sharded_key(&key, shards - 1, shards);
        }
        let words: Vec<_> = key.split('.').collect();
        let keys = live_binding_keys(&filter);
        prop_assert!(keys.iter().all(|key| key.len() <= 255), "{keys:?}");
        let reaches = |key: &String| amqp_matches(&words, &key.split('.').collect::<Vec<_>>());
        prop_assert!(keys.iter().any(reaches), "{} is not reached by {key}", filter);
    }
}

#[test]
fn as_json() {
    let topology = Topology::for_ingest(&IngestConfig::default(), &[]);
    let json = serde_json::to_value(&topology).unwrap();
    assert_eq!(json["exchanges"][1]["alternate"], "platziverse.dead");
    assert_eq!(json["bindings"][0]["destination"]["queue"], "platziverse.dead");
    assert_eq!(json["queues"][1]["arguments"][0]["value"], "quorum");
}

fn tasks(queues: &[&str]) -> TasksConfig {
    let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
    TasksConfig { queues, ..TasksConfig::default() }
}

#[test]
fn the_queues_of_tasks() {
    assert_eq!(TasksConfig::default().queues, [EVENTS, COMMANDS]);
    let config = tasks(&[EVENTS, COMMANDS, "local_iot_core"]);
    let topology = Topology::for_tasks(&config, &IngestConfig::default());
    let text = topology.to_string();
    for line in [
        "platziverse.tasks      direct  platziverse.dead",
        "platziverse.live       topic   -",
        "platziverse.live       agent.*.response     exchange platziverse.reports",
        "platziverse.retry.10s  fanout  platziverse.dead",
        "platziverse.events\n",
        "local_iot_core (if there is none yet)\n",
        "platziverse.retry.10m\n",
        "  x-message-ttl           600000\n",
        "  x-dead-letter-exchange  platziverse.tasks\n",
        "platziverse.tasks      platziverse.commands queue platziverse.commands",
        "platziverse.tasks      event                queue platziverse.events",
        "platziverse.tasks      local_iot_core       queue local_iot_core",
        "platziverse.retry.1s                        queue platziverse.retry.1s",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let json = serde_json::to_value(&topology).unwrap();
    assert_eq!(json["exchanges"][1]["kind"], "direct");
    assert_eq!(json["queues"][4]["if_missing"], true);
}

#[test]
fn every_task_reaches_its_queue_or_the_dead_letters() {
    let check = |queues: &[&str], key: &str, queue: &str| {
        let topology = Topology::for_tasks(&tasks(queues), &IngestConfig::default());
        assert_eq!(reached(&topology, TASKS, key), BTreeSet::from([queue.to_owned()]), "{key}");
    };
    let ours = [EVENTS, COMMANDS];
    check(&ours, EVENTS, EVENTS);
    check(&ours, "event", EVENTS);
    check(&ours, "command", COMMANDS);
    check(&ours, "nobody", DEAD);
    check(&["local_iot_core"], "local_iot_core", "local_iot_core");
    check(&["local_iot_core"], "event", DEAD);
    check(&[EVENTS, "event"], "event", "event");
}

#[test]
fn reports_reach_their_queue() {
    let topology = Topology::for_tasks(&tasks(&[EVENTS]), &IngestConfig::default());
    let long = response_topic(&"a".repeat(255)).unwrap();
    let check = |topic: &str, queue: &[&str]| {
        let queues = queue.iter().map(|queue| (*queue).to_owned()).collect();
        assert_eq!(reached(&topology, LIVE, &routing_key(topic)), queues, "{topic}");
    };
    for topic in [LISTENING, DELIVERED, "agent/yyy/response", "agent/a.b/response", &long] {
        check(topic, &[REPORTS]);
    }
    for topic in ["agent/yyy/command", "agent/message", "agent/a/b/response"] {
        check(topic, &[]);
    }
}

#[test]
fn delays() {
    let check = |milliseconds: u64, name: &str| {
        let name = format!("{RETRY}.{name}");
        assert_eq!(retry_name(Duration::from_millis(milliseconds)), name);
    };
    check(100, "100ms");
    check(1_500, "1500ms");
    check(1_000, "1s");
    check(90_000, "90s");
    check(600_000, "10m");
    check(3_600_000, "1h");
    check(5_400_000, "90m");
    check(86_400_000, "24h");
    // The same delay several times is one queue, and wherever a task waits its key is its queue's.
    let retry_delays = [60, 60, 1].map(Duration::from_secs).to_vec();
    let config = TasksConfig { retry_delays, ..TasksConfig::default() };
    let topology = Topology::for_tasks(&config, &IngestConfig::default());
    let waiting = topology.queues.iter().filter(|queue| queue.name.starts_with(RETRY));
    let names: Vec<_> = waiting.map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["platziverse.retry.1m", "platziverse.retry.1s"]);
    let reached = reached(&topology, "platziverse.retry.1m", EVENTS);
    assert_eq!(reached, BTreeSet::from(["platziverse.retry.1m".to_owned()]));
}

#[test]
fn two_make_one() {
    let limits = IngestConfig::default();
    let routes = [route("plant/#", "plant")];
    let ingest = || Topology::for_ingest(&limits, &routes);
    let tasks = || Topology::for_tasks(&tasks(&[EVENTS, "plant"]), &limits);
    assert_eq!(ingest().and(ingest()), ingest());
    let both = ingest().and(tasks());
    let names = |queues: &[Queue]| -> Vec<String> {
        queues.iter().map(|queue| queue.name.clone()).collect()
    };
    let (all, mut once) = (names(&both.queues), names(&both.queues));
    once.sort_unstable();
    once.dedup();
    assert_eq!(all.len(), once.len(), "{all:?}");
    assert_eq!(all[..3], [DEAD, INGEST, "plant"]);
    assert!(!both.queues[2].if_missing, "as the first has it");
    for Exchange { name, .. } in ingest().exchanges.iter().chain(&tasks().exchanges) {
        assert_eq!(both.exchanges.iter().filter(|exchange| exchange.name == *name).count(), 1);
    }
    for binding in ingest().bindings.iter().chain(&tasks().bindings) {
        assert_eq!(both.bindings.iter().filter(|known| *known == binding).count(), 1, "{binding}");
        assert!(!both.unbindings.contains(binding), "{binding}");
    }
    assert_eq!(both.unbindings, ingest().unbindings);
}

#[test]
fn queues_of_applications() {
    let options = crate::mom::MomQueueOptions {
        max_length: 7,
        max_bytes: 1 << 40,
        delivery_limit: 3,
        message_ttl: Some(Duration::from_secs(60)),
    };
    let queue = Queue::mom("mom.queue.a", &options).unwrap();
    let argument = |name: &str| {
        let argument = queue.arguments.iter().find(|argument| argument.name == name);
        argument.map(|argument| argument.value.to_string()).unwrap_or_default()
    };
    for (name, value) in [
        ("x-queue-type", "quorum"),
        ("x-overflow", "reject-publish"),
        ("x-max-length", "7"),
        ("x-max-length-bytes", "1099511627776"),
        ("x-delivery-limit", "3"),
        ("x-dead-letter-exchange", DEAD),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-message-ttl", "60000"),
    ] {
        assert_eq!(argument(name), value, "{name}");
    }
    let none = crate::mom::MomQueueOptions { message_ttl: None, ..options.clone() };
    assert_eq!(Queue::mom("a", &none).unwrap().arguments.len(), queue.arguments.len() - 1);
    let long = Duration::from_secs(50 * 24 * 3600);
    for wrong in [
        crate::mom::MomQueueOptions { max_length: 0, ..options.clone() },
        crate::mom::MomQueueOptions { max_bytes: u64::MAX, ..options.clone() },
        crate::mom::MomQueueOptions { delivery_limit: 0, ..options.clone() },
        crate::mom::MomQueueOptions { message_ttl: Some(long), ..options.clone() },
    ] {
        assert!(Queue::mom("a", &wrong).is_err(), "{wrong:?}");
    }
    let topology = Topology::for_mom(&IngestConfig::default());
    let dead = topology.exchanges.iter().find(|exchange| exchange.name == MOM);
    assert_eq!(dead.and_then(|exchange| exchange.alternate), Some(DEAD));
    assert!(reached(&topology, DEAD, "mom.queue.a").contains(DEAD));
}

#[test]
fn channels_of_clients_and_servers() {
    let channels = ["chat", "voice_2"].map(str::to_owned);
    let of_window = |seconds: u64, bytes_max: u64| {
        let streams = StreamLimits { resume_window: Duration::from_secs(seconds), bytes_max };
        Topology::for_aggregator(&channels, &IngestConfig::default(), streams)
    };
    let topology = of_window(120, 1 << 30);
    let check = |exchange: &str, key: &str, queues: &[&str]| {
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        assert_eq!(reached(&topology, exchange, key), queues, "{exchange} {key}");
    };
    check(INBOUND, "chat", &["IN_CHAT", REQUESTS]);
    check(INBOUND, "voice_2", &["IN_VOICE_2", REQUESTS]);
    check(INBOUND, "platziverse.marker", &[REQUESTS]);
    check(INBOUND, "none", &[DEAD]);
    for key in ["chat.broadcast", "chat.client.a.b", "chat.multicast", "chat.marker"] {
        check(OUTBOUND, key, &["OUT_CHAT"]);
    }
    check(OUTBOUND, "none.broadcast", &[DEAD]);
    check(CLIENTS, "ana", &[]);
    // Its own exchange and that of dead letters stand behind a queue of work.
    let mut without = topology.clone();
    without.bindings.retain(|one| one.destination != Destination::Queue("IN_CHAT".to_owned()));
    let kept = BTreeSet::from([DEAD, REQUESTS].map(str::to_owned));
    assert_eq!(reached(&without, INBOUND, "chat"), kept);

    let limits = |topology: &Topology, queue: &str| {
        let queue = topology.queues.iter().find(|known| known.name == queue).unwrap();
        let all = queue.arguments.iter();
        all.map(|one| format!("{} {}", one.name, one.value)).collect::<BTreeSet<_>>()
    };
    let stream = |age: &str, bytes: &str, segment: &str| {
        let age = format!("x-max-age {age}");
        let bytes = format!("x-max-length-bytes {bytes}");
        let segment = format!("x-stream-max-segment-size-bytes {segment}");
        BTreeSet::from(["x-queue-type stream".to_owned(), age, bytes, segment])
    };
    assert_eq!(limits(&topology, "OUT_CHAT"), stream("600s", "1073741824", "16777216"));
    let brief = of_window(3_600, 8 << 20);
    assert_eq!(limits(&brief, REQUESTS), stream("3660s", "8388608", "2097152"));
    let work = Topology::for_ingest(&IngestConfig::default(), &[]);
    assert_eq!(limits(&topology, "IN_CHAT"), limits(&work, INGEST));
}

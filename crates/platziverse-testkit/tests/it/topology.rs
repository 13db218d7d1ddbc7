//! What the command prints as the topology is what RabbitMQ has.

use platziverse_testkit::{PATIENCE, World, check, eventually};
use serde_json::{Map, Value, json};

/// A gateway publishes what is stored, what is only delivered, dead letters and signals, listens,
/// and hears heartbeats; a worker has two writers, consumes two queues of tasks, publishes dead
/// letters, sweeps, and hears heartbeats.
const CONNECTIONS: [(&str, usize); 2] = [("platziverse-gateway@", 6), ("platziverse-worker@", 8)];

fn texts<'a>(list: &'a [Value], field: &str) -> Vec<&'a str> {
    let mut texts: Vec<_> = list.iter().filter_map(|one| one[field].as_str()).collect();
    texts.sort_unstable();
    texts
}

fn list(topology: &Value, kind: &str) -> Vec<Value> {
    let list = topology[kind].as_array().cloned().unwrap_or_default();
    assert!(!list.is_empty(), "{kind}: {topology}");
    list
}

/// The arguments as RabbitMQ shows them, of `[{"name": …, "value": …}]`.
fn arguments(queue: &Value) -> Value {
    let pairs = queue["arguments"].as_array().into_iter().flatten();
    let pairs = pairs
        .map(|pair| (pair["name"].as_str().expect("a name").to_owned(), pair["value"].clone()));
    Value::Object(pairs.collect::<Map<_, _>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topology_is_that_of_rabbitmq() {
    let world = World::start().await;
    let (_gateway, _worker) = (world.gateway().await, world.worker().await);
    let (_mom, _aggregator) = (world.mom().await, world.aggregator().await);
    let ended = world.platziverse(&["topology", "--json"]).await;
    let printed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_queues(&world, &list(&printed, "queues")).await;
    assert_exchanges(&world, &list(&printed, "exchanges")).await;
    assert_bindings(&world, &list(&printed, "bindings")).await;
    // The management API learns of a connection some seconds later.
    eventually("each service has its connections", PATIENCE, || async {
        let names = world.rabbitmq().connection_names().await;
        let of = |service: &str| names.iter().filter(|name| name.starts_with(service)).count();
        let all = CONNECTIONS.iter().all(|(service, count)| of(service) == *count);
        check(all, || format!("{names:?}"))
    })
    .await;
}

async fn assert_queues(world: &World, printed: &[Value]) {
    let mut real = world.rabbitmq().list("queues").await;
    // Those of one process, which go with it.
    real.retain(|queue| queue["durable"] == true);
    assert_eq!(texts(printed, "name"), texts(&real, "name"));
    for queue in printed {
        let name = queue["name"].as_str().expect("a name");
        let real = real.iter().find(|real| real["name"] == name).expect("RabbitMQ has it");
        let arguments = arguments(queue);
        assert_eq!(real["type"], arguments["x-queue-type"], "{name}");
        assert!(["quorum", "stream"].iter().any(|kind| real["type"] == *kind), "{name}");
        assert_eq!(real["arguments"], arguments, "{name}");
    }
}

async fn assert_exchanges(world: &World, printed: &[Value]) {
    let mut real = world.rabbitmq().list("exchanges").await;
    let is_ours = |name: &str| {
        name.starts_with("platziverse") || name.starts_with("mom.") || name.ends_with("BOUND")
    };
    real.retain(|exchange| exchange["name"].as_str().is_some_and(is_ours));
    assert_eq!(texts(printed, "name"), texts(&real, "name"));
    for exchange in printed {
        let name = exchange["name"].as_str().expect("a name");
        let real = real.iter().find(|real| real["name"] == name).expect("RabbitMQ has it");
        assert_eq!((&real["type"], &real["durable"]), (&exchange["kind"], &json!(true)), "{name}");
        assert_eq!(real["arguments"]["alternate-exchange"], exchange["alternate"], "{name}");
    }
}

async fn assert_bindings(world: &World, printed: &[Value]) {
    let line =
        |source: &Value, key: &Value, destination: &Value| format!("{source} {key} {destination}");
    let mut wanted: Vec<_> = printed
        .iter()
        .map(|one| {
            let destination = &one["destination"];
            let destination = destination.get("queue").or(destination.get("exchange"));
            line(&one["source"], &one["key"], destination.expect("a destination"))
        })
        .collect();
    let durable = durable_names(world).await;
    let real = world.rabbitmq().list("bindings").await;
    let ours = real.iter().filter(|one| {
        let to = one["destination"].as_str().unwrap_or_default();
        one["source"] != "" && durable.iter().any(|name| name == to)
    });
    let mut ours: Vec<_> =
        ours.map(|one| line(&one["source"], &one["routing_key"], &one["destination"])).collect();
    wanted.sort_unstable();
    ours.sort_unstable();
    assert_eq!(wanted, ours);
}

/// The names of what stays when all services have gone.
async fn durable_names(world: &World) -> Vec<String> {
    let mut names = Vec::new();
    for kind in ["queues", "exchanges"] {
        let all = world.rabbitmq().list(kind).await;
        let durable = all.iter().filter(|one| one["durable"] == true);
        names.extend(durable.filter_map(|one| one["name"].as_str().map(str::to_owned)));
    }
    names
}

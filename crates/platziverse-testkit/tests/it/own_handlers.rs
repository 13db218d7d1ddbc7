//! A worker that somebody has built with handlers of their own: the example that the README shows.

use std::path::Path;

use platziverse_testkit::{Process, World};
use serde_json::{Value, json};
use uuid::Uuid;

const COMMANDS: &str = "platziverse.commands";

async fn worker(world: &World) -> Process {
    let settings = [
        ("PLATZIVERSE_WORKER__ROLES", "tasks"),
        ("PLATZIVERSE_TASKS__RETRY_DELAYS", "100ms"),
        ("PLATZIVERSE_TASKS__MAX_ATTEMPTS", "3"),
    ];
    world.worker_of("examples/own_handlers", &settings).await
}

async fn send(world: &World, queue: &str, task: &Value) {
    world.rabbitmq().publish("", queue, json!({"delivery_mode": 2}), &task.to_string()).await;
}

async fn counts(worker: &Process, counter: &str, value: f64) {
    worker.counts(&format!("platziverse_worker_tasks_{counter}_total"), value).await;
}

fn greet(id: Uuid, payload: &Value) -> Value {
    json!({"kind": "command", "name": "greet", "id": id, "payload": payload})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_answered_tried_again_or_rejected() {
    let world = World::start().await;
    let _worker = worker(&world).await;
    let [ada, nameless, nobody, unfit] = [(); 4].map(|()| Uuid::now_v7());
    for (id, payload) in [
        (ada, json!({"name": "Ada"})),
        (nameless, json!({"name": ""})),
        (nobody, json!({"name": "nobody"})),
        (unfit, json!({"names": []})),
    ] {
        send(&world, COMMANDS, &greet(id, &payload)).await;
    }
    let ended = "SELECT count(*) FROM commands WHERE ended_at IS NOT NULL";
    world.database().becomes(ended, "4").await;
    let row = async |id: Uuid| {
        let sql = format!(
            "SELECT state || ' ' || attempts || ' ' || coalesce(result::text, error) \
             FROM commands WHERE id = '{id}'"
        );
        world.database().value(&sql).await
    };
    assert_eq!(row(ada).await, r#"succeeded 1 {"greeting": "Hello, Ada!"}"#);
    assert_eq!(row(nameless).await, "failed 1 who has no name cannot be greeted");
    assert_eq!(row(nobody).await, "failed 3 attempt 3, the last one: nobody is there yet");
    assert!(row(unfit).await.starts_with("failed 1 the payload of greet: missing field `name`"));
    let mut reasons: Vec<_> =
        (world.rabbitmq().dead_letters().await.into_iter()).map(|letter| letter.reason).collect();
    reasons.sort();
    assert_eq!(reasons, ["attempts_exhausted", "rejected_by_handler", "rejected_by_handler"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_comes_again_has_its_visitor_greeted_once() {
    let world = World::start().await;
    let worker = worker(&world).await;
    let arrived = json!({"kind": "event", "name": "visitor.arrived", "id": Uuid::now_v7(),
                         "payload": {"name": "Ada"}});
    send(&world, "platziverse.events", &arrived).await;
    counts(&worker, "done", 2.0).await;
    for again in [1.0, 2.0] {
        send(&world, "platziverse.events", &arrived).await;
        // The event is handled again; its command is known.
        counts(&worker, "done", 2.0 + again).await;
        counts(&worker, "duplicate", again).await;
    }
    let greeted = "SELECT count(*) || ' ' || min(result->>'greeting') FROM commands";
    assert_eq!(world.database().value(greeted).await, "1 Hello, Ada!");

    // Those that are built in are there, too: an event that nobody handles is stored.
    let other = json!({"kind": "event", "name": "visitor.left"});
    send(&world, "platziverse.events", &other).await;
    let stored = "SELECT count(*) || ' ' || min(name) FROM events";
    world.database().becomes(stored, "1 visitor.left").await;
    assert!(world.rabbitmq().dead_letters().await.is_empty());
}

#[test]
fn the_readme_shows_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let readme = read("README.md");
    let examples = ["worker/examples/own_handlers", "client/examples/work_queue"];
    let example: String =
        examples.iter().map(|path| read(&format!("crates/platziverse-{path}.rs"))).collect();
    let blocks = readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
    let shown: Vec<&str> = blocks.collect();
    for block in &shown {
        assert!(example.contains(block), "no example has such code:\n{block}");
    }
    let handlers = shown.concat().matches("impl Handler for").count();
    assert_eq!(handlers, 2, "of the example");
}

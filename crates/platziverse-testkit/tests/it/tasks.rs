//! Events and commands, as the management UI publishes them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use platziverse_testkit::{DeadLetter, PATIENCE, Process, World, eventually, free_port};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use uuid::Uuid;

const EVENTS: &str = "platziverse.events";
const COMMANDS: &str = "platziverse.commands";

/// A worker that handles tasks only, with more settings.
async fn worker(world: &World, more: &[(&str, &str)]) -> Process {
    let mut settings = vec![("PLATZIVERSE_WORKER__ROLES", "tasks")];
    settings.extend(more);
    world.worker_with(&settings).await
}

async fn send(world: &World, queue: &str, body: &str) {
    world.rabbitmq().publish("", queue, json!({"delivery_mode": 2}), body).await;
}

fn event(id: Uuid, name: &str) -> Value {
    json!({"kind": "event", "name": name, "id": id, "source": "gate", "payload": {"n": 1.5}})
}

/// Waits until there are `count` dead letters.
async fn dead_letters(world: &World, count: usize) -> Vec<DeadLetter> {
    eventually(&format!("{count} dead letters"), PATIENCE, || async {
        let letters = world.rabbitmq().dead_letters().await;
        if letters.len() == count { Ok(letters) } else { Err(format!("{letters:?}")) }
    })
    .await
}

/// Waits until a counter of the worker has a value.
async fn counts(worker: &Process, counter: &str, value: f64) {
    worker.counts(&format!("platziverse_worker_tasks_{counter}_total"), value).await;
}

/// Whether what was delivered is what became of it, and what is in flight.
async fn books_balance(worker: &Process) {
    let metrics = worker.metrics().await;
    let get = |word: &str| metrics.get(&format!("platziverse_worker_tasks_{word}"));
    let fates = [
        "done_total",
        "duplicate_total",
        "retried_total",
        "named_total",
        "omitted_total",
        "dead_lettered_total",
        "requeued_total",
        "in_flight",
    ];
    let accounted: f64 = fates.iter().map(|fate| get(fate)).sum();
    assert_eq!(get("delivered_total"), accounted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_stored_once() {
    let world = World::start().await;
    // A short time is enough, too.
    let worker = worker(&world, &[("PLATZIVERSE_TASKS__HANDLER_TIMEOUT", "900ms")]).await;
    let id = Uuid::now_v7();
    let mut task = event(id, "door.opened");
    task["timestamp"] = json!("2026-01-31T12:00:00.5Z");
    for _ in 0..3 {
        send(&world, EVENTS, &task.to_string()).await;
    }
    counts(&worker, "done", 3.0).await;
    let rows = world
        .database()
        .sql("SELECT id, name, source, payload, occurred_at AT TIME ZONE 'UTC' FROM events")
        .await;
    let want = [&id.to_string(), "door.opened", "gate", r#"{"n": 1.5}"#, "2026-01-31 12:00:00.5"];
    assert_eq!(rows, [want.map(|text| Some(text.to_owned()))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_an_id_is_given_one() {
    let world = World::start().await;
    let worker = worker(&world, &[]).await;
    // What a person types into the management UI.
    send(&world, EVENTS, "{\n  \"kind\": \"event\",\n  \"name\": \"typed\"\n}\n").await;
    let property = Uuid::now_v7();
    let properties = json!({"delivery_mode": 2, "message_id": property});
    let body = r#"{"kind":"event","name":"named"}"#;
    world.rabbitmq().publish("platziverse.tasks", "event", properties, body).await;
    world.database().becomes("SELECT count(*) FROM events", "2").await;
    counts(&worker, "named", 1.0).await;
    let id = world.database().value("SELECT id FROM events WHERE name = 'named'").await;
    assert_eq!(id, property.to_string());
    books_balance(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_an_id_get_out_of_a_full_queue() {
    let world = World::start().await;
    let full =
        [("PLATZIVERSE_INGEST__QUEUE_LENGTH_MAX", "5"), ("PLATZIVERSE_TASKS__PREFETCH", "2")];
    // It makes the queue, and goes.
    assert!(worker(&world, &full).await.terminate().await.success());
    let (body, mut taken) = (r#"{"kind":"event","name":"x"}"#, 0);
    while world.rabbitmq().try_publish("", EVENTS, json!({"delivery_mode": 2}), body).await.is_ok()
    {
        taken += 1;
        assert!(taken < 100, "it is never full");
    }
    let worker = worker(&world, &full).await;
    world.database().becomes("SELECT count(*) FROM events", &taken.to_string()).await;
    books_balance(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_kept_with_its_reason() {
    let world = World::start().await;
    let worker = worker(&world, &[("PLATZIVERSE_TASKS__OMIT", "noise")]).await;
    let (unknown, too_large) = (Uuid::now_v7(), Uuid::now_v7());
    let number = format!(r#"{{"kind":"event","name":"x","id":"{too_large}","payload":1e999999}}"#);
    let bad = [
        (EVENTS, "nonsense".to_owned(), "invalid_json", "not JSON"),
        (EVENTS, r#"{"kind":"event"}"#.to_owned(), "invalid_payload", "name"),
        (
            COMMANDS,
            json!({"kind": "command", "name": "fly", "id": unknown}).to_string(),
            "unknown_command",
            "\"fly\"; there are",
        ),
        (EVENTS, number, "rejected_by_handler", ""),
    ];
    for (queue, body, _, _) in &bad {
        send(&world, queue, body).await;
    }
    send(&world, EVENTS, &event(Uuid::now_v7(), "noise").to_string()).await;
    send(&world, EVENTS, &event(Uuid::now_v7(), "good").to_string()).await;
    counts(&worker, "omitted", 1.0).await;
    counts(&worker, "done", 1.0).await;
    let letters = dead_letters(&world, bad.len()).await;
    for (queue, body, reason, says) in &bad {
        let letter = letters.iter().find(|letter| letter.body.trim_end() == body);
        let letter = letter.unwrap_or_else(|| panic!("{body} is not in {letters:?}"));
        assert_eq!((letter.reason.as_str(), letter.stage.as_str()), (*reason, "worker"));
        assert!(letter.error.contains(says), "{}", letter.error);
        assert_eq!(letter.headers["origin-key"], **queue);
    }
    assert_eq!(world.database().value("SELECT count(*) FROM events").await, "1");
    books_balance(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_command_is_sent_back_and_tried_again() {
    let world = World::start().await;
    let worker = worker(&world, &[]).await;
    let body = json!({"kind": "command", "name": "fly", "id": Uuid::now_v7()}).to_string();
    send(&world, COMMANDS, &body).await;
    dead_letters(&world, 1).await;
    let replayed = world.platziverse(&["dead", "replay"]).await;
    assert!(replayed.status.success(), "{}", replayed.stderr);
    counts(&worker, "dead_lettered", 2.0).await;
    assert_eq!(dead_letters(&world, 1).await[0].body.trim_end(), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_and_doubles_nothing() {
    let world = World::start().await;
    let service = Answering::start(([127, 0, 0, 1], 0).into()).await;
    service.gate.add_permits(1_000);
    let mut killed = worker(&world, &LOCAL).await;
    let held = world.database().hold("BEGIN; LOCK TABLE events").await.unwrap();
    for _ in 0..100 {
        send(&world, EVENTS, &event(Uuid::now_v7(), "x").to_string()).await;
        send(&world, COMMANDS, &request(Uuid::now_v7(), service.address)).await;
    }
    // It holds all events by now, and is done with some of the commands.
    killed.counts("platziverse_worker_tasks_delivered_total", 150.0).await;
    killed.kill();
    drop(held);
    let _next = worker(&world, &LOCAL).await;
    world.database().becomes("SELECT count(*) FROM events", "100").await;
    let succeeded = "SELECT count(*) FROM commands WHERE state = 'succeeded'";
    world.database().becomes(succeeded, "100").await;
    assert!(world.rabbitmq().dead_letters().await.is_empty());
    // Sent again is only what was under way: the key tells the service that it is the same.
    let keys = service.keys();
    let distinct: BTreeSet<&String> = keys.iter().collect();
    assert_eq!(distinct.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_settings_take_one_task_at_a_time_from_an_older_queue() {
    let world = World::start().await;
    world.rabbitmq().declare_queue("local_iot_core", true, json!({})).await;
    let older = [
        ("RABBITMQ_LOCAL_QUEUE_NAME", "local_iot_core"),
        ("RABBITMQ_PREFETCH_COUNT", "1"),
        ("EVENTS_TO_OMIT", "noise"),
    ];
    let worker = worker(&world, &[&older[..], &LOCAL[..]].concat()).await;
    let service = Answering::start(([127, 0, 0, 1], 0).into()).await;
    send(&world, "local_iot_core", &event(Uuid::now_v7(), "noise").to_string()).await;
    send(&world, "local_iot_core", &request(Uuid::now_v7(), service.address)).await;
    send(&world, "local_iot_core", &event(Uuid::now_v7(), "x").to_string()).await;
    service.is_asked().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.database().value("SELECT count(*) FROM events").await, "0");
    service.gate.add_permits(1);
    world.database().becomes("SELECT count(*) FROM events", "1").await;
    counts(&worker, "omitted", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgresql_events_wait() {
    let world = World::private().await;
    let mut worker = worker(&world, &[("PLATZIVERSE_TASKS__RETRY_DELAYS", "100ms")]).await;
    world.servers().run("stop", "postgres").await;
    for _ in 0..20 {
        send(&world, EVENTS, &event(Uuid::now_v7(), "x").to_string()).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.servers().run("start", "postgres").await;
    world.database().becomes("SELECT count(*) FROM events", "20").await;
    assert!(world.rabbitmq().dead_letters().await.is_empty());
    assert!(worker.terminate().await.success());
}

/// A service that answers as many requests with 200 as its gate lets through, while this lives.
struct Answering {
    address: SocketAddr,
    gate: Arc<Semaphore>,
    asked: Asked,
    _task: AbortOnDrop,
}

/// The idempotency keys of the requests.
type Asked = Arc<Mutex<Vec<String>>>;

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answering {
    #[expect(clippy::disallowed_methods, reason = "a test has no drain")]
    async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (gate, asked) = (Arc::new(Semaphore::new(0)), Asked::default());
        let (gate_of, asked_of) = (Arc::clone(&gate), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&gate_of), Arc::clone(&asked_of)));
            }
        });
        Self { address, gate, asked, _task: AbortOnDrop(task) }
    }

    fn keys(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    async fn is_asked(&self) {
        eventually("a request", PATIENCE, || async {
            if self.keys().is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
        })
        .await;
    }
}

/// Answers one request without a body.
async fn answer(mut stream: TcpStream, gate: Arc<Semaphore>, asked: Asked) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte.to_ascii_lowercase()),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
    asked.lock().expect("nobody panics with it").push(key.unwrap_or_default().to_owned());
    if let Ok(permit) = gate.acquire().await {
        permit.forget();
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        // Whoever asked may have gone.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

const LOCAL: [(&str, &str); 2] = [
    ("PLATZIVERSE_TASKS__HTTP_ALLOW", "127.0.0.1"),
    ("PLATZIVERSE_TASKS__HTTP_ALLOW_PRIVATE", "true"),
];

fn request(id: Uuid, address: SocketAddr) -> String {
    let payload = json!({"url": format!("http://{address}/"), "method": "GET"});
    json!({"kind": "command", "name": "http.request", "id": id, "payload": payload}).to_string()
}

async fn command(world: &World, id: Uuid) -> Vec<Option<String>> {
    let sql =
        format!("SELECT state, attempts, result->>'body', error FROM commands WHERE id = '{id}'");
    world.database().sql(&sql).await.into_iter().next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_is_tried_again_and_kept_until_it_is_sent_back() {
    let world = World::start().await;
    let ladder = [
        ("PLATZIVERSE_TASKS__RETRY_DELAYS", "100ms,200ms"),
        ("PLATZIVERSE_TASKS__MAX_ATTEMPTS", "3"),
    ];
    let worker = worker(&world, &[&LOCAL[..], &ladder[..]].concat()).await;
    let (id, nobody) = (Uuid::now_v7(), free_port());
    send(&world, COMMANDS, &request(id, nobody)).await;
    let letters = dead_letters(&world, 1).await;
    assert_eq!(letters[0].reason, "attempts_exhausted");
    assert!(letters[0].error.starts_with("attempt 3, the last one: GET http://127.0.0.1"));
    counts(&worker, "retried", 2.0).await;
    let state = format!("SELECT state FROM commands WHERE id = '{id}'");
    world.database().becomes(&state, "failed").await;
    let row = command(&world, id).await;
    assert_eq!((row[1].as_deref(), row[2].as_deref()), (Some("3"), None));
    assert_eq!(row[3].as_deref(), Some(letters[0].error.as_str()));

    let service = Answering::start(nobody).await;
    service.gate.add_permits(9);
    let replayed = world.platziverse(&["dead", "replay"]).await;
    assert!(replayed.status.success(), "{}", replayed.stderr);
    world.database().becomes(&state, "succeeded").await;
    assert_eq!(command(&world, id).await[2].as_deref(), Some("ok"));
    // Sent again under its id, it is not done again.
    send(&world, COMMANDS, &request(id, nobody)).await;
    counts(&worker, "duplicate", 1.0).await;
    assert_eq!(service.keys(), [id.to_string()]);
    assert!(world.rabbitmq().dead_letters().await.is_empty());
    books_balance(&worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_task_holds_up_no_other_and_is_finished_before_the_end() {
    let world = World::start().await;
    let mut worker = worker(&world, &LOCAL).await;
    let service = Answering::start(([127, 0, 0, 1], 0).into()).await;
    let id = Uuid::now_v7();
    send(&world, COMMANDS, &request(id, service.address)).await;
    service.is_asked().await;
    send(&world, EVENTS, &event(Uuid::now_v7(), "x").to_string()).await;
    world.database().becomes("SELECT count(*) FROM events", "1").await;
    assert_eq!(command(&world, id).await[0].as_deref(), Some("queued"), "still under way");
    let answering = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        service.gate.add_permits(1);
    };
    let (status, ()) = tokio::join!(worker.terminate(), answering);
    assert!(status.success(), "{status}");
    assert_eq!(command(&world, id).await[0].as_deref(), Some("succeeded"));
    assert_eq!(service.keys(), [id.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_outlasts_the_end_is_done_again() {
    let world = World::start().await;
    let short = [&LOCAL[..], &[("PLATZIVERSE_OPS__DRAIN_TIMEOUT", "1s")]].concat();
    let mut first = worker(&world, &short).await;
    assert!(first.log().contains("ops.drain_timeout (1s) is shorter than tasks.handler_timeout"));
    let service = Answering::start(([127, 0, 0, 1], 0).into()).await;
    let id = Uuid::now_v7();
    send(&world, COMMANDS, &request(id, service.address)).await;
    service.is_asked().await;
    assert_eq!(first.terminate().await.code(), Some(2));

    let long = [&LOCAL[..], &[("PLATZIVERSE_OPS__DRAIN_TIMEOUT", "35s")]].concat();
    let second = worker(&world, &long).await;
    assert!(!second.log().contains("ops.drain_timeout"), "{}", second.log());
    service.gate.add_permits(9);
    let state = format!("SELECT state FROM commands WHERE id = '{id}'");
    world.database().becomes(&state, "succeeded").await;
    assert_eq!(command(&world, id).await[1].as_deref(), Some("1"), "no failed attempt");
    assert_eq!(service.keys(), [id.to_string(), id.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_sent_by_hand() {
    let world = World::start().await;
    let worker = worker(&world, &[]).await;
    let id = Uuid::now_v7().to_string();
    let sent = ["task", "send", "event", "door.opened", "--payload", r#"{"n": 1}"#, "--id", &id];
    for _ in 0..2 {
        let ended = world.platziverse(&[&sent[..], &["--json"]].concat()).await;
        assert!(ended.status.success(), "{}", ended.stderr);
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(told, json!({"sent": [{"id": id, "queue": EVENTS}]}));
    }
    counts(&worker, "done", 2.0).await;
    assert_eq!(world.database().value("SELECT id FROM events").await, id);
    let ended = world.platziverse(&["task", "send", "--raw", "nonsense"]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(dead_letters(&world, 1).await[0].reason, "invalid_json");
    let file = world.folder().join("tasks.json");
    std::fs::write(&file, r#"{"kind":"event","name":"a"} {"kind":"command","name":"log"}"#)
        .unwrap();
    let file = file.to_str().unwrap();
    let ended = world.platziverse(&["task", "send", "--file", file]).await;
    assert_eq!(ended.stdout, "Sent 2 tasks.\n", "{}", ended.stderr);
    counts(&worker, "done", 4.0).await;
    let states = world.database().value("SELECT string_agg(state, ',') FROM commands").await;
    assert_eq!(states, "succeeded");
}

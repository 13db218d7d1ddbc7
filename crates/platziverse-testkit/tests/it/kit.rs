//! The servers that we give people to begin with, the kit's example and the one in Python, without an
//! aggregator: each test sees them do the same.

use std::time::Duration;

use platziverse_kit::{Options, Server};
use platziverse_testkit::{
    PATIENCE, Process, Proxy, Stream, StreamMessage, World, check, eventually, millis_ago,
};
use serde_json::{Value, json};

const QUEUE: &str = "IN_CHAT";
const STREAM: &str = "OUT_CHAT";
/// So long nobody waits.
const FOR_EVER: &str = "36000";
/// Messages that such a server holds at a time.
const PREFETCH: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Language {
    Rust,
    Python,
}

impl Language {
    /// Starts a server of `chat` whose work takes so many seconds.
    fn server(self, world: &World, seconds: &str) -> Process {
        self.server_at(world, world.amqp_url(), seconds)
    }

    fn server_at(self, world: &World, url: &str, seconds: &str) -> Process {
        match self {
            Self::Rust => world.echo_server(url, &["--delay", &format!("{seconds}s")]),
            Self::Python => world.python_server(url, &["chat", "--delay", seconds]),
        }
    }
}

/// A world in which servers can be started. What must be there is declared as the kit does.
async fn world() -> World {
    let world = World::unmigrated().await;
    let options = Options::new(world.amqp_url()).expect("it is a URL");
    let server = Server::connect(options).await.expect("RabbitMQ is there");
    assert!(server.end(PATIENCE).await);
    world
}

/// Sends what an aggregator sends for Ana.
async fn tell(world: &World, kind: &str, more: Value, headers: Value, body: &str) {
    let mut all = json!({"client": "ana", "session": uuid::Uuid::nil()});
    let mut properties =
        json!({"delivery_mode": 2, "content_type": "application/json", "type": kind});
    for (to, from) in [(&mut all, headers), (&mut properties, more)] {
        to.as_object_mut()
            .expect("an object")
            .extend(from.as_object().cloned().unwrap_or_default());
    }
    properties["headers"] = all;
    world.rabbitmq().publish("INBOUND", "chat", properties, body).await;
}

async fn publish(world: &World, body: &str) {
    tell(world, "publish", json!({}), json!({}), body).await;
}

/// A request of Ana's that is given up after `patience`, or was so long ago if that is negative.
async fn ask_within(world: &World, id: &str, patience: i64, body: &str) {
    let more = json!({"correlation_id": id, "reply_to": "chat.client.ana"});
    let deadline = millis_ago(Duration::ZERO) + patience;
    tell(world, "request", more, json!({"deadline": deadline}), body).await;
}

async fn ask(world: &World, id: &str) {
    ask_within(world, id, 3_600_000, &json!({"ask": id}).to_string()).await;
}

/// Fails the test unless this answers a request of that id, asked by [`ask`]: who answered.
fn answered(message: &StreamMessage, id: &str) -> u64 {
    assert_eq!((message.key.as_str(), message.kind.as_str()), ("chat.client.ana", "reply"));
    assert_eq!((message.correlation_id.as_str(), message.is_persistent), (id, true));
    assert_eq!(message.headers.get("error"), None, "{message:?}");
    assert_eq!(message.body["echo"], json!({"ask": id}));
    message.body["server"].as_u64().expect("a process id")
}

/// Waits until the queue has so many messages that wait, and so many that servers hold.
async fn queue_has(world: &World, waiting: usize, held: usize) {
    eventually(&format!("{QUEUE} has {waiting} and {held}"), PATIENCE, || async {
        let queue = world.rabbitmq().queue(QUEUE).await.ok_or("it is not there")?;
        let seen = (&queue["messages_ready"], &queue["messages_unacknowledged"]);
        check(seen == (&json!(waiting), &json!(held)), || format!("{seen:?}"))
    })
    .await;
}

async fn answers_and_tells(language: Language) {
    let world = world().await;
    let server = language.server(&world, "0");
    let mut stream = world.stream(STREAM).await;
    ask(&world, "1").await;
    assert_eq!(answered(&stream.next().await, "1"), u64::from(server.pid()));

    publish(&world, &json!({"say": "¡Hola!"}).to_string()).await;
    let told = stream.next().await;
    assert_eq!((told.key.as_str(), told.kind.as_str()), ("chat.broadcast", "publish"));
    assert_eq!((told.correlation_id.as_str(), told.is_persistent), ("", true));
    assert_eq!(told.body, json!({"said": "¡Hola!", "client": "ana", "server": server.pid()}));

    // What cannot be done: who waits is told, and what nobody waits for is kept.
    ask_within(&world, "2", 3_600_000, "no JSON").await;
    let failed = stream.next().await;
    assert_eq!((failed.key.as_str(), failed.kind.as_str()), ("chat.client.ana", "reply"));
    assert_eq!((failed.correlation_id.as_str(), &failed.body), ("2", &Value::Null));
    assert!(failed.headers.get("error").is_some_and(|error| !error.is_empty()), "{failed:?}");
    publish(&world, "no JSON either").await;
    let letters = dead_letters(&world, 1).await;
    assert_eq!(letters[0], ("rejected".to_owned(), "no JSON either".to_owned()));
    queue_has(&world, 0, 0).await;
}

/// Why RabbitMQ gave up what it gave up, and what that was.
async fn dead_letters(world: &World, count: usize) -> Vec<(String, String)> {
    eventually("there are dead letters", PATIENCE, || async {
        let letters = world.rabbitmq().try_dead_letters().await?;
        check(letters.len() >= count, || format!("{} of {count}", letters.len()))?;
        let read = letters.into_iter().map(|letter| {
            let death = &letter.headers["x-death"][0];
            assert_eq!(death["queue"], QUEUE, "{death}");
            (death["reason"].as_str().unwrap_or_default().to_owned(), letter.body)
        });
        Ok(read.collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_answers_and_tells() {
    answers_and_tells(Language::Rust).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_python_answers_and_tells() {
    answers_and_tells(Language::Python).await;
}

async fn another_finishes(language: Language) {
    let world = world().await;
    let mut dies = language.server(&world, FOR_EVER);
    ask(&world, "1").await;
    dies.writes("works on", 1).await;
    let other = language.server(&world, "0");
    dies.kill();
    let mut stream = world.stream(STREAM).await;
    assert_eq!(answered(&stream.next().await, "1"), u64::from(other.pid()));
    queue_has(&world, 0, 0).await;
    assert!(stream.try_next(Duration::ZERO).await.is_none(), "each is answered once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_finishes_what_one_died_over() {
    another_finishes(Language::Rust).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_in_python_finishes_what_one_died_over() {
    another_finishes(Language::Python).await;
}

/// The ids that so many replies answer, all of them by that server.
async fn ids(stream: &mut Stream, count: usize, server: &Process) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let message = stream.next().await;
        assert_eq!(answered(&message, &message.correlation_id), u64::from(server.pid()));
        ids.push(message.correlation_id);
    }
    ids
}

async fn holds_no_more_than_its_prefetch(language: Language) {
    let world = world().await;
    let mut slow = language.server(&world, FOR_EVER);
    for id in 0..PREFETCH + 4 {
        ask(&world, &id.to_string()).await;
    }
    queue_has(&world, 4, PREFETCH).await;
    let quick = language.server(&world, "0");
    let mut stream = world.stream(STREAM).await;
    let mut all = ids(&mut stream, 4, &quick).await;
    queue_has(&world, 0, PREFETCH).await;
    slow.kill();
    all.extend(ids(&mut stream, PREFETCH, &quick).await);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), PREFETCH + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_holds_no_more_than_its_prefetch() {
    holds_no_more_than_its_prefetch(Language::Rust).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_python_holds_no_more_than_its_prefetch() {
    holds_no_more_than_its_prefetch(Language::Python).await;
}

async fn does_a_request_once(language: Language) {
    let world = world().await;
    let server = language.server(&world, "0");
    let mut stream = world.stream(STREAM).await;
    ask(&world, "1").await;
    ask(&world, "1").await;
    let [first, again] = [stream.next().await, stream.next().await];
    answered(&first, "1");
    answered(&again, "1");
    assert_eq!(first.body, again.body);
    // The same id of another client is another request.
    let more = json!({"correlation_id": "1", "reply_to": "chat.client.bob", "type": "request"});
    tell(&world, "request", more, json!({"client": "bob"}), "7").await;
    let other = stream.next().await;
    assert_eq!((other.key.as_str(), &other.body["echo"]), ("chat.client.bob", &json!(7)));

    // Nobody waits for this one any more.
    ask_within(&world, "2", -1, "2").await;
    ask(&world, "3").await;
    answered(&stream.next().await, "3");
    queue_has(&world, 0, 0).await;
    let log = server.log();
    assert_eq!(log.matches("works on").count(), 3, "{log}");
    assert_eq!(world.rabbitmq().dead_letters().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_a_request_once_and_in_time() {
    does_a_request_once(Language::Rust).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_python_does_a_request_once_and_in_time() {
    does_a_request_once(Language::Python).await;
}

async fn goes_on_after_a_loss(language: Language, works: usize) {
    let world = world().await;
    let proxy = Proxy::start(world.amqp_address()).await;
    let url = world.amqp_url_at(proxy.address());
    let server = language.server_at(&world, &url, "2");
    let mut stream = world.stream(STREAM).await;
    ask(&world, "1").await;
    server.writes("works on", 1).await;
    proxy.reset();
    answered(&stream.next().await, "1");
    ask(&world, "2").await;
    answered(&stream.next().await, "2");
    assert_eq!(server.log().matches("works on").count(), works + 1, "{}", server.log());
    queue_has(&world, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_connection_does_nothing_twice() {
    goes_on_after_a_loss(Language::Rust, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_python_that_lost_its_connection_begins_again() {
    goes_on_after_a_loss(Language::Python, 2).await;
}

async fn holds_what_is_not_answered(language: Language, says: &str) {
    let world = world().await;
    // What is full refuses, and RabbitMQ says so of every reply.
    let full = json!({"x-max-length": 1, "x-overflow": "reject-publish"});
    world.rabbitmq().declare_queue("full", true, full).await;
    world.rabbitmq().publish("", "full", json!({}), "1").await;
    world.rabbitmq().bind("OUTBOUND", "#", "full").await;
    let mut server = language.server(&world, "0");
    ask(&world, "1").await;
    server.writes(says, 2).await;
    assert_eq!(server.log().matches("works on").count(), 1, "{}", server.log());
    server.kill();
    world.rabbitmq().delete_queue("full").await;
    let other = language.server(&world, "0");
    let mut stream = world.stream(STREAM).await;
    // The stream may have what was refused on behalf of the other queue.
    while answered(&stream.next().await, "1") != u64::from(other.pid()) {}
    queue_has(&world, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_holds_a_request_until_its_reply_is_stored() {
    holds_what_is_not_answered(Language::Rust, "a reply is not sent yet").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_python_holds_a_request_until_its_reply_is_stored() {
    holds_what_is_not_answered(Language::Python, "it tries again").await;
}

async fn poison_is_kept(language: Language) {
    let world = World::unmigrated().await;
    // Servers leave a queue as they find it: two deliveries, and the message is given up.
    let arguments = json!({
        "x-queue-type": "quorum", "x-delivery-limit": 1, "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "platziverse.dead", "x-dead-letter-strategy": "at-least-once",
    });
    world.rabbitmq().declare_queue(QUEUE, true, arguments).await;
    let options = Options::new(world.amqp_url()).expect("it is a URL");
    assert!(Server::connect(options).await.expect("it is used as it is").end(PATIENCE).await);

    publish(&world, "\"poison\"").await;
    let mut server = language.server(&world, FOR_EVER);
    server.writes("works on \"poison\"", 1).await;
    server.kill();
    server.restart().expect("started again");
    server.writes("works on \"poison\"", 2).await;
    server.kill();
    let letters = dead_letters(&world, 1).await;
    assert_eq!(letters, [("delivery_limit".to_owned(), "\"poison\"".to_owned())]);

    let _other = language.server(&world, "0");
    ask(&world, "1").await;
    answered(&world.stream(STREAM).await.next().await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kills_servers_becomes_a_dead_letter() {
    poison_is_kept(Language::Rust).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kills_servers_in_python_becomes_a_dead_letter() {
    poison_is_kept(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_asked_to_end_finishes_what_it_holds() {
    let world = world().await;
    let mut server = Language::Rust.server(&world, "2");
    ask(&world, "1").await;
    server.writes("works on", 1).await;
    server.signal("TERM");
    let status = server.ended().await;
    assert!(status.success(), "{status}: {}", server.log());
    let mut stream = world.stream(STREAM).await;
    assert_eq!(answered(&stream.next().await, "1"), u64::from(server.pid()));
    queue_has(&world, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_need_not_wait_for_an_aggregator() {
    let world = World::unmigrated().await;
    // The one in Python makes nothing, and tries again until the other has.
    let python = Language::Python.server(&world, "0");
    python.writes("it tries again", 2).await;
    let rust = Language::Rust.server(&world, FOR_EVER);
    rust.writes("rabbitmq, server is ready", 1).await;
    drop(rust);
    ask(&world, "1").await;
    answered(&world.stream(STREAM).await.next().await, "1");
}

//! A vhost for one test, and what tests do in it.

use std::time::Duration;

use bytes::Bytes;
use platziverse_broker::{
    Connection, Consumer, ConsumerOptions, Context, Deliveries, Delivery, Lane, Outcome, Outgoing,
    Publisher, PublisherOptions, Topology, connect,
};
use platziverse_config::{AmqpConfig, IngestConfig, Layers, Settings};
use tokio::sync::oneshot;
use uuid::Uuid;

pub(crate) const OPTIONS: PublisherOptions = PublisherOptions {
    role: "publisher",
    batch_records: 256,
    batch_bytes: 128 << 10,
    window: 4,
    buffer_bytes: 64 << 20,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A vhost of its own, deleted at the end.
pub(crate) struct World {
    pub(crate) amqp: AmqpConfig,
    management: String,
    vhost: String,
}

fn variable(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "how scripts/test tells tests where servers are")]
    let value = std::env::var(name);
    value.unwrap_or_else(|_| panic!("{name} is not set: run the tests with scripts/test"))
}

impl World {
    pub(crate) fn new() -> Self {
        Self::at(variable("TEST_AMQP_URL"), variable("TEST_MANAGEMENT_URL"))
    }

    /// One in another RabbitMQ.
    pub(crate) fn at(url: String, management: String) -> Self {
        let env = vec![("PLATZIVERSE_AMQP__URL".to_owned(), url)];
        let layers = Layers { env, dir: "/nonexistent".into(), ..Layers::default() };
        let mut amqp = Settings::load(&layers).unwrap().settings.amqp;
        let vhost = format!("test-broker-{}", Uuid::new_v4().simple());
        amqp.vhost.clone_from(&vhost);
        amqp.url = None;
        let world = Self { amqp, management, vhost };
        world.call("PUT", &format!("vhosts/{}", world.vhost), "{}");
        world.permit_reading(".*");
        world
    }

    /// Calls the management API; the answer is JSON, or null.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let text = self.try_call(method, path, body);
        let text = text.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn try_call(&self, method: &str, path: &str, body: &str) -> Result<String, ureq::Error> {
        let url = format!("{}/api/{path}", self.management.trim_end_matches('/'));
        let (user, address) = url.trim_start_matches("http://").split_once('@').unwrap();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{address}"))
            .header("authorization", format!("Basic {}", base64(user.as_bytes())))
            .header("content-type", "application/json")
            .body(body.to_owned())
            .unwrap();
        let agent: ureq::Agent =
            ureq::Agent::config_builder().allow_non_standard_methods(true).build().into();
        agent.run(request)?.body_mut().read_to_string()
    }

    pub(crate) fn context(&self, config: &IngestConfig) -> Context {
        self.context_of(Topology::for_ingest(config, &[]))
    }

    pub(crate) fn context_of(&self, topology: Topology) -> Context {
        let name = format!("platziverse-test@{}", Uuid::new_v4().simple());
        Context::standalone(self.amqp.clone(), &name, topology)
    }

    pub(crate) async fn operator(&self) -> Connection {
        connect(&self.amqp, "platziverse-test-operator").await.unwrap()
    }

    /// The connections to this vhost, by the names that RabbitMQ gives them.
    pub(crate) fn connections(&self) -> Vec<String> {
        let all = self.call("GET", &format!("vhosts/{}/connections", self.vhost), "");
        let names = all.as_array().into_iter().flatten();
        names.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
    }

    /// Has RabbitMQ close the `count` connections to this vhost, and says which they were. It lists
    /// a new one only after up to 5 s.
    pub(crate) async fn close_connections(&self, count: usize) -> Vec<String> {
        eventually("all are listed", async || self.connections().len() >= count).await;
        let names = self.connections();
        for name in &names {
            self.close_connection(name);
        }
        names
    }

    fn close_connection(&self, name: &str) {
        let path = format!("connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
        self.call("DELETE", &path, "");
    }

    /// Has RabbitMQ close the one connection of a context, once it lists it.
    pub(crate) async fn close_connection_of(&self, context: &Context) {
        let listed = || {
            let all = self.call("GET", &format!("vhosts/{}/connections", self.vhost), "");
            let all = all.as_array().cloned().unwrap_or_default();
            let own = |one: &&serde_json::Value| one["user_provided_name"] == *context.name;
            all.iter().find(own).and_then(|one| one["name"].as_str().map(str::to_owned))
        };
        eventually("it is listed", async || listed().is_some()).await;
        self.close_connection(&listed().unwrap());
    }

    /// What the user of the tests may consume, and bind: what matches.
    pub(crate) fn permit_reading(&self, pattern: &str) {
        let path = format!("permissions/{}/{}", self.vhost, self.amqp.username);
        let body = serde_json::json!({ "configure": ".*", "write": ".*", "read": pattern });
        self.call("PUT", &path, &body.to_string());
    }

    /// How many messages are in a queue, once RabbitMQ has counted them.
    pub(crate) fn messages_in(&self, queue: &str) -> Option<u64> {
        let queue = self.call("GET", &format!("queues/{}/{queue}", self.vhost), "");
        queue["messages"].as_u64()
    }

    /// Declares a durable classic queue without arguments.
    pub(crate) fn declare_classic(&self, queue: &str) {
        let path = format!("queues/{}/{queue}", self.vhost);
        self.call("PUT", &path, r#"{"durable": true, "arguments": {}}"#);
    }

    pub(crate) fn queue_type(&self, queue: &str) -> String {
        let queue = self.call("GET", &format!("queues/{}/{queue}", self.vhost), "");
        queue["type"].as_str().unwrap_or_default().to_owned()
    }

    /// The first message of a queue as the management API shows it, which leaves it there.
    pub(crate) fn peek(&self, queue: &str) -> serde_json::Value {
        let body = r#"{"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}"#;
        self.call("POST", &format!("queues/{}/{queue}/get", self.vhost), body)[0].clone()
    }

    pub(crate) fn delete_queue(&self, queue: &str) {
        self.call("DELETE", &format!("queues/{}/{queue}", self.vhost), "");
    }

    pub(crate) fn delete_exchange(&self, exchange: &str) {
        self.call("DELETE", &format!("exchanges/{}/{exchange}", self.vhost), "");
    }

    /// What the user of the tests may publish to the live exchange: keys that match.
    pub(crate) fn permit_live_keys(&self, pattern: &str) {
        self.permit_live(pattern, ".*");
    }

    /// What it may bind to the live exchange: keys that match.
    pub(crate) fn permit_live_bindings(&self, pattern: &str) {
        self.permit_live(".*", pattern);
    }

    fn permit_live(&self, write: &str, read: &str) {
        let path = format!("topic-permissions/{}/{}", self.vhost, self.amqp.username);
        let exchange = platziverse_broker::topology::LIVE;
        let body = serde_json::json!({ "exchange": exchange, "write": write, "read": read });
        self.call("PUT", &path, &body.to_string());
    }

    /// The keys under which a queue is bound to an exchange.
    pub(crate) fn keys(&self, exchange: &str, queue: &str) -> Vec<String> {
        let path = format!("bindings/{}/e/{exchange}/q/{queue}", self.vhost);
        let bindings = self.call("GET", &path, "");
        let keys = bindings.as_array().into_iter().flatten();
        keys.filter_map(|one| one["routing_key"].as_str().map(str::to_owned)).collect()
    }

    pub(crate) fn unbind(&self, exchange: &str, queue: &str, key: &str) {
        let key = key.replace('#', "%23");
        let path = format!("bindings/{}/e/{exchange}/q/{queue}/{key}", self.vhost);
        self.call("DELETE", &path, "");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also when the test has failed, where another panic would hide why.
        let _ = self.try_call("DELETE", &format!("vhosts/{}", self.vhost), "");
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3)
            .fold(0, |group, at| group << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = char::from(DIGITS[group >> (18 - 6 * at) & 63]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// Waits for something, but not forever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(crate) type TestPublisher = Publisher<oneshot::Sender<Outcome>>;

/// A publisher with [`OPTIONS`].
pub(crate) async fn start(context: &Context) -> TestPublisher {
    Publisher::start(context, OPTIONS).await.unwrap()
}

/// A vhost, in which a publisher has started with the default settings.
pub(crate) async fn started() -> (World, Context, TestPublisher) {
    let world = World::new();
    let context = world.context(&IngestConfig::default());
    let publisher = start(&context).await;
    (world, context, publisher)
}

pub(crate) fn telemetry() -> Lane {
    Lane::new("platziverse.telemetry", "agent.message", "agent.message")
}

/// A line whose id is `number`.
pub(crate) async fn publish(
    publisher: &TestPublisher,
    lane: &Lane,
    number: u128,
) -> oneshot::Receiver<Outcome> {
    let (receipt, outcome) = oneshot::channel();
    let line = Bytes::from(format!("{{\"number\":{number}}}\n"));
    let id = Uuid::from_u128(number);
    let outgoing = Outgoing { lane: lane.clone(), id, line, receipt };
    publisher.publish(outgoing).await.unwrap();
    outcome
}

pub(crate) async fn confirmed(outcomes: Vec<oneshot::Receiver<Outcome>>) {
    for outcome in outcomes {
        assert_eq!(soon("confirmed", outcome).await, Ok(Outcome::Confirmed));
    }
}

pub(crate) async fn consume(context: &Context, queue: &str, prefetch: u16) -> Deliveries {
    let options = ConsumerOptions { role: "consumer", queue: queue.to_owned(), prefetch };
    Consumer::start(context, options).await.unwrap()
}

pub(crate) async fn next(deliveries: &mut Deliveries) -> Delivery {
    soon("a delivery", deliveries.next()).await.unwrap()
}

/// The numbers of the lines of a body.
pub(crate) fn numbers(body: &[u8]) -> Vec<u128> {
    let text = std::str::from_utf8(body).unwrap();
    let number = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["number"].as_u64().map(u128::from).unwrap()
    };
    text.lines().map(number).collect()
}

/// Takes the next delivery of the ingest queue and loses the connection.
pub(crate) async fn die_of_the_next(world: &World, config: &IngestConfig) -> Delivery {
    let context = world.context(config);
    let mut deliveries = consume(&context, platziverse_broker::topology::INGEST, 10).await;
    let delivery = next(&mut deliveries).await;
    context.drain.force();
    soon("the end of its connection", context.drain.finished()).await;
    delivery
}

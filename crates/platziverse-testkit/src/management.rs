//! RabbitMQ's management API: what a person sees in the management UI.
//!
//! What begins with `try_` can be asked while RabbitMQ is down; the rest fails the test then.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::DeadLetter;
use crate::http::{self, Answer};
use crate::{name, url};

/// The management API of one RabbitMQ, seen from one vhost. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Management {
    base: String,
    user: String,
    authorization: String,
    vhost: String,
}

/// The name of the dead-letter queue.
const DEAD: &str = "platziverse.dead";

/// How long the API may take to read a queue with very many messages.
const LONG: Duration = Duration::from_secs(120);

/// More messages than a test leaves in a queue.
const ALL: u32 = 1_000_000;

impl Management {
    /// Reads `http://user:password@host:port`.
    pub(crate) fn new(url: &str, vhost: &str) -> Self {
        let rest = url.trim_end_matches('/').strip_prefix("http://");
        let parts = rest.and_then(|rest| rest.rsplit_once('@'));
        let (credentials, host) = parts.unwrap_or_else(|| {
            panic!("the management URL must look like http://user:password@host:port")
        });
        let user = credentials.split(':').next().unwrap_or_default();
        Self {
            base: format!("http://{host}/api"),
            user: user.to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(credentials)),
            vhost: vhost.to_owned(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        url::host(&self.base)
    }

    /// The `Authorization` of its requests.
    pub fn authorization(&self) -> &str {
        &self.authorization
    }

    /// Makes the vhost and gives the user all permissions in it.
    pub(crate) fn make_vhost(&self) {
        self.must("PUT", &format!("/vhosts/{}", self.vhost), Some(json!({})));
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.must("PUT", &format!("/permissions/{}/{}", self.vhost, self.user), Some(all));
    }

    /// Removes the vhost with all that is in it, and ends its connections.
    pub(crate) fn remove_vhost(&self) {
        // The sweep of a later run removes what stays behind.
        let _ = self.request("DELETE", &format!("/vhosts/{}", self.vhost), None, http::SHORT);
    }

    /// Removes the vhosts that killed tests left behind.
    pub(crate) fn sweep(&self) {
        let vhosts = self.must("GET", "/vhosts?columns=name", None).json();
        let names = vhosts.as_array().into_iter().flatten().filter_map(|v| v["name"].as_str());
        for name in names.filter(|name| name::is_left_behind(name)) {
            let _ = self.request("DELETE", &format!("/vhosts/{name}"), None, http::SHORT);
        }
    }

    /// Whether RabbitMQ has a vhost of this name.
    pub async fn has_vhost(&self, name: &str) -> bool {
        self.call("GET", format!("/vhosts/{name}"), None).await.status == 200
    }

    /// What the API says about a queue; `None` if there is no such queue. Its counts are some
    /// seconds old.
    pub async fn queue(&self, name: &str) -> Option<Value> {
        let answer = self.call("GET", format!("/queues/{}/{name}", self.vhost), None).await;
        match answer.status {
            200 => Some(answer.json()),
            404 => None,
            _ => panic!("{}", unexpected(&format!("queue {name}"), &answer)),
        }
    }

    /// What the vhost has of a kind: `exchanges`, `queues`, `bindings`.
    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let answer = self.call("GET", format!("/{kind}/{}", self.vhost), None).await;
        answer.json().as_array().cloned().unwrap_or_default()
    }

    /// The names of the open connections, as their clients chose them.
    pub async fn connection_names(&self) -> Vec<String> {
        let answer = self.call("GET", format!("/vhosts/{}/connections", self.vhost), None).await;
        let name =
            |c: &Value| c["client_properties"]["connection_name"].as_str().map(str::to_owned);
        answer.json().as_array().into_iter().flatten().filter_map(name).collect()
    }

    /// Declares a queue.
    pub async fn declare_queue(&self, name: &str, durable: bool, arguments: Value) {
        let body = json!({"durable": durable, "auto_delete": false, "arguments": arguments});
        let path = format!("/queues/{}/{name}", self.vhost);
        Self::done("declaring", name, self.try_call("PUT", path, Some(body)).await);
    }

    /// Binds a queue to an exchange.
    pub async fn bind(&self, exchange: &str, key: &str, queue: &str) {
        let path = format!("/bindings/{}/e/{exchange}/q/{queue}", self.vhost);
        let body = json!({"routing_key": key});
        Self::done("binding", queue, self.try_call("POST", path, Some(body)).await);
    }

    /// Deletes a queue.
    pub async fn delete_queue(&self, name: &str) {
        let path = format!("/queues/{}/{name}", self.vhost);
        Self::done("deleting", name, self.try_call("DELETE", path, None).await);
    }

    /// Removes all messages of a queue that nobody holds.
    pub async fn purge(&self, queue: &str) {
        let path = format!("/queues/{}/{queue}/contents", self.vhost);
        Self::done("purging", queue, self.try_call("DELETE", path, None).await);
    }

    /// Publishes a message; fails the test unless it reaches a queue. An empty `exchange` is the
    /// default one.
    pub async fn publish(&self, exchange: &str, key: &str, properties: Value, body: &str) {
        must(self.try_publish(exchange, key, properties, body).await);
    }

    /// The same, or why it did not reach one, as when the queue is full.
    pub async fn try_publish(
        &self,
        exchange: &str,
        key: &str,
        properties: Value,
        body: &str,
    ) -> Result<(), String> {
        let request = json!({
            "routing_key": key, "properties": properties, "payload": body,
            "payload_encoding": "string",
        });
        let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
        let path = format!("/exchanges/{}/{exchange}/publish", self.vhost);
        let answer = self.try_call("POST", path, Some(request)).await?;
        let routed = answer.status == 200 && answer.json()["routed"] == json!(true);
        let what = format!("publishing to {exchange} with key {key}");
        if routed { Ok(()) } else { Err(unexpected(&what, &answer)) }
    }

    /// Up to `count` messages of a queue, as the API gives them; they stay in it.
    pub async fn peek(&self, queue: &str, count: u32) -> Vec<Value> {
        must(self.try_peek(queue, count).await)
    }

    /// The same, or why it cannot be said.
    pub async fn try_peek(&self, queue: &str, count: u32) -> Result<Vec<Value>, String> {
        let body = json!({"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"});
        let path = format!("/queues/{}/{queue}/get", self.vhost);
        let answer = self.call_within(LONG, "POST", path, Some(body)).await?;
        match answer.status {
            200 => Ok(answer.try_json()?.as_array().cloned().unwrap_or_default()),
            404 => Ok(Vec::new()),
            _ => Err(unexpected(&format!("reading {queue}"), &answer)),
        }
    }

    /// The dead-letter queue; its messages stay in it.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        must(self.try_dead_letters().await)
    }

    /// The same, or why it cannot be said. None if there is no such queue.
    pub async fn try_dead_letters(&self) -> Result<Vec<DeadLetter>, String> {
        self.try_oldest_dead_letters(ALL).await
    }

    /// At most so many, the oldest: for a queue that grows while it is read.
    pub async fn try_oldest_dead_letters(&self, count: u32) -> Result<Vec<DeadLetter>, String> {
        let messages = self.try_peek(DEAD, count).await?;
        Ok(messages.iter().map(DeadLetter::read).collect())
    }

    async fn call(&self, method: &'static str, path: String, body: Option<Value>) -> Answer {
        must(self.try_call(method, path, body).await)
    }

    async fn try_call(
        &self,
        method: &'static str,
        path: String,
        body: Option<Value>,
    ) -> Result<Answer, String> {
        self.call_within(http::SHORT, method, path, body).await
    }

    async fn call_within(
        &self,
        within: Duration,
        method: &'static str,
        path: String,
        body: Option<Value>,
    ) -> Result<Answer, String> {
        let this = self.clone();
        let task = move || this.request(method, &path, body, within);
        tokio::task::spawn_blocking(task).await.map_err(|error| error.to_string())?
    }

    fn done(what: &str, name: &str, answer: Result<Answer, String>) {
        let answer = must(answer);
        assert!(answer.status < 300, "{}", unexpected(&format!("{what} {name}"), &answer));
    }

    fn must(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let answer = must(self.request(method, path, body, http::SHORT));
        assert!(answer.status < 300, "{}", unexpected(&format!("{method} {path}"), &answer));
        answer
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        within: Duration,
    ) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base);
        http::request(method, &url, Some(&self.authorization), body.as_ref(), within)
    }
}

fn must<T>(answer: Result<T, String>) -> T {
    answer.unwrap_or_else(|error| panic!("RabbitMQ's management API: {error}"))
}

fn unexpected(what: &str, answer: &Answer) -> String {
    format!("{what}: {} {}", answer.status, answer.body)
}

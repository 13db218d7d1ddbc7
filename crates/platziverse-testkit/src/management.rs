//! RabbitMQ's management API: what a person sees in the management UI.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::name;

/// The management API of one RabbitMQ, seen from one vhost. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Management {
    base: String,
    user: String,
    authorization: String,
    vhost: String,
}

/// A message of the dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The header `reason`; empty if there is none.
    pub reason: String,
    /// The header `stage`.
    pub stage: String,
    /// The header `error`: the reason for a person.
    pub error: String,
    /// How many records it holds: the header `records`.
    pub records: u64,
    /// All headers.
    pub headers: Value,
    /// The body, as text.
    pub body: String,
}

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

    /// Makes the vhost and gives the user all permissions in it.
    pub(crate) fn make_vhost(&self) {
        self.must("PUT", &format!("/vhosts/{}", self.vhost), Some(json!({})));
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.must("PUT", &format!("/permissions/{}/{}", self.vhost, self.user), Some(all));
    }

    /// Removes the vhost with all that is in it, and ends its connections.
    pub(crate) fn remove_vhost(&self) {
        // The sweep of a later run removes what stays behind.
        let _ = self.request("DELETE", &format!("/vhosts/{}", self.vhost), None);
    }

    /// Removes the vhosts that killed tests left behind.
    pub(crate) fn sweep(&self) {
        let vhosts = self.must("GET", "/vhosts?columns=name", None).json();
        let names = vhosts.as_array().into_iter().flatten().filter_map(|v| v["name"].as_str());
        for name in names.filter(|name| name::is_left_behind(name)) {
            let _ = self.request("DELETE", &format!("/vhosts/{name}"), None);
        }
    }

    /// What the API says about a queue; `None` if there is no such queue. Its counts are some
    /// seconds old.
    pub async fn queue(&self, name: &str) -> Option<Value> {
        let answer = self.call("GET", format!("/queues/{}/{name}", self.vhost), None).await;
        (answer.status == 200).then(|| answer.json())
    }

    /// The names of the open connections, as their clients chose them.
    pub async fn connection_names(&self) -> Vec<String> {
        let answer = self.call("GET", format!("/vhosts/{}/connections", self.vhost), None).await;
        let all = answer.json();
        let connections = all.as_array().into_iter().flatten();
        let name =
            |c: &Value| c["client_properties"]["connection_name"].as_str().map(str::to_owned);
        connections.filter_map(name).collect()
    }

    /// Declares a queue.
    pub async fn declare_queue(&self, name: &str, durable: bool, arguments: Value) {
        let body = json!({"durable": durable, "auto_delete": false, "arguments": arguments});
        let path = format!("/queues/{}/{name}", self.vhost);
        let answer = self.call("PUT", path, Some(body)).await;
        assert!(answer.status < 300, "declaring {name}: {} {}", answer.status, answer.body);
    }

    /// Deletes a queue.
    pub async fn delete_queue(&self, name: &str) {
        let answer = self.call("DELETE", format!("/queues/{}/{name}", self.vhost), None).await;
        assert!(answer.status < 300, "deleting {name}: {} {}", answer.status, answer.body);
    }

    /// Publishes a message; fails the test unless it reaches a queue.
    pub async fn publish(&self, exchange: &str, key: &str, properties: Value, body: &str) {
        let request = json!({
            "routing_key": key, "properties": properties, "payload": body,
            "payload_encoding": "string",
        });
        let path = format!("/exchanges/{}/{exchange}/publish", self.vhost);
        let answer = self.call("POST", path, Some(request)).await;
        assert!(
            answer.status == 200 && answer.json()["routed"] == json!(true),
            "publishing to {exchange} with key {key}: {} {}",
            answer.status,
            answer.body
        );
    }

    /// Up to `count` messages of a queue, as the API gives them; they stay in it.
    pub async fn peek(&self, queue: &str, count: u32) -> Vec<Value> {
        let body = json!({"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"});
        let path = format!("/queues/{}/{queue}/get", self.vhost);
        let answer = self.call("POST", path, Some(body)).await;
        match answer.status {
            200 => answer.json().as_array().cloned().unwrap_or_default(),
            404 => Vec::new(),
            status => panic!("reading {queue}: {status} {}", answer.body),
        }
    }

    /// The dead-letter queue; its messages stay in it.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let messages = self.peek("platziverse.dead", 10_000).await;
        messages.iter().map(DeadLetter::read).collect()
    }

    async fn call(&self, method: &'static str, path: String, body: Option<Value>) -> Answer {
        let this = self.clone();
        let task = move || this.request(method, &path, body);
        let answer = tokio::task::spawn_blocking(task).await.expect("a blocking task ends");
        answer.unwrap_or_else(|error| panic!("RabbitMQ's management API: {error}"))
    }

    fn must(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let answer = self.request(method, path, body);
        let answer = answer.unwrap_or_else(|error| panic!("RabbitMQ's management API: {error}"));
        let Answer { status, body } = &answer;
        assert!(*status < 300, "RabbitMQ's management API: {method} {path}: {status} {body}");
        answer
    }

    fn request(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base);
        http::request(method, &url, Some(&self.authorization), body.as_ref())
    }
}

impl DeadLetter {
    fn read(message: &Value) -> Self {
        let headers = message["properties"]["headers"].clone();
        let text = |name: &str| headers[name].as_str().unwrap_or_default().to_owned();
        let payload = message["payload"].as_str().unwrap_or_default();
        let body = match message["payload_encoding"].as_str() {
            Some("base64") => STANDARD.decode(payload).unwrap_or_default(),
            _ => payload.as_bytes().to_vec(),
        };
        Self {
            reason: text("reason"),
            stage: text("stage"),
            error: text("error"),
            records: headers["records"].as_u64().unwrap_or(1),
            body: String::from_utf8_lossy(&body).into_owned(),
            headers,
        }
    }
}

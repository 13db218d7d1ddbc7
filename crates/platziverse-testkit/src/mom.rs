//! Servers of topics and queues, and what is asked of them over HTTP.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use crate::world::ready;
use crate::{Process, World, free_port};

pub(crate) const PROGRAM: &str = "platziverse-mom";

/// A running server of topics and queues.
#[derive(Debug)]
pub struct Mom {
    process: Process,
    http: SocketAddr,
    grpc: SocketAddr,
    older_grpc: SocketAddr,
}

impl Deref for Mom {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Mom {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Mom {
    /// Where it listens for HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where it listens for gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where it listens for the older system's gRPC.
    pub fn older_grpc(&self) -> SocketAddr {
        self.older_grpc
    }

    /// The service alone, for whoever knows where it listens.
    pub fn into_process(self) -> Process {
        self.process
    }
}

impl World {
    /// Starts a server of topics and queues and waits until it is ready.
    pub async fn mom(&self) -> Mom {
        self.mom_with(&[]).await
    }

    /// The same with more settings (`PLATZIVERSE_MOM__…`).
    pub async fn mom_with(&self, settings: &[(&str, &str)]) -> Mom {
        self.try_mom_with(settings).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it does not become ready.
    pub async fn try_mom_with(&self, settings: &[(&str, &str)]) -> Result<Mom, String> {
        let Mom { process, http, grpc, older_grpc } = self.try_spawn_mom(settings)?;
        Ok(Mom { process: ready(process).await?, http, grpc, older_grpc })
    }

    /// Starts a server of topics and queues.
    pub fn spawn_mom(&self, settings: &[(&str, &str)]) -> Mom {
        self.try_spawn_mom(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_spawn_mom(&self, settings: &[(&str, &str)]) -> Result<Mom, String> {
        let [ops, http, grpc, older_grpc] = std::array::from_fn(|_| free_port());
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url().to_owned()),
            ("PLATZIVERSE_DATABASE__URL", self.database().url().to_owned()),
            ("PLATZIVERSE_OPS__LISTEN", ops.to_string()),
            ("PLATZIVERSE_MOM__LISTEN", http.to_string()),
            ("PLATZIVERSE_MOM__GRPC_LISTEN", grpc.to_string()),
            ("PLATZIVERSE_MOM__OLDER_GRPC_LISTEN", older_grpc.to_string()),
            // All tests come from one address.
            ("PLATZIVERSE_MOM__REGISTRATIONS_PER_ADDRESS", "0".to_owned()),
        ];
        let start = self.prepare(PROGRAM, &[], &own, settings);
        let process = Process::spawn(start, &self.label("mom"), ops, None)?;
        Ok(Mom { process, http, grpc, older_grpc })
    }
}

/// An answer of a server of topics and queues.
#[derive(Clone, Debug)]
pub struct MomAnswer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: ureq::http::HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl MomAnswer {
    /// A header of one line, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Fails the test if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The code of a problem, or what else came.
    pub fn code(&self) -> String {
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(body) if body["code"].is_string() => body["code"].as_str().unwrap_or("").to_owned(),
            _ => format!("{} {}", self.status, self.text()),
        }
    }
}

/// A user who asks over HTTP. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct MomUser {
    agent: Agent,
    base: String,
    key: Option<String>,
    /// The user's id.
    pub id: String,
}

/// Longer than a consumer may wait.
const WITHIN: Duration = Duration::from_secs(90);

impl MomUser {
    /// Becomes a user at that server. Fails the test if it is not let in.
    pub async fn new(server: &Mom) -> Self {
        let mut user = Self::nobody(server);
        let made = user.ask("POST", "/v1/users", b"").await;
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        user.key = made["key"].as_str().map(str::to_owned);
        user.id = made["id"].as_str().unwrap_or_default().to_owned();
        user
    }

    /// Somebody without a key.
    pub fn nobody(server: &Mom) -> Self {
        let agent: Agent = Agent::config_builder()
            .timeout_global(Some(WITHIN))
            .http_status_as_error(false)
            .build()
            .into();
        let base = format!("http://{}", server.http());
        Self { agent, base, key: None, id: String::new() }
    }

    /// The same user, at another server.
    #[must_use]
    pub fn at(&self, server: &Mom) -> Self {
        self.at_address(server.http())
    }

    /// The same user, at a server that is reached at that address.
    #[must_use]
    pub fn at_address(&self, http: SocketAddr) -> Self {
        Self { base: format!("http://{http}"), ..self.clone() }
    }

    /// The same, with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The key.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    /// One request. Fails the test if there is no answer.
    pub async fn ask(&self, method: &str, path: &str, body: &[u8]) -> MomAnswer {
        self.ask_with(method, path, &[], body).await
    }

    /// The same, with headers.
    pub async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> MomAnswer {
        let answer = self.try_ask(method, path, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {}{path}: {error}", self.base))
    }

    /// The same, or why there is no answer.
    pub async fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<MomAnswer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_vec()).map_err(|error| error.to_string())?;
        let agent = self.agent.clone();
        let asking = move || {
            let mut answer = agent.run(request).map_err(|error| error.to_string())?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec();
            Ok(MomAnswer { status, headers, body: body.map_err(|error| error.to_string())? })
        };
        tokio::task::spawn_blocking(asking).await.map_err(|error| error.to_string())?
    }
}

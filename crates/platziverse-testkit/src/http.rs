//! Small HTTP requests.

use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        self.try_json().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The body as JSON, or what is there instead.
    pub fn try_json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.body)
            .map_err(|error| format!("no JSON ({error}): {} {}", self.status, self.body))
    }
}

/// How long an answer may take that needs no work.
pub(crate) const SHORT: Duration = Duration::from_secs(15);

/// The longest body that is read, in bytes.
const BODY_MAX: u64 = 512 * 1024 * 1024;

/// One request, blocking. `Err` is what went wrong before there was an answer.
pub(crate) fn request(
    method: &str,
    url: &str,
    authorization: Option<&str>,
    body: Option<&Value>,
    within: Duration,
) -> Result<Answer, String> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(within))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = Request::builder().method(method).uri(url);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let sent = match body {
        Some(body) => {
            let request = request.header("content-type", "application/json");
            agent.run(request.body(body.to_string()).map_err(|error| error.to_string())?)
        }
        None => agent.run(request.body(()).map_err(|error| error.to_string())?),
    };
    let mut answer = sent.map_err(|error| format!("{method} {}: {error}", without_user(url)))?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(BODY_MAX).read_to_string();
    Ok(Answer { status, body: body.map_err(|error| error.to_string())? })
}

/// The same, away from the runtime's thread.
pub(crate) async fn get(url: String) -> Result<Answer, String> {
    let task = tokio::task::spawn_blocking(move || request("GET", &url, None, None, SHORT));
    task.await.map_err(|error| error.to_string())?
}

fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

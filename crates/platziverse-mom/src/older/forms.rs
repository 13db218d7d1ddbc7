//! The older wire over HTTP. Whatever happens, the status is 200.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Extension, Router};
use platziverse_service::listener::Peer;
use tokio::sync::Semaphore;
use url::form_urlencoded;

use crate::core::{Caller, Code, Core, ObjectKind};
use crate::http::{UNCHECKED_BYTES_MAX, body};
use crate::older::number::{DONE, number};
use crate::older::python;
use crate::older::verbs::Verbs;

/// The header with the user's key.
const KEY: &str = "key";
/// Bytes of a letter in a form, at most: `%20`.
const ESCAPED: usize = 3;
/// Bytes of what else is in a form than the message.
const AROUND_MESSAGE: usize = 4_096;

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    Delete,
    List,
    Subscribe,
    Publish,
    Consume,
}

const VERBS: [Verb; 6] =
    [Verb::Create, Verb::Delete, Verb::List, Verb::Subscribe, Verb::Publish, Verb::Consume];

impl Verb {
    fn path(self, kind: ObjectKind) -> String {
        match self {
            Self::Create => format!("/create_{kind}"),
            Self::Delete => format!("/delete_{kind}"),
            Self::List => format!("/list_{kind}s"),
            Self::Subscribe => format!("/subscribe_{kind}"),
            Self::Publish => format!("/publish_{kind}"),
            Self::Consume => format!("/consume_{kind}"),
        }
    }
}

/// The paths of the older wire; none if it is switched off.
pub fn router(core: Core) -> Router {
    if !core.settings().older_wire {
        return Router::new();
    }
    let forms = Forms::new(core);
    let mut router = Router::new().route("/create_user", get(create_user));
    for kind in [ObjectKind::Topic, ObjectKind::Queue] {
        for verb in VERBS {
            let answer = move |Extension(forms): Extension<Forms>, request: Request| async move {
                told(forms.answer(kind, verb, request).await)
            };
            router = router.route(&verb.path(kind), post(answer));
        }
    }
    router.layer(Extension(forms))
}

async fn create_user(
    Extension(forms): Extension<Forms>,
    Extension(peer): Extension<Peer>,
) -> String {
    told(forms.verbs.create_user(Some(peer.0.ip())).await)
}

/// The answer, or how a failure is told.
fn told(result: Result<String, Code>) -> String {
    result.unwrap_or_else(|code| format!("Request returned error code {}", number(code)))
}

/// What every request is given.
#[derive(Clone)]
struct Forms {
    core: Core,
    verbs: Verbs,
    /// Bytes of bodies that may be read at a time.
    bodies: Arc<Semaphore>,
}

impl Forms {
    fn new(core: Core) -> Self {
        let bodies = Arc::new(Semaphore::new(body::BYTES_MAX));
        Self { verbs: Verbs::new(&core), core, bodies }
    }

    async fn answer(&self, kind: ObjectKind, verb: Verb, request: Request) -> Result<String, Code> {
        let (parts, body) = request.into_parts();
        let max = self.core.settings().body_bytes_max * ESCAPED + AROUND_MESSAGE;
        let key = key(&parts.headers)?;
        let is_small = body::announced(&body).is_some_and(|length| length <= UNCHECKED_BYTES_MAX);
        if !is_small && let Err(refusal) = self.core.check_key(&Caller::of(key)).await {
            return Err(refusal.code);
        }
        let held = body::read(body, max, &self.bodies).await;
        let held = held.map_err(|refusal| refusal.code)?;
        let Form { name, message } = Form::read(&held.bytes, kind);
        let (name, verbs) = (name.as_deref(), &self.verbs);
        let said = match verb {
            Verb::Create => {
                verbs.create(key, kind, name).await?;
                format!("The {kind} was created")
            }
            Verb::Delete => {
                verbs.delete(key, kind, name).await?;
                format!("The {kind} was deleted")
            }
            Verb::Subscribe => {
                verbs.subscribe(key, kind, name).await?;
                format!("Subscribed to the {kind}")
            }
            Verb::Publish => {
                verbs.publish(key, kind, name, message).await?;
                format!("The message was published to the {kind}")
            }
            Verb::List => {
                let names = verbs.list(key, kind).await?;
                return Ok(python::list(names.iter().map(String::as_str)));
            }
            Verb::Consume => return verbs.consume(key, kind, name).await,
        };
        Ok(format!("{said}: code {DONE}"))
    }
}

fn key(headers: &HeaderMap) -> Result<&str, Code> {
    headers.get(KEY).and_then(|key| key.to_str().ok()).ok_or(Code::UnknownKey)
}

/// The fields of a form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Form {
    name: Option<String>,
    message: Option<String>,
}

impl Form {
    /// Of a field that is there twice, the first counts.
    fn read(body: &[u8], kind: ObjectKind) -> Self {
        let name = match kind {
            ObjectKind::Topic => "topic_name",
            ObjectKind::Queue => "queue_name",
        };
        let mut form = Self::default();
        for (field, value) in form_urlencoded::parse(body) {
            if field == name {
                form.name.get_or_insert_with(|| value.into_owned());
            } else if field == "message" {
                form.message.get_or_insert_with(|| value.into_owned());
            }
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_that_clients_know() {
        let paths = |kind| VERBS.map(|verb| verb.path(kind));
        let topics = ["create_topic", "delete_topic", "list_topics", "subscribe_topic"];
        assert_eq!(paths(ObjectKind::Topic)[..4], topics.map(|path| format!("/{path}")));
        let queues = ["publish_queue", "consume_queue"];
        assert_eq!(paths(ObjectKind::Queue)[4..], queues.map(|path| format!("/{path}")));
    }

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let read = |body: &str| {
            let Form { name, message } = Form::read(body.as_bytes(), ObjectKind::Topic);
            (name.unwrap_or_else(|| "-".to_owned()), message.unwrap_or_else(|| "-".to_owned()))
        };
        let pair = |name: &str, message: &str| (name.to_owned(), message.to_owned());
        assert_eq!(read("topic_name=a&message=b+c%26%C3%A9"), pair("a", "b c&é"));
        assert_eq!(read("message=&topic_name=a"), pair("a", ""));
        assert_eq!(read("topic_name=a&topic_name=b&other=c"), pair("a", "-"));
        assert_eq!(read("queue_name=a"), pair("-", "-"));
        assert_eq!(read(""), pair("-", "-"));
        assert_eq!(read("{\"topic_name\": \"a\"}"), pair("-", "-"));
        let queue = Form::read(b"queue_name=q&topic_name=t", ObjectKind::Queue);
        assert_eq!(queue.name.as_deref(), Some("q"));
    }

    #[test]
    fn failures_are_told_in_one_form() {
        assert_eq!(told(Ok("x".to_owned())), "x");
        assert_eq!(told(Err(Code::Empty)), "Request returned error code 400");
        assert_eq!(told(Err(Code::UnknownKey)), "Request returned error code 500");
    }
}

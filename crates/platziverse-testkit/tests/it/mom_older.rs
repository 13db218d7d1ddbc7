//! The older system's wire: every verb and every error, by form posts and by gRPC.

use std::net::SocketAddr;

use platziverse_rpc::chasqui::queue_service_client::QueueServiceClient;
use platziverse_rpc::chasqui::topic_service_client::TopicServiceClient;
use platziverse_rpc::chasqui::user_service_client::UserServiceClient;
use platziverse_rpc::chasqui::{
    CodeResponse, ListResponse, MessageResponse, Null, PublishQueueRequest, PublishTopicRequest,
    QueueRequest, TopicRequest,
};
use platziverse_testkit::{Mom, PATIENCE, World, check, eventually};
use tonic::transport::{Channel, Endpoint};
use ureq::Agent;
use ureq::http::Request;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Topic,
    Queue,
}

use Kind::{Queue, Topic};

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Topic => "topic",
            Queue => "queue",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    Delete,
    List,
    Subscribe,
    Publish,
    Consume,
}

use Verb::{Consume, Create, Delete, List, Publish, Subscribe};

const VERBS: [Verb; 6] = [Create, Delete, List, Subscribe, Publish, Consume];

/// What a client is told: a code and, if all went well, the message or the list.
type Told = (i32, Option<String>);

const DONE: Told = (200, None);
const NOT_NOW: Told = (400, None);
const WRONG: Told = (500, None);

fn text(text: &str) -> Told {
    (200, Some(text.to_owned()))
}

/// One way to a server.
enum Wire {
    Http(SocketAddr),
    Grpc(Channel),
}

impl Wire {
    async fn grpc(mom: &Mom) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", mom.older_grpc()));
        let endpoint = endpoint.expect("an address");
        Self::Grpc(endpoint.connect().await.expect("connected"))
    }

    async fn create_user(&self) -> Told {
        match self {
            Self::Http(address) => {
                let told = http(*address, "GET", "/create_user", None, None).await;
                (told.0, told.1)
            }
            Self::Grpc(channel) => {
                let answer = UserServiceClient::new(channel.clone()).create(Null {}).await;
                let answer = answer.expect("an answer").into_inner();
                (answer.code, (answer.code == 200).then_some(answer.key))
            }
        }
    }

    /// A new user's key.
    async fn user(&self) -> String {
        let (code, key) = self.create_user().await;
        let key = key.expect("a key");
        let plain = key.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        assert!(code == 200 && key.len() == 10 && plain, "{code} {key:?}");
        key
    }

    /// Asks for something; what is not given is not sent.
    async fn ask(
        &self,
        (verb, kind): (Verb, Kind),
        key: Option<&str>,
        name: Option<&str>,
        message: Option<&str>,
    ) -> Told {
        match self {
            Self::Http(address) => form(*address, (verb, kind), key, name, message).await,
            Self::Grpc(channel) => {
                let key = key.unwrap_or_default().to_owned();
                let name = name.map(str::to_owned);
                let message = message.unwrap_or_default().to_owned();
                match kind {
                    Topic => topic(channel, verb, key, name, message).await,
                    Queue => queue(channel, verb, key, name, message).await,
                }
            }
        }
    }
}

async fn form(
    address: SocketAddr,
    (verb, kind): (Verb, Kind),
    key: Option<&str>,
    name: Option<&str>,
    message: Option<&str>,
) -> Told {
    let word = kind.word();
    let path = match verb {
        Create => format!("/create_{word}"),
        Delete => format!("/delete_{word}"),
        List => format!("/list_{word}s"),
        Subscribe => format!("/subscribe_{word}"),
        Publish => format!("/publish_{word}"),
        Consume => format!("/consume_{word}"),
    };
    let fields = [(format!("{word}_name"), name), ("message".to_owned(), message)];
    let fields = fields.iter().filter_map(|(field, value)| Some((field, (*value)?)));
    let fields: Vec<_> =
        fields.map(|(field, value)| format!("{field}={}", escaped(value))).collect();
    let told = http(address, "POST", &path, key, Some(fields.join("&"))).await;
    match (verb, told) {
        (List | Consume, told) => told,
        (_, (200, Some(sentence))) => {
            assert!(sentence.ends_with(" 200"), "{path}: {sentence:?}");
            DONE
        }
        (_, told) => told,
    }
}

/// As browsers and Python's `requests` write it.
fn escaped(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}

/// A request whose answer is told in plain text, with the status 200, whatever happens.
async fn http(
    address: SocketAddr,
    method: &'static str,
    path: &str,
    key: Option<&str>,
    body: Option<String>,
) -> Told {
    let (status, kind, body) = raw(address, method, path, key, body).await;
    assert_eq!((status, &*kind), (200, "text/plain; charset=utf-8"), "{path}: {body}");
    match body.strip_prefix("Request returned error code ") {
        Some(code) => (code.parse().expect("a number"), None),
        None => (200, Some(body)),
    }
}

/// A request: the status, the content type, and the body.
async fn raw(
    address: SocketAddr,
    method: &'static str,
    path: &str,
    key: Option<&str>,
    body: Option<String>,
) -> (u16, String, String) {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    if let Some(key) = key {
        request = request.header("key", key);
    }
    let asking = tokio::task::spawn_blocking(move || {
        let config = Agent::config_builder();
        let config = config.timeout_global(Some(PATIENCE)).http_status_as_error(false);
        let agent = Agent::from(config.build());
        let form = "application/x-www-form-urlencoded";
        match body {
            Some(body) => {
                let request = request.header("content-type", form).body(body);
                agent.run(request.expect("a request"))
            }
            None => agent.run(request.body(()).expect("a request")),
        }
    });
    let mut answer = asking.await.expect("no panic").expect("an answer");
    let kind =
        answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    let body = answer.body_mut().read_to_string().expect("a body");
    (answer.status().as_u16(), kind.unwrap_or_default(), body)
}

async fn topic(
    channel: &Channel,
    verb: Verb,
    key: String,
    name: Option<String>,
    message: String,
) -> Told {
    let mut client = TopicServiceClient::new(channel.clone());
    let request = TopicRequest { key: key.clone(), topic_name: name.clone() };
    match verb {
        Create => coded(client.create(request).await),
        Delete => coded(client.delete(request).await),
        List => listed(client.list_topics(request).await),
        Subscribe => coded(client.subscribe_topic(request).await),
        Publish => {
            let request = PublishTopicRequest { key, topic_name: name, message };
            coded(client.publish_topic(request).await)
        }
        Consume => consumed(client.consume_topic(request).await),
    }
}

async fn queue(
    channel: &Channel,
    verb: Verb,
    key: String,
    name: Option<String>,
    message: String,
) -> Told {
    let mut client = QueueServiceClient::new(channel.clone());
    let request = QueueRequest { key: key.clone(), queue_name: name.clone() };
    match verb {
        Create => coded(client.create(request).await),
        Delete => coded(client.delete(request).await),
        List => listed(client.list_queues(request).await),
        Subscribe => coded(client.subscribe_queue(request).await),
        Publish => {
            let request = PublishQueueRequest { key, queue_name: name, message };
            coded(client.publish_queue(request).await)
        }
        Consume => consumed(client.consume_queue(request).await),
    }
}

type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

fn coded(answer: Answer<CodeResponse>) -> Told {
    (answer.expect("an answer").into_inner().code, None)
}

fn listed(answer: Answer<ListResponse>) -> Told {
    let ListResponse { code, names } = answer.expect("an answer").into_inner();
    let names: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    (code, (code == 200).then(|| format!("[{}]", names.join(", "))))
}

fn consumed(answer: Answer<MessageResponse>) -> Told {
    let MessageResponse { code, message } = answer.expect("an answer").into_inner();
    (code, (code == 200).then_some(message))
}

/// Walks two users through everything, over these wires of theirs.
async fn walk(kind: Kind, [ours, theirs]: [&Wire; 2]) {
    let (us, them) = (&*ours.user().await, &*theirs.user().await);
    let we = async |verb, name, message| ours.ask((verb, kind), Some(us), name, message).await;
    let they =
        async |verb, name, message| theirs.ask((verb, kind), Some(them), name, message).await;
    let name = Some("weather in Bogotá");
    for verb in [Delete, Subscribe, Publish, Consume] {
        assert_eq!(we(verb, name, Some("x")).await, WRONG, "{verb:?} of what is not there");
    }
    assert_eq!(we(List, None, None).await, text("[]"));
    assert_eq!(we(Create, name, None).await, DONE);
    assert_eq!(we(Create, name, None).await, WRONG);
    assert_eq!(they(Create, name, None).await, WRONG);
    assert_eq!(we(Create, Some("b"), None).await, DONE);
    assert_eq!(we(List, None, None).await, text("['b', 'weather in Bogotá']"));
    assert_eq!(they(List, None, None).await, text("[]"));

    assert_eq!(we(Consume, name, None).await, NOT_NOW);
    assert_eq!(they(Consume, name, None).await, NOT_NOW);
    assert_eq!(we(Subscribe, name, None).await, NOT_NOW);
    assert_eq!(they(Publish, name, Some("hello, wörld & = % + 'x'\n")).await, DONE);
    assert_eq!(we(Consume, name, None).await, text("hello, wörld & = % + 'x'\n"));
    assert_eq!(we(Consume, name, None).await, NOT_NOW);
    assert_eq!(they(Subscribe, name, None).await, DONE);
    assert_eq!(they(Subscribe, name, None).await, NOT_NOW);

    for message in ["1", "", "3"] {
        assert_eq!(we(Publish, name, Some(message)).await, DONE);
    }
    // Of a topic everybody else gets all; of a queue, one gets each.
    assert_eq!(they(Consume, name, None).await, text("1"));
    if kind == Topic {
        assert_eq!(we(Consume, name, None).await, NOT_NOW);
        assert_eq!(they(Consume, name, None).await, text(""));
    } else {
        assert_eq!(we(Consume, name, None).await, text(""));
    }
    assert_eq!(they(Consume, name, None).await, text("3"));
    assert_eq!(they(Consume, name, None).await, NOT_NOW);

    assert_eq!(they(Delete, name, None).await, WRONG);
    assert_eq!(we(Delete, name, None).await, DONE);
    for verb in [Delete, Subscribe, Publish, Consume] {
        assert_eq!(they(verb, name, Some("x")).await, WRONG, "{verb:?} of what is deleted");
    }
    assert_eq!(we(Delete, Some("b"), None).await, DONE);
    assert_eq!(we(List, None, None).await, text("[]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_clients_do_all_they_did_on_any_server() {
    let world = World::start().await;
    let (first, second) = (world.mom().await, world.mom().await);
    let (http, grpc) = (Wire::Http(first.http()), Wire::grpc(&second).await);
    for kind in [Topic, Queue] {
        walk(kind, [&http, &http]).await;
        walk(kind, [&grpc, &grpc]).await;
        walk(kind, [&http, &grpc]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_clients_that_say_too_little_or_too_much_are_told_500() {
    let world = World::start().await;
    let mom = world.mom_with(&[("PLATZIVERSE_MOM__BODY_BYTES_MAX", "2048")]).await;
    let (http, grpc) = (Wire::Http(mom.http()), Wire::grpc(&mom).await);
    for (wire, kind) in [(&http, Topic), (&grpc, Topic), (&http, Queue), (&grpc, Queue)] {
        let key = wire.user().await;
        assert_eq!(wire.ask((Create, kind), Some(&key), Some("a"), None).await, DONE);
        for verb in VERBS {
            let ask = async |key, name, message| wire.ask((verb, kind), key, name, message).await;
            let seen = format!("{verb:?} {kind:?}");
            assert_eq!(ask(Some("0123456789"), Some("a"), Some("x")).await, WRONG, "{seen}");
            assert_eq!(ask(None, Some("a"), Some("x")).await, WRONG, "{seen}");
            if verb != List {
                assert_eq!(ask(Some(&key), None, Some("x")).await, WRONG, "{seen}");
                assert_eq!(ask(Some(&key), Some(" a\n"), Some("x")).await, WRONG, "{seen}");
            }
        }
        let publish = async |message: &str| {
            wire.ask((Publish, kind), Some(&key), Some("a"), Some(message)).await
        };
        for bytes in [2_049, 1_000_000] {
            assert_eq!(publish(&"x".repeat(bytes)).await, WRONG, "{bytes}");
        }
        // In a form it has three times as many bytes.
        assert_eq!(publish(&"ü".repeat(1_024)).await, DONE);
        assert_eq!(wire.ask((Delete, kind), Some(&key), Some("a"), None).await, DONE);
    }
    let key = http.user().await;
    assert_eq!(http.ask((Create, Queue), Some(&key), Some("a"), None).await, DONE);
    assert_eq!(http.ask((Publish, Queue), Some(&key), Some("a"), None).await, WRONG);
    let json = Some("{\"queue_name\": \"a\"}".to_owned());
    assert_eq!(self::http(mom.http(), "POST", "/consume_queue", Some(&key), json).await, WRONG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_clients_ask_until_there_is_something() {
    let world = World::start().await;
    let mom = world.mom().await;
    let wire = Wire::Http(mom.http());
    let key = wire.user().await;
    assert_eq!(wire.ask((Create, Queue), Some(&key), Some("it's"), None).await, DONE);
    let names = wire.ask((List, Queue), Some(&key), None, None).await;
    assert_eq!(names, text("[\"it's\"]"));
    let asking = async || {
        eventually("it is no longer 400", PATIENCE, || async {
            let told = wire.ask((Consume, Queue), Some(&key), Some("it's"), None).await;
            check(told != NOT_NOW, || "it is".to_owned())?;
            Ok::<_, String>(told)
        })
        .await
    };
    let publishing = async || {
        let published = wire.ask((Publish, Queue), Some(&key), Some("it's"), Some("now")).await;
        assert_eq!(published, DONE);
    };
    let (told, ()) = tokio::join!(asking(), publishing());
    assert_eq!(told, text("now"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_wire_can_be_switched_off() {
    let world = World::start().await;
    let mom = world.mom_with(&[("PLATZIVERSE_MOM__OLDER_WIRE", "false")]).await;
    let (status, ..) = raw(mom.http(), "GET", "/create_user", None, None).await;
    assert_eq!(status, 404);
    let form = Some("topic_name=a".to_owned());
    let (status, ..) = raw(mom.http(), "POST", "/create_topic", Some("k"), form).await;
    assert_eq!(status, 404);
    let closed = tokio::net::TcpStream::connect(mom.older_grpc()).await;
    assert!(closed.is_err(), "something listens");
}

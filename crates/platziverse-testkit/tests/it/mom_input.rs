//! Bad input to topics and queues, limits, and the document that describes them.

use std::collections::BTreeSet;
use std::time::Duration;

use platziverse_testkit::{MomUser, PATIENCE, RawClient, World};
use serde_json::{Value, json};

use crate::mom::{consume, create, publish, user};

/// A request, and what is wrong with it.
type Wrong<'a> = (&'a str, &'a str, &'a [u8], u16, &'a str, &'a str);

const OBJECTS: &[Wrong<'_>] = &[
    ("POST", "/v1/queues", b"", 400, "invalid_request", "EOF"),
    ("POST", "/v1/queues", b"name=x", 400, "invalid_request", "JSON"),
    ("POST", "/v1/queues", b"[]", 400, "invalid_request", "JSON"),
    ("POST", "/v1/queues", br#"{"name": "x"} trailing"#, 400, "invalid_request", "trailing"),
    ("POST", "/v1/queues", br#"{"nmae": "x"}"#, 400, "invalid_request", "unknown field `nmae`"),
    ("POST", "/v1/queues", br#"{"name": 5}"#, 400, "invalid_request", "expected a string"),
    ("POST", "/v1/queues", br#"{}"#, 400, "invalid_request", "missing field `name`"),
    ("POST", "/v1/queues", br#"{"name": "x", "max_length": -1}"#, 400, "invalid_request", "-1"),
    ("POST", "/v1/queues", br#"{"name": "x", "max_length": 0}"#, 400, "invalid_request", "from 1"),
    (
        "POST",
        "/v1/queues",
        br#"{"name": "x", "message_ttl": "soon"}"#,
        400,
        "invalid_request",
        "30s",
    ),
    (
        "POST",
        "/v1/queues",
        br#"{"name": "x", "message_ttl": "99years"}"#,
        400,
        "invalid_request",
        "30 days",
    ),
    (
        "POST",
        "/v1/queues",
        br#"{"name": "x", "delivery_limit": 1.5}"#,
        400,
        "invalid_request",
        "1.5",
    ),
    ("POST", "/v1/queues", b"\xff\xfe", 400, "invalid_request", "JSON"),
    ("POST", "/v1/queues", br#"{"name": ""}"#, 400, "invalid_name", "empty"),
    ("POST", "/v1/queues", br#"{"name": " x"}"#, 400, "invalid_name", "white space"),
    ("POST", "/v1/queues", br#"{"name": "x\u0000"}"#, 400, "invalid_name", "control"),
    ("POST", "/v1/queues", br#"{"name": "x\n"}"#, 400, "invalid_name", "control"),
    ("GET", "/v1/queues/nobody", b"", 404, "unknown_queue", "\"nobody\""),
    ("GET", "/v1/topics/q", b"", 404, "unknown_topic", "\"q\""),
    ("GET", "/v1/queues/%ff", b"", 400, "invalid_name", "name in the path"),
    ("GET", "/v1/queues/%00", b"", 400, "invalid_name", "control"),
    ("GET", "/v1/queues?limit=0", b"", 400, "invalid_request", "from 1 to 200"),
    ("GET", "/v1/queues?limit=201", b"", 400, "invalid_request", "from 1 to 200"),
    ("GET", "/v1/queues?limit=many", b"", 400, "invalid_request", "limit"),
    ("GET", "/v1/queues?which=all", b"", 400, "invalid_request", "`created`"),
    ("GET", "/v1/queues?wich=created", b"", 400, "invalid_request", "unknown field `wich`"),
    ("DELETE", "/v1/topics/nobody", b"", 404, "unknown_topic", "create it first"),
    ("POST", "/v1/topics/nobody/subscription", b"", 404, "unknown_topic", "nobody"),
    ("DELETE", "/v1/topics/t/subscription/", b"", 404, "not_found", "openapi.json"),
];

const MESSAGES: &[Wrong<'_>] = &[
    ("POST", "/v1/queues/nobody/messages", b"x", 404, "unknown_queue", "nobody"),
    ("POST", "/v1/queues/q/consume?wait=30", b"", 400, "invalid_request", "such as \"30s\""),
    ("POST", "/v1/queues/q/consume?wait=61s", b"", 400, "invalid_request", "at most 1m"),
    ("POST", "/v1/queues/q/consume?wait=-1s", b"", 400, "invalid_request", "wait"),
    ("POST", "/v1/queues/q/consume?ack=maybe", b"", 400, "invalid_request", "`manual`"),
    ("POST", "/v1/queues/q/consume?lease=5s", b"", 400, "invalid_request", "ack=manual"),
    ("POST", "/v1/queues/q/consume?ack=manual&lease=26m", b"", 400, "invalid_request", "25m"),
    ("POST", "/v1/queues/q/consume?ack=manual&lease=1ms", b"", 400, "invalid_request", "1s"),
    ("POST", "/v1/queues/q/consume?format=xml", b"", 400, "invalid_request", "`json`"),
    ("GET", "/v1/queues/q/messages?limit=101", b"", 400, "invalid_request", "from 1 to 100"),
    ("POST", "/v1/leases/nonsense/ack", b"", 410, "lease_gone", "delivered again"),
    ("POST", "/v1/leases/nonsense/extend?lease=1", b"", 400, "invalid_request", "30s"),
    ("POST", "/v1/leases/nonsense/extend?lease=2h", b"", 400, "invalid_request", "25m"),
    ("POST", "/v1/leases/nonsense/keep", b"", 404, "not_found", "/v1/leases/nonsense/keep"),
    ("PUT", "/v1/queues/q/messages", b"x", 405, "method_not_allowed", "PUT"),
    ("GET", "/v1/queues/q/consume", b"", 405, "method_not_allowed", "GET"),
    ("GET", "/v2/queues", b"", 404, "not_found", "/v2/queues"),
    ("GET", "/v1/../etc/passwd", b"", 404, "not_found", "openapi.json"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_in_words() {
    let world = World::start().await;
    let server = world.mom().await;
    let alice = user(&server).await;
    create(&alice, "queues", "q").await;
    for (method, path, body, status, code, mention) in OBJECTS.iter().chain(MESSAGES) {
        let refused = alice.ask(method, path, body).await;
        let what = format!("{method} {path} {}: {}", String::from_utf8_lossy(body), refused.text());
        assert_eq!((refused.status, refused.code().as_str()), (*status, *code), "{what}");
        assert_eq!(refused.header("content-type"), "application/problem+json", "{what}");
        let problem = refused.json();
        assert_eq!(problem["status"], *status, "{what}");
        assert_eq!(problem["type"], format!("urn:platziverse:problem:{code}"), "{what}");
        assert!(problem["detail"].as_str().expect("a detail").contains(mention), "{what}");
    }
    let long = json!({"name": "é".repeat(65)}).to_string();
    assert_eq!(alice.ask("POST", "/v1/queues", long.as_bytes()).await.code(), "invalid_name");
    let huge = json!({"name": "x".repeat(20_000)}).to_string();
    assert_eq!(alice.ask("POST", "/v1/queues", huge.as_bytes()).await.status, 413);
    let header = |name: &'static str, value: &'static str| [(name, value)];
    let long = "x".repeat(256);
    for (headers, mention) in [
        (&header("x-header-a~b", "1")[..], "a~b"),
        (&[("content-type", &*long)], "content type"),
        (&[("idempotency-key", &*long)], "255"),
    ] {
        let refused = alice.ask_with("POST", "/v1/queues/q/messages", headers, b"x").await;
        assert_eq!(refused.code(), "invalid_request", "{headers:?}: {}", refused.text());
        assert!(refused.text().contains(mention), "{headers:?}: {}", refused.text());
    }
    assert_eq!(consume(&alice, "queues", "q", "").await.status, 204, "something was published");
    let allowed = alice.ask("PUT", "/v1/queues/q", b"").await;
    assert!(allowed.header("allow").contains("DELETE"), "{:?}", allowed.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_are_names() {
    let world = World::start().await;
    let server = world.mom().await;
    let (alice, bob) = (user(&server).await, user(&server).await);
    let long = "x".repeat(128);
    let names =
        ["a/b", "a b", "à la carte ☂", "%41", "#", "?x=1", "..a", "mom.queue.q", "\"'\\", &long];
    for name in names {
        let path: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for kind in ["topics", "queues"] {
            create(&alice, kind, name).await;
            let shown = alice.ask("GET", &format!("/v1/{kind}/{path}"), b"").await;
            assert_eq!(shown.json()["name"], name, "{}", shown.text());
            assert_eq!(publish(&bob, kind, &path, "x").await, 1, "{name}");
            assert_eq!(consume(&alice, kind, &path, "wait=10s").await.text(), "x", "{name}");
            let gone = alice.ask("DELETE", &format!("/v1/{kind}/{path}"), b"").await;
            assert_eq!(gone.status, 204, "{}", gone.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_key_is_told_so() {
    let world = World::start().await;
    let server = world.mom().await;
    let nobody = MomUser::nobody(&server);
    let keys = ["", "x", "pk_0000000000000000000000000000000000000000000", "pk_%00"];
    let big = vec![b'x'; 1_000_000];
    for (method, path, body) in [
        ("GET", "/v1/users/me", &b""[..]),
        ("POST", "/v1/queues", br#"{"name": "x"}"#),
        ("POST", "/v1/queues/x/messages", b"x"),
        ("POST", "/v1/queues/x/messages", &big),
        ("POST", "/v1/leases/x/ack", b""),
    ] {
        let mut refused = vec![nobody.ask(method, path, body).await];
        for key in keys {
            refused.push(nobody.with_key(key).ask(method, path, body).await);
        }
        for refused in refused {
            assert_eq!(refused.code(), "unknown_key", "{method} {path}: {}", refused.text());
            assert_eq!(refused.status, 401);
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded() {
    let world = World::start().await;
    let server = world.mom().await;
    let alice = user(&server).await;
    create(&alice, "queues", "q").await;
    let path = "/v1/queues/q/messages";
    let most = vec![b'x'; 1_048_576];
    let sent = alice.ask("POST", path, &most).await;
    assert_eq!(sent.status, 201, "{}", sent.text());
    let got = consume(&alice, "queues", "q", "wait=30s").await;
    assert!(got.body == most, "{} bytes came back", got.body.len());
    for more in [1_048_577, 3_000_000, 30_000_000] {
        let refused = alice.ask("POST", path, &vec![b'x'; more]).await;
        assert_eq!((refused.status, refused.code().as_str()), (413, "too_large"));
    }
    assert_eq!(alice.ask("POST", path, b"").await.status, 201, "an empty one is a message too");
    let got = consume(&alice, "queues", "q", "wait=30s").await;
    assert_eq!((got.status, got.body.len()), (200, 0));
    let small = world.mom_with(&[("PLATZIVERSE_MOM__BODY_BYTES_MAX", "1024")]).await;
    let refused = alice.at(&small).ask("POST", path, &most[..1_025]).await;
    assert!(refused.text().contains("1024"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_connections_are_limited() {
    let world = World::start().await;
    let settings = [
        ("PLATZIVERSE_MOM__RATE_PER_KEY", "2"),
        ("PLATZIVERSE_MOM__REGISTRATIONS_PER_ADDRESS", "2"),
        ("PLATZIVERSE_MOM__CONNECTIONS_MAX", "3"),
    ];
    let server = world.mom_with(&settings).await;
    let (alice, bob) = (user(&server).await, user(&server).await);
    let third = MomUser::nobody(&server).ask("POST", "/v1/users", b"").await;
    assert_eq!((third.status, third.code().as_str()), (429, "too_many_requests"));
    let wait: u64 = third.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let mut refused = None;
    for _ in 0..50 {
        let asked = alice.ask("GET", "/v1/users/me", b"").await;
        if asked.status != 200 {
            refused = Some(asked);
            break;
        }
    }
    let refused = refused.expect("50 requests in less than 25 s");
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_requests"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(bob.ask("GET", "/v1/users/me", b"").await.status, 200, "somebody else");

    // Who holds connections open keeps others out, until they are closed.
    let mut held = Vec::new();
    let closed = loop {
        let mut client = RawClient::open(server.http()).await;
        if client.closed_within(Duration::from_millis(200)).await.is_some() {
            break held.len();
        }
        held.push(client);
        assert!(held.len() <= 3, "more than three");
    };
    assert!(closed <= 3);
    drop(held);
    // What is not HTTP is refused, and harms nobody.
    for nonsense in
        [&b"\x16\x03\x01\x00\xa5\x01\x00\x00"[..], b"GET\r\n\r\n", b"\x10\x0c\x00\x04MQTT"]
    {
        let mut client = RawClient::open(server.http()).await;
        let _ = client.try_send(nonsense).await;
        let answer = client.closed_within(PATIENCE).await.expect("it is closed");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_its_time_does_not_force_the_end() {
    let world = World::start().await;
    let mut server = world.mom().await;
    let mut clients = Vec::new();
    for (address, begun) in [
        (server.http(), &b"GET / HTT"[..]),
        (
            server.http(),
            b"POST /create_topic HTTP/1.1\r\nHost: x\r\nkey: x\r\nContent-Length: 9\r\n\r\na",
        ),
        (server.grpc(), b"PRI * HTTP/2.0"),
        (server.grpc(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ] {
        let mut client = RawClient::open(address).await;
        client.send(begun).await;
        clients.push(client);
    }
    for gauge in ["platziverse_mom_http_connections", "platziverse_mom_grpc_connections"] {
        server.counts(gauge, 2.0).await;
    }
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
}

/// What a path of the document stands for: names become names that nothing has.
fn concrete(path: &str) -> String {
    path.replace("{name}", "nothing-has-this-name").replace("{lease}", "none")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_names_every_route_and_every_code() {
    let world = World::start().await;
    let server = world.mom().await;
    let alice = user(&server).await;
    let nobody = MomUser::nobody(&server);
    let document = nobody.ask("GET", "/v1/openapi.json", b"").await;
    assert_eq!(document.header("content-type"), "application/json");
    let document = document.json();
    assert_eq!(document["openapi"], "3.1.0");

    let mut routes = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            routes.insert(format!("{} {path}", method.to_uppercase()));
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            assert!(ids.insert(id), "{method} {path} has the name of another");
            assert_answers(&alice, method, path, operation).await;
        }
    }
    let mut wanted: BTreeSet<String> = [
        "POST /v1/users",
        "GET /v1/users/me",
        "DELETE /v1/users/me",
        "POST /v1/users/me/key",
        "POST /v1/leases/{lease}/ack",
        "POST /v1/leases/{lease}/nack",
        "POST /v1/leases/{lease}/extend",
        "GET /v1/openapi.json",
    ]
    .map(str::to_owned)
    .into();
    for kind in ["topics", "queues"] {
        for (methods, rest) in [
            (&["GET", "POST"][..], ""),
            (&["GET", "DELETE"], "/{name}"),
            (&["POST", "DELETE"], "/{name}/subscription"),
            (&["GET", "POST", "DELETE"], "/{name}/messages"),
            (&["POST"], "/{name}/consume"),
        ] {
            wanted.extend(methods.iter().map(|method| format!("{method} /v1/{kind}{rest}")));
        }
    }
    assert_eq!(routes, wanted);

    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].clone();
    let codes: Vec<&str> =
        codes.as_array().expect("codes").iter().filter_map(Value::as_str).collect();
    let all = document["paths"].to_string();
    for code in &codes {
        let is_common = ["not_found", "method_not_allowed", "empty"].contains(code);
        assert!(is_common || all.contains(&format!("`{code}`")), "{code} is at no operation");
    }
    assert_eq!(codes.len(), 22);
    for kind in ["topics", "queues"] {
        let item = |rest: &str| &document["paths"][format!("/v1/{kind}/{{name}}/{rest}")]["post"];
        let any = json!({"*/*": {}});
        assert_eq!(item("messages")["requestBody"]["content"], any, "any bytes");
        assert_eq!(item("consume")["responses"]["200"]["content"]["*/*"], any["*/*"]);
    }

    let page = nobody.ask("GET", "/", b"").await;
    assert!(page.header("content-type").starts_with("text/html"), "{:?}", page.headers);
    assert_eq!(page.body, nobody.ask("GET", "/v1/docs", b"").await.body);
    assert!(!page.text().contains("https://"), "it loads from elsewhere");
}

/// The server knows the route, and what it answers is described.
async fn assert_answers(alice: &MomUser, method: &str, path: &str, operation: &Value) {
    // It would end the user.
    if (method, path) == ("delete", "/v1/users/me") || path == "/v1/users/me/key" {
        return;
    }
    let answer = alice.ask(&method.to_uppercase(), &concrete(path), b"{}").await;
    let what = format!("{method} {path}: {} {}", answer.status, answer.text());
    assert!(!["not_found", "method_not_allowed"].contains(&answer.code().as_str()), "{what}");
    let described = &operation["responses"][answer.status.to_string()];
    assert!(described.is_object(), "{what}: not described");
    if answer.status >= 400 {
        let codes = described["description"].as_str().expect("a description");
        assert!(codes.contains(&answer.code()), "{what}: {codes}");
    }
    for status in ["429", "503"] {
        let is_open = path == "/v1/openapi.json";
        let wait = &operation["responses"][status]["headers"]["Retry-After"];
        assert!(is_open || wait.is_object(), "{method} {path}: {status}");
    }
}

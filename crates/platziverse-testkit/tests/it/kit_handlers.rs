//! What the kit makes of handlers, and what servers send unasked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use platziverse_kit::{Answer, Kind, KitError, Options, Server, Work};
use platziverse_testkit::{PATIENCE, World, check, eventually, millis_ago};
use serde_json::{Value, json};

fn options(world: &World) -> Options {
    Options::new(world.amqp_url()).expect("it is a URL").channels(["chat", "news"])
}

async fn send(world: &World, kind: &str, body: &Value) {
    let mut properties = json!({
        "delivery_mode": 2, "type": kind, "headers": {
            "client": "ana", "session": "0198c5b0-0000-7000-8000-000000000001",
            "deadline": millis_ago(Duration::ZERO) + 3_600_000,
        },
    });
    if kind != "publish" {
        properties["correlation_id"] = body.to_string().into();
        properties["reply_to"] = "chat.client.ana".into();
    }
    world.rabbitmq().publish("INBOUND", "chat", properties, &body.to_string()).await;
}

/// Fails as the message says.
async fn handle(work: Work) -> Result<Answer, String> {
    let wanted: String = work.json().map_err(|error| error.to_string())?;
    match wanted.as_str() {
        "panic" => panic!("no {}", "luck"),
        "hang" => std::future::pending().await,
        "nothing" => Ok(Answer::from(())),
        other => Err(format!("{other} is not to be had")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_fails_is_tried_again_and_the_client_is_told() {
    let world = World::unmigrated().await;
    let options = options(&world).attempts(2).handler_timeout(Duration::from_millis(200));
    let server = Server::connect(options).await.expect("RabbitMQ is there");
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let serving = server.serve("chat", move |work| {
        counted.fetch_add(1, Ordering::Relaxed);
        handle(work)
    });
    let seeing = async {
        let mut stream = world.stream("OUT_CHAT").await;
        for (wanted, error) in [
            ("panic", Some("the handler panicked: no luck")),
            ("hang", Some("not done within 200ms")),
            ("gold", Some("gold is not to be had")),
            ("nothing", None),
        ] {
            tries.store(0, Ordering::Relaxed);
            send(&world, "request", &json!(wanted)).await;
            let reply = stream.next().await;
            assert_eq!(reply.correlation_id, json!(wanted).to_string());
            assert_eq!(reply.headers.get("error").map(String::as_str), error);
            assert_eq!(reply.body, Value::Null);
            let expected = if error.is_some() { 2 } else { 1 };
            assert_eq!(tries.load(Ordering::Relaxed), expected, "{wanted}");
        }
        // What nobody waits for is kept.
        send(&world, "publish", &json!("panic")).await;
        let letters = eventually("it is a dead letter", PATIENCE, || async {
            let letters = world.rabbitmq().try_dead_letters().await?;
            check(!letters.is_empty(), || "there is none".to_owned())?;
            Ok(letters)
        })
        .await;
        assert_eq!(letters[0].headers["x-death"][0]["reason"], "rejected");
        assert_eq!(
            (letters[0].body.as_str(), &letters[0].headers["client"]),
            ("\"panic\"", &json!("ana"))
        );
    };
    tokio::select! {
        ended = serving => panic!("{ended:?}"),
        () = seeing => {}
    }
    assert!(server.end(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_told_who_asks_and_until_when() {
    let world = World::unmigrated().await;
    let server = Server::connect(options(&world).concurrency(1)).await.expect("RabbitMQ is there");
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let serving = server.serve("chat", move |work: Work| {
        let tell = tell.clone();
        async move { tell.send(work).map(Answer::from) }
    });
    let before = millis_ago(Duration::ZERO);
    let seeing = async {
        for kind in ["publish", "request", "reply"] {
            send(&world, kind, &json!({ "kind": kind })).await;
        }
        for (kind, sent) in
            [(Kind::Publish, "publish"), (Kind::Request, "request"), (Kind::Reply, "reply")]
        {
            let work = told.recv().await.expect("it is served");
            let body = json!({ "kind": sent });
            assert_eq!(work.json::<Value>().expect("JSON"), body);
            assert_eq!(
                (work.kind, work.client.as_str(), work.channel.as_str()),
                (kind, "ana", "chat")
            );
            assert_eq!(work.session.map(|id| id.get_version_num()), Some(7));
            let id = (kind != Kind::Publish).then(|| body.to_string());
            assert_eq!(work.request_id, id);
            assert!(work.deadline.is_some_and(|time| time.as_millis() >= before + 3_600_000));
            assert!(!work.redelivered);
        }
    };
    tokio::select! {
        ended = serving => panic!("{ended:?}"),
        () = seeing => {}
    }
    assert!(server.end(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sends_unasked() {
    let world = World::unmigrated().await;
    let server = Server::connect(options(&world)).await.expect("RabbitMQ is there");
    let sender = server.sender();
    sender.broadcast("news", &json!({"n": 1})).await.expect("sent");
    sender.send("news", "ana", &"two").await.expect("sent");
    sender.multicast("news", ["ana", "bob"], &[3]).await.expect("sent");
    let mut stream = world.stream("OUT_NEWS").await;
    for (key, clients, body) in [
        ("news.broadcast", None, json!({"n": 1})),
        ("news.client.ana", None, json!("two")),
        ("news.multicast", Some("ana,bob"), json!([3])),
    ] {
        let message = stream.next().await;
        assert_eq!((message.key.as_str(), message.kind.as_str()), (key, "publish"));
        assert_eq!((&message.body, message.is_persistent), (&body, true));
        assert_eq!(message.headers.get("clients").map(String::as_str), clients);
    }
    let unknown = sender.broadcast("weather", &1).await;
    assert!(
        matches!(unknown, Err(KitError::UnknownChannel { known, .. }) if known == "chat, news")
    );
    let unknown = server.serve("weather", async |_| Ok::<_, String>(Answer::from(()))).await;
    assert!(matches!(unknown, Err(KitError::UnknownChannel { .. })));
    drop(sender);
    assert!(server.end(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_start_says_why() {
    let wrong = Options::new("http://127.0.0.1").err();
    assert!(matches!(wrong, Some(KitError::Url(_))));
    let nobody = format!("amqp://guest:guest@{}/", platziverse_testkit::closed_port());
    let options = Options::new(&nobody).expect("it is a URL");
    let refused = Server::connect(options).await.err();
    let text = refused.map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("cannot connect to RabbitMQ"), "{text}");
}

//! Topics and queues through the clients that we give people: the Rust crate, the Python file, and
//! their examples.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use platziverse_client::{Builder, Client, Code, Consumer, Delivery, Error, NewMessage, Options};
use platziverse_testkit::{Ended, Mom, PATIENCE, Proxy, World};
use uuid::Uuid;

const NOW: Duration = Duration::ZERO;

fn url(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}

/// How a client of a new user of this server is built.
async fn builder(mom: &Mom) -> Builder {
    let url = url(mom.grpc());
    let registering = Client::builder(&url).build().expect("it is an address");
    let user = registering.register().await.expect("anybody may be a user");
    Client::builder(url).key(user.key)
}

async fn client(mom: &Mom) -> Client {
    builder(mom).await.build().expect("it is an address")
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a message comes");
    next.expect("it goes on").expect("a message")
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.body).into_owned()
}

/// Runs a program that must succeed.
async fn succeeds(world: &World, program: &'static str, arguments: &[&str]) -> Ended {
    let settings = [("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONPATH", folder())];
    let ended = world.run(program, arguments, &settings).await;
    assert!(ended.status.success(), "{program} {arguments:?}: {ended:?}");
    ended
}

/// Where the Python client is.
fn folder() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/clients")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_run() {
    let world = World::start().await;
    let mom = world.mom().await;
    let rust = succeeds(&world, "examples/work_queue", &[&url(mom.grpc())]).await.stdout;
    let file = PathBuf::from(folder()).join("example.py").display().to_string();
    let python =
        succeeds(&world, "/usr/bin/env", &["python3", &file, &url(mom.http())]).await.stdout;
    for told in [rust, python] {
        for line in ["done: sweep\n", "done: cook\n", "wash is given back: no water\n"] {
            assert!(told.contains(line), "{told}");
        }
        assert_eq!(told.matches("done: wash\n").count(), 1, "{told}");
        assert!(told.contains("heard: Llueve en Bogotá\n"), "{told}");
        assert!(told.contains("not_creator"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_what_is_consumed() {
    let world = World::start().await;
    let mom = world.mom().await;
    let client = client(&mom).await;
    let queue = client.queue("odd / name?#%");
    let options = Options {
        max_length: Some(10),
        message_ttl: Some(Duration::from_secs(3_600)),
        delivery_limit: Some(7),
    };
    assert!(queue.create(&options).await.unwrap());
    assert!(!queue.create(&options).await.unwrap(), "it was there already");
    let shown = queue.show().await.unwrap();
    assert_eq!((shown.info.options, shown.info.messages), (options, Some(0)));
    assert_eq!((shown.subscribers, shown.is_subscribed), (1, true));
    assert_eq!(shown.info.creator, client.user().await.unwrap());

    let message = NewMessage::new(&b"\x00\xff\n"[..])
        .content_type("application/x-odd")
        .header("a", "á")
        .idempotency_key("once");
    let published = queue.publish(message.clone()).await.unwrap();
    assert_eq!(queue.publish(message.clone()).await.unwrap(), published, "it is published once");
    let lent = queue.lend(NOW, Duration::from_secs(30)).await.unwrap().expect("a message");
    let seen = &lent.message;
    assert_eq!(
        (&seen.body, &seen.content_type, &seen.headers),
        (&message.body, &message.content_type, &message.headers)
    );
    assert_eq!((seen.id, seen.publisher), (Some(published.id), Some(shown.info.creator)));
    assert!(seen.timestamp.is_some() && !seen.redelivered);
    lent.nack().await.unwrap();
    let again = queue.lend(Duration::from_secs(10), Duration::from_secs(30)).await.unwrap();
    let again = again.expect("it went back");
    assert_eq!((again.message.id, again.message.redelivered), (Some(published.id), true));
    again.ack().await.unwrap();
    assert_eq!(queue.take(NOW).await.unwrap(), None);
    queue.publish("to be purged").await.unwrap();
    let peeked = queue.peek(5).await.unwrap();
    assert_eq!(
        peeked.iter().map(|message| &message.body[..]).collect::<Vec<_>>(),
        [b"to be purged"]
    );
    assert_eq!(queue.purge().await.unwrap(), 1);
    queue.delete().await.unwrap();
    client.delete_user().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_their_codes() {
    let world = World::start().await;
    let mom = world.mom().await;
    let (one, other) = (client(&mom).await, client(&mom).await);
    let code = |error: Option<Error>| match error {
        Some(Error::Refused { code, .. }) => code,
        other => panic!("no refusal: {other:?}"),
    };
    let (topic, queue) = (one.topic("t"), one.queue("q"));
    assert_eq!(code(topic.show().await.err()), Code::UnknownTopic);
    assert_eq!(code(queue.publish("x").await.err()), Code::UnknownQueue);
    assert_eq!(code(queue.consume(1).next().await.expect("an end").err()), Code::UnknownQueue);
    queue.create(&Options::default()).await.unwrap();
    let theirs = other.queue("q");
    assert_eq!(code(theirs.create(&Options::default()).await.err()), Code::AlreadyExists);
    assert_eq!(code(theirs.delete().await.err()), Code::NotCreator);
    assert_eq!(code(theirs.take(NOW).await.err()), Code::NotSubscribed);
    assert_eq!(code(queue.subscribe().await.err()), Code::AlreadySubscribed);
    assert_eq!(code(one.queue(" q").create(&Options::default()).await.err()), Code::InvalidName);
    assert_eq!(code(queue.publish(vec![0; 2 << 20]).await.err()), Code::TooLarge);
    assert_eq!(code(one.delete_user().await.err()), Code::HasObjects);
    let nobody = Client::builder(url(mom.grpc())).key("pk_nobody").build().unwrap();
    assert_eq!(code(nobody.user().await.err()), Code::UnknownKey);
    let rotated = one.rotate_key().await.unwrap();
    assert_eq!(code(one.user().await.err()), Code::UnknownKey);
    let one = Client::builder(url(mom.grpc())).key(rotated).build().unwrap();
    assert_eq!(one.queue("q").show().await.unwrap().info.name, "q");

    // One refusal in the middle of many.
    let messages = [NewMessage::from("a"), NewMessage::new(vec![0; 2 << 20]), "b".into()];
    let results: Vec<_> = one.queue("q").publish_all(stream::iter(messages)).collect().await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert_eq!(code(results[1].clone().err()), Code::TooLarge);

    let closed = Client::builder("http://127.0.0.1:9").retry_for(NOW).build().unwrap();
    assert!(matches!(closed.user().await, Err(Error::Unreached(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_comes_back_and_settles_what_it_has() {
    let world = World::start().await;
    let mom = world.mom().await;
    let queue = client(&mom).await.queue("q");
    queue.create(&Options::default()).await.unwrap();
    let messages = (0..20).map(|n| n.to_string());
    let published: Vec<_> = queue.publish_all(stream::iter(messages)).collect().await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");

    let user = Client::builder(url(mom.grpc())).build().unwrap().register().await.unwrap();
    let proxy = Proxy::start(mom.grpc()).await;
    let far = Client::builder(url(proxy.address())).key(user.key).build().unwrap().queue("q");
    far.subscribe().await.unwrap();
    let mut consumer = far.consume(5);
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    let mut seen = HashSet::from([body(&first)]);
    first.ack().unwrap();
    // Dropped, it goes back.
    drop(next(&mut consumer).await);
    let held = body(&second);
    proxy.reset();
    let mut redelivered = false;
    while seen.len() < 20 {
        let delivery = next(&mut consumer).await;
        let body = body(&delivery);
        redelivered |= body == held;
        // One that came before the end of its connection may be too late.
        if delivery.ack().is_ok() {
            seen.insert(body);
        }
    }
    assert!(redelivered, "what was held when the connection was lost came again");
    assert_eq!(second.ack(), Err(Error::Stale));
    consumer.close().await.unwrap();
    // What was acknowledged as the connection ended may be there again, and nothing else.
    while let Some(message) = queue.take(NOW).await.unwrap() {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        assert!(message.redelivered && seen.contains(&body), "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_goes_on_at_another_server() {
    const COUNT: usize = 3_000;
    let world = World::start().await;
    let (mut first, second) = (world.mom().await, world.mom().await);
    let client = builder(&first).await.endpoint(url(second.grpc())).build().unwrap();
    let queue = client.queue("q");
    queue.create(&Options::default()).await.unwrap();

    let keyed = |n: usize| NewMessage::from(n.to_string()).idempotency_key(format!("k{n}"));
    let results = queue.publish_all(stream::iter((0..COUNT).map(keyed)));
    let mut results = std::pin::pin!(results);
    let mut published = Vec::new();
    while let Some(result) = results.next().await {
        published.push(result.expect("every message is published in the end").id);
        if published.len() == COUNT / 10 {
            first.kill();
        }
    }
    assert_eq!(published.iter().collect::<HashSet<_>>().len(), COUNT, "each has its own id");
    let mut consumer = queue.consume(500);
    let (mut seen, mut deliveries) = (HashSet::<Uuid>::new(), 0);
    while seen.len() < COUNT {
        let delivery = next(&mut consumer).await;
        seen.extend(delivery.message.id);
        deliveries += 1;
        delivery.ack().unwrap();
    }
    consumer.close().await.unwrap();
    // Sent again under their keys, they have the ids that they had.
    assert_eq!(seen, published.iter().copied().collect());
    assert!(deliveries < COUNT + 1_100, "{deliveries} deliveries of {COUNT} messages");
    assert_eq!(queue.show().await.unwrap().info.messages, Some(0));
}

/// Publishes, consumes and acknowledges while its server goes and comes back.
const THROUGH_AN_OUTAGE: &str = "
import sys, chasqui
client = chasqui.Client(sys.argv[1], retry_for=60)
client.register()
queue = client.queue('q')
queue.create()
seen = []
for n in range(400):
    queue.publish(str(n), idempotency_key=str(n))
    if n == 100:
        open(sys.argv[2], 'w').close()
    if n % 2:
        lent = queue.lend(wait=10)
        seen.append(lent.text)
        try:
            lent.ack()
        except chasqui.Refused as refused:
            # The server that lent it is gone, and with it the lease: it comes again.
            assert refused.code == 'lease_gone', refused
while queue.show()['messages']:
    with queue.lend(wait=10) as lent:
        seen.append(lent.text)
missing = set(map(str, range(400))) - set(seen)
assert not missing, missing
print('all', len(seen))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_gets_over_a_restart() {
    let world = World::start().await;
    let mut mom = world.mom().await;
    let (url, mark) = (url(mom.http()), world.folder().join("mark"));
    let mark_text = mark.display().to_string();
    let arguments = ["python3", "-c", THROUGH_AN_OUTAGE, &url, &mark_text];
    let outage = async {
        platziverse_testkit::eventually("a quarter is published", PATIENCE, || async {
            platziverse_testkit::check(mark.exists(), || "not yet".to_owned())
        })
        .await;
        mom.kill();
        mom.restart().expect("it starts again");
        mom.ready().await;
    };
    let (ended, ()) = tokio::join!(succeeds(&world, "/usr/bin/env", &arguments), outage);
    assert!(ended.stdout.starts_with("all "), "{ended:?}");
}

/// Publishes to a topic until one of its subscribers has no room; the other one has each message once.
const ONE_IS_FULL: &str = "
import sys, chasqui
def user():
    client = chasqui.Client(sys.argv[1])
    client.register()
    return client
news = user().topic('news')
news.create(max_length=3)
for reader in (full := user().topic('news'), free := user().topic('news')):
    reader.subscribe()
heard = []
try:
    for n in range(1000):
        news.publish(str(n))
        heard.append(free.take(wait=10).text)
    sys.exit('it is never full')
except chasqui.Refused as refused:
    assert refused.code == 'queue_full', refused
while (message := free.take(wait=1)) is not None:
    heard.append(message.text)
assert len(set(heard)) == len(heard), heard
print('once')
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_subscriber_doubles_nothing_at_the_others() {
    let world = World::start().await;
    let mom = world.mom().await;
    let url = url(mom.http());
    let arguments = ["python3", "-c", ONE_IS_FULL, url.as_str()];
    assert_eq!(succeeds(&world, "/usr/bin/env", &arguments).await.stdout, "once\n");
}

/// The Python file from a shell, with its key in a file.
const FROM_A_SHELL: &str = r#"
set -euo pipefail
export CHASQUI_URL=$2
umask 077
python3 "$1" register >key
ask() { python3 "$1" --key-file key "${@:2}"; }
ask "$1" queue create jobs
ask "$1" queue publish jobs sweep >/dev/null
ask "$1" queue consume jobs
if ask "$1" queue consume jobs 2>none; then exit 1; fi
cat none
for n in $(seq 20); do ask "$1" queue publish jobs "$n" >/dev/null; done
# Whoever reads has enough: no failure.
ask "$1" queue consume jobs --follow | head -n 1
if CHASQUI_URL=http://h:0 python3 "$1" register 2>wrong; then exit 1; fi
cat wrong
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_works_from_a_shell() {
    let world = World::start().await;
    let mom = world.mom().await;
    let (file, url) = (format!("{}/chasqui.py", folder()), url(mom.http()));
    let arguments = ["bash", "-c", FROM_A_SHELL, "bash", &file, &url];
    let ended = succeeds(&world, "/usr/bin/env", &arguments).await;
    assert_eq!(
        ended.stdout,
        "sweep\nchasqui.py: no message waits, and none came\n1\n\
         chasqui.py: 'http://h:0' is no address such as http://host:8080\n"
    );
    assert_eq!(ended.stderr, "");
}

//! `platziverse topic`, `queue` and `key` against a real server.

use platziverse_testkit::{Ended, Mom, PATIENCE, World, check, eventually};
use serde_json::{Value, json};

/// Somebody at a shell, with a key in a file.
struct Shell<'a> {
    world: &'a World,
    url: String,
    key_file: String,
}

impl<'a> Shell<'a> {
    /// With a new user's key.
    async fn new(world: &'a World, mom: &Mom, name: &str) -> Self {
        let key_file = world.folder().join(format!("{name}.key")).display().to_string();
        let shell = Self { world, url: format!("http://{}", mom.grpc()), key_file };
        shell.prints(&["key", "create"], "").await;
        shell
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let access = ["--key-file", &self.key_file];
        let settings = [("PLATZIVERSE_MOM__URL", self.url.as_str())];
        let arguments = [arguments, &access].concat();
        self.world.run_reading("platziverse", &arguments, &settings, input).await
    }

    /// What a command prints that must succeed.
    async fn prints(&self, arguments: &[&str], input: &str) -> String {
        let ended = self.run(arguments, input).await;
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
        ended.stdout
    }

    /// The same as JSON.
    async fn json(&self, arguments: &[&str], input: &str) -> Value {
        let printed = self.prints(&[arguments, &["--json"]].concat(), input).await;
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// What a command complains of that must fail.
    async fn fails(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments, "").await;
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {ended:?}");
        ended.stderr
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_from_its_creation_to_its_end() {
    let world = World::start().await;
    let mom = world.mom().await;
    let shell = Shell::new(&world, &mom, "one").await;
    let created = json!({ "name": "jobs", "created": true });
    assert_eq!(shell.json(&["queue", "create", "jobs", "--max-length", "9"], "").await, created);
    let again = shell.prints(&["queue", "create", "jobs", "--max-length", "9"], "").await;
    assert_eq!(again, "The queue jobs was there already, yours and the same.\n");

    let published = shell.json(&["queue", "publish", "jobs", "sweep", "--header", "a=b"], "").await;
    assert_eq!(published["receivers"], 1);
    shell.prints(&["queue", "publish", "jobs"], "from\nstdin\n").await;
    let told = shell.prints(&["queue", "publish", "jobs", "--lines"], "more\nmore\nmore").await;
    assert_eq!(told, "Published 3 messages to the queue.\n");
    let list = shell.json(&["queue", "list"], "").await;
    assert_eq!((&list["queues"][0]["name"], &list["next"]), (&json!("jobs"), &Value::Null));
    let shown = shell.json(&["queue", "show", "jobs"], "").await;
    let facts = ["messages", "subscribers", "subscribed", "max_length"].map(|key| &shown[key]);
    assert_eq!(facts, [&json!(5), &json!(1), &json!(true), &json!(9)]);
    let taken = shell.json(&["queue", "consume", "jobs"], "").await;
    assert_eq!((&taken["id"], &taken["body"]), (&published["id"], &json!("sweep")));
    assert_eq!((&taken["headers"], &taken["redelivered"]), (&json!({ "a": "b" }), &json!(false)));
    assert_eq!(taken["content_type"], "text/plain; charset=utf-8");
    let peeked = shell.prints(&["queue", "peek", "jobs", "--limit", "1"], "").await;
    assert_eq!(peeked, "from\nstdin\n");
    let two = shell.prints(&["queue", "consume", "jobs", "-n", "2", "--ack", "auto"], "").await;
    assert_eq!(two, "from\nstdin\nmore\n");
    // Without anybody who could be asked, nothing is deleted.
    assert!(shell.fails(&["queue", "purge", "jobs"]).await.contains("Delete 2 messages of the"));
    let followed = shell.prints(&["queue", "consume", "jobs", "--follow", "-n", "2"], "").await;
    assert_eq!(followed, "more\nmore\n");
    assert!(shell.fails(&["queue", "consume", "jobs"]).await.contains("no message waits"));
    assert!(
        shell.fails(&["queue", "consume", "jobs", "--wait", "100ms"]).await.contains("none came")
    );

    shell.prints(&["queue", "publish", "jobs", "-"], "to be purged").await;
    assert_eq!(shell.json(&["queue", "purge", "jobs", "--yes"], "").await, json!({ "purged": 1 }));
    shell.prints(&["queue", "delete", "jobs", "--yes"], "").await;
    assert!(shell.fails(&["queue", "show", "jobs"]).await.contains("(unknown_queue)"));
    shell.prints(&["key", "delete", "--yes"], "").await;
    assert!(shell.fails(&["key", "show"]).await.contains("(unknown_key)"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_goes_to_those_who_subscribe() {
    let world = World::start().await;
    let mom = world.mom().await;
    let writer = Shell::new(&world, &mom, "writer").await;
    let reader = Shell::new(&world, &mom, "reader").await;
    writer.prints(&["topic", "create", "news"], "").await;
    let unknown = reader.fails(&["topic", "consume", "news"]).await;
    assert!(unknown.contains("(not_subscribed)"), "{unknown}");
    reader.prints(&["topic", "subscribe", "news"], "").await;
    let told = writer.prints(&["topic", "publish", "news", "hello"], "").await;
    assert!(told.ends_with(" to 1 subscriber.\n"), "{told}");
    assert!(writer.fails(&["topic", "consume", "news"]).await.contains("no message waits"));
    let follow = ["topic", "consume", "news", "--follow", "-n", "2"];
    let later = async { writer.prints(&["topic", "publish", "news", "world"], "").await };
    let (heard, _) = tokio::join!(reader.json_lines(&follow), later);
    assert_eq!(heard.iter().map(|one| &one["body"]).collect::<Vec<_>>(), ["hello", "world"]);

    let list = reader.json(&["topic", "list", "--subscribed"], "").await;
    assert_eq!(list["topics"][0]["name"], "news");
    assert_eq!(reader.json(&["topic", "list"], "").await["topics"], json!([]));
    reader.prints(&["topic", "unsubscribe", "news"], "").await;
    assert!(reader.fails(&["topic", "unsubscribe", "news"]).await.contains("(not_subscribed)"));
    assert!(reader.fails(&["topic", "delete", "news", "--yes"]).await.contains("(not_creator)"));
    let before = std::fs::read_to_string(&writer.key_file).expect("the file of the key");
    writer.prints(&["key", "rotate"], "").await;
    assert_ne!(std::fs::read_to_string(&writer.key_file).expect("the file of the key"), before);
    assert_eq!(writer.json(&["topic", "delete", "news", "--yes"], "").await["deleted"], "news");
}

impl Shell<'_> {
    async fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.prints(&[arguments, &["--json"]].concat(), "").await;
        printed.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said() {
    let world = World::start().await;
    let nobody = world.platziverse(&["queue", "list"]).await;
    assert!(nobody.stderr.contains("there is no key: give --key-file FILE"), "{nobody:?}");
    let at = |url| [("PLATZIVERSE_MOM__KEY", "pk_x"), ("PLATZIVERSE_MOM__URL", url)];
    let (plain, secure) = (at("http://127.0.0.1:9"), at("https://127.0.0.1:9"));
    let (list, lines) = (["queue", "list"], ["queue", "publish", "q", "--lines"]);
    let (away, publishing) = tokio::join!(
        world.run("platziverse", &list, &plain),
        world.run_reading("platziverse", &lines, &secure, "a\nb\n"),
    );
    assert!(away.stderr.contains("http://127.0.0.1:9: no server has answered"), "{away:?}");
    // It is not tried for as long with each line.
    let lost =
        "line 1 and those after it may not have been published: https://127.0.0.1:9: no server";
    assert!(publishing.stderr.contains(lost), "{publishing:?}");
    assert_eq!(publishing.stdout, "Published 0 messages to the queue.\n");
    for ended in [away, publishing] {
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(!ended.stderr.contains("pk_x"), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_goes_on_over_a_restart() {
    let world = World::start().await;
    let mut mom = world.mom().await;
    let shell = Shell::new(&world, &mom, "one").await;
    shell.prints(&["queue", "create", "jobs"], "").await;
    eventually("those who were there have gone", PATIENCE, || async {
        let left = mom.metrics().await.get("platziverse_mom_grpc_connections");
        check(left < 1.0, || format!("{left} are there"))
    })
    .await;
    let outage = async {
        mom.counts("platziverse_mom_grpc_connections", 1.0).await;
        mom.kill();
        mom.restart().expect("it starts again");
        mom.ready().await;
        shell.prints(&["queue", "publish", "jobs", "after"], "").await;
    };
    let follow = ["queue", "consume", "jobs", "--follow", "-n", "1"];
    let (followed, ()) = tokio::join!(shell.prints(&follow, ""), outage);
    assert_eq!(followed, "after\n");
}

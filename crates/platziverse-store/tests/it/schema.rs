use futures_util::future::join_all;
use platziverse_protocol::event::AgentEvent;
use platziverse_store::writer::Writer;
use platziverse_store::{Store, StoreError, admin, migrations};

use crate::database::{client, one, with_database, with_empty_database};
use crate::sightings::{noon, untimed};

const UP_3: &str = include_str!("../../../../migrations/0003_message_times/up.sql");
const DOWN_3: &str = include_str!("../../../../migrations/0003_message_times/down.sql");
const UP_4: &str = include_str!("../../../../migrations/0004_tasks/up.sql");
const DOWN_4: &str = include_str!("../../../../migrations/0004_tasks/down.sql");
const UP_5: &str = include_str!("../../../../migrations/0005_mom/up.sql");
const DOWN_5: &str = include_str!("../../../../migrations/0005_mom/down.sql");

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_migrate_at_once_take_turns() {
    with_empty_database(async |config| {
        let all = migrations::pending(&config).await.unwrap();
        let names = ["0001_agents", "0002_metrics", "0003_message_times", "0004_tasks", "0005_mom"];
        assert_eq!(all, names);
        let runs = join_all((0..4).map(|_| migrations::run(&config))).await;
        let run: Vec<String> = runs.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(run, all);
        assert!(migrations::status(&config).await.unwrap().iter().all(|one| one.applied));
    })
    .await;
}

#[tokio::test]
async fn migrations_run_on_a_single_threaded_runtime() {
    with_empty_database(async |config| {
        assert_eq!(migrations::run(&config).await.unwrap().len(), 5);
        assert_eq!(migrations::run(&config).await.unwrap(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_behind_says_what_to_do() {
    with_empty_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        store.check().await.unwrap();
        let error = store.check_schema().await.unwrap_err();
        assert!(error.to_string().contains("0001_agents"), "{error}");
        assert!(error.to_string().contains("platziverse db migrate"), "{error}");
        let status = store.status().await.unwrap();
        assert!(status.tables.is_empty() && status.migrations.iter().all(|one| !one.applied));
        let mut writer = Writer::new(&config, "test");
        let error = writer.check().await.unwrap_err();
        assert!(error.to_string().contains("platziverse db migrate"), "{error}");
        assert!(error.is_transient());

        migrations::run(&config).await.unwrap();
        store.check_schema().await.unwrap();
        writer.check().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_stored_before_their_ids_were_kept_are_known() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let (first, later) = (noon(), noon().plus_millis(90_000_000));
        let mut dated = untimed(2, "a", first);
        if let AgentEvent::Message(message) = &mut dated.event {
            message.timestamp = Some(later);
        }
        writer.write(&[untimed(1, "a", first), dated]).await.unwrap();
        let client = client(&config).await;
        client.batch_execute(DOWN_3).await.unwrap();
        client.batch_execute(UP_3).await.unwrap();

        let kept = "SELECT array_agg(right(message_id::text, 1)) FROM message_times \
                    WHERE timestamp = '2026-03-01T12:00:00Z'";
        assert_eq!(one::<Vec<String>>(&config, kept).await, ["1"]);
        let mut writer = Writer::new(&config, "test");
        let again = writer.write(&[untimed(1, "a", later)]).await.unwrap();
        assert_eq!((again.stored, again.duplicate), (0, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_tasks_go_and_come_back() {
    with_database(async |config| {
        let client = client(&config).await;
        client.batch_execute(DOWN_4).await.unwrap();
        let relations = "SELECT count(*) FROM pg_class WHERE relname ~ '^(events|commands)'";
        assert_eq!(one::<i64>(&config, relations).await, 0);
        client.batch_execute(UP_4).await.unwrap();
        assert_eq!(one::<i64>(&config, relations).await, 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_topics_and_queues_go_and_come_back() {
    with_database(async |config| {
        let client = client(&config).await;
        client.batch_execute(DOWN_5).await.unwrap();
        let relations = "SELECT count(*) FROM pg_class WHERE relname ~ '^mom_'";
        assert_eq!(one::<i64>(&config, relations).await, 0);
        client.batch_execute(UP_5).await.unwrap();
        assert_eq!(one::<i64>(&config, relations).await, 15);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_tables_and_partitions() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let status = store.status().await.unwrap();
        let tables: Vec<&str> = status.tables.iter().map(|table| table.name.as_str()).collect();
        let telemetry = ["agents", "commands", "events", "message_times", "metrics"];
        let mom = ["mom_objects", "mom_publishes", "mom_subscriptions", "mom_users"];
        assert_eq!(tables, [&telemetry[..], &mom].concat());
        assert_eq!(status.partitions.len(), 1);
        assert_eq!(status.partitions[0].name, "metrics_default");
        assert_eq!(status.partitions[0].bounds, "DEFAULT");
        assert!(status.bytes > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_created_and_dropped_once() {
    with_empty_database(async |mut config| {
        assert!(!admin::create(&config).await.unwrap(), "it is there already");
        config.name.push_str("_\"x; y");
        assert!(admin::create(&config).await.unwrap());
        assert!(admin::drop(&config).await.unwrap());
        assert!(!admin::drop(&config).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_errors_say_where_and_what_to_do() {
    with_empty_database(async |config| {
        let check = |error: StoreError, parts: &[&str]| {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert!(error.is_transient());
        };
        let mut missing = config.clone();
        missing.name = "platziverse_store_missing".into();
        let error = Store::connect(&missing, "test").await.err().unwrap();
        check(error, &[&missing.address(), "platziverse db create"]);

        let mut nobody = config.clone();
        nobody.port = 1;
        let error = Store::connect(&nobody, "test").await.err().unwrap();
        check(error, &[&nobody.address(), "is PostgreSQL running there?"]);
    })
    .await;
}

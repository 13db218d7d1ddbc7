//! The question of every request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use platziverse_config::DatabaseConfig;
use platziverse_service::{Drain, Outcome};
use platziverse_store::mom::{
    Found, Lookup, ObjectKind, Stage, begin_delete, begin_subscribe, begin_unsubscribe,
    delete_user, rotate_key,
};
use platziverse_store::{Store, StoreError};
use uuid::Uuid;

use crate::database::{client, one, with_database};
use crate::mom::{create, key, ready, subscribe, user};

use ObjectKind::{Queue, Topic};

const NOBODY: [Uuid; 0] = [];

async fn start(config: &DatabaseConfig) -> (Store, Drain, Lookup) {
    let store = Store::connect(config, "lookup").await.unwrap();
    let drain = Drain::default();
    let lookup = Lookup::start(&drain, &store);
    (store, drain, lookup)
}

async fn ask(lookup: &Lookup, who: u8, about: Option<(ObjectKind, &str)>) -> Found {
    let mut found = lookup.ask(key(who), about).await.unwrap();
    found.receivers.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_what_holds_for_them() {
    with_database(async |config| {
        let (store, drain, lookup) = start(&config).await;
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        ready(&store, Topic, "t", creator).await;
        ready(&store, Queue, "t", guest).await;
        subscribe(&store, Queue, "t", creator).await;
        create(&store, Topic, "half", guest).await;

        assert_eq!(ask(&lookup, 9, None).await, Found::default());
        let found = ask(&lookup, 1, None).await;
        assert_eq!(found, Found { user: Some(creator), ..Found::default() });
        for nothing in ["T", "", "t\0", "'"] {
            assert_eq!(ask(&lookup, 1, Some((Topic, nothing))).await, found);
        }
        let found = ask(&lookup, 9, Some((Topic, "t"))).await;
        let topic = found.object.clone().unwrap();
        assert_eq!((topic.kind, topic.name.as_str(), topic.creator), (Topic, "t", creator));
        assert_eq!((found.user, found.is_subscribed), (None, false));
        assert_eq!(found.receivers, [creator]);
        let found = ask(&lookup, 1, Some((Topic, "t"))).await;
        assert_eq!((found.user, found.is_subscribed), (Some(creator), true));
        assert_eq!(found.receivers, NOBODY, "not the publisher");
        let found = ask(&lookup, 1, Some((Queue, "t"))).await;
        assert_eq!(found.object.unwrap().creator, guest);
        assert_eq!(
            (found.is_subscribed, found.receivers),
            (true, NOBODY.to_vec()),
            "a queue has none"
        );

        let found = ask(&lookup, 1, Some((Topic, "half"))).await;
        assert_eq!(found.object.unwrap().stage, Stage::Creating);
        assert_eq!(found.receivers, [guest]);
        assert!(!ask(&lookup, 2, Some((Topic, "half"))).await.is_subscribed);

        begin_subscribe(&store, Topic, "t", guest, 9).await.unwrap();
        assert_eq!(ask(&lookup, 1, Some((Topic, "t"))).await.receivers, [guest]);
        begin_unsubscribe(&store, Topic, "t", guest).await.unwrap();
        assert_eq!(ask(&lookup, 1, Some((Topic, "t"))).await.receivers, NOBODY);
        begin_delete(&store, Topic, "t", creator).await.unwrap();
        let deleting = ask(&lookup, 1, Some((Topic, "t"))).await.object.unwrap();
        assert_eq!(deleting.stage, Stage::Deleting);
        drain.request();
        assert_eq!(drain.finished().await, Outcome::Clean, "nothing is asked any more");
        assert_eq!(ask(&lookup, 1, None).await.user, Some(creator), "and still can be");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stops_working_at_once() {
    with_database(async |config| {
        let (store, _drain, lookup) = start(&config).await;
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        ready(&store, Topic, "t", creator).await;
        subscribe(&store, Topic, "t", guest).await;
        rotate_key(&store, guest, key(3)).await.unwrap();
        assert_eq!(ask(&lookup, 2, None).await.user, None);
        assert_eq!(ask(&lookup, 3, None).await.user, Some(guest));
        delete_user(&store, guest).await.unwrap();
        assert_eq!(ask(&lookup, 3, None).await.user, None);
        assert_eq!(ask(&lookup, 1, Some((Topic, "t"))).await.receivers, NOBODY);
    })
    .await;
}

/// Asks without a pause until it is told to stop.
async fn ask_on(lookup: &Lookup, is_over: &AtomicBool, asked: &AtomicU64, who: u8, topic: &str) {
    while !is_over.load(Ordering::Relaxed) {
        ask(lookup, who, Some((Topic, topic))).await;
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_never_older_than_its_question() {
    with_database(async |config| {
        let (store, _drain, lookup) = start(&config).await;
        let creator = user(&store, 1).await;
        ready(&store, Topic, "t", creator).await;
        let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
        let others = join_all((0..20).map(|_| ask_on(&lookup, &is_over, &asked, 1, "t")));
        let check = async {
            for round in 0..100 {
                let name = format!("new {round}");
                create(&store, Topic, &name, creator).await;
                let found = ask(&lookup, 1, Some((Topic, &name))).await;
                assert_eq!(found.object.unwrap().stage, Stage::Creating);
                begin_delete(&store, Topic, &name, creator).await.unwrap();
                let found = ask(&lookup, 1, Some((Topic, &name))).await;
                assert_eq!(found.object.unwrap().stage, Stage::Deleting);
            }
            is_over.store(true, Ordering::Relaxed);
        };
        tokio::join!(check, others);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_gets_its_own_answer() {
    with_database(async |mut config| {
        config.pool_size = 4;
        let (store, _drain, lookup) = start(&config).await;
        let mut users = Vec::new();
        for number in 0..20 {
            users.push(user(&store, number).await);
            let name = number.to_string();
            ready(&store, Topic, &name, users[usize::from(number)]).await;
            for other in &users[..usize::from(number)] {
                subscribe(&store, Topic, &name, *other).await;
            }
        }
        let (lookup, users) = (&lookup, &users);
        let questions = (0..3_000_usize).map(|number| async move {
            let (who, topic) = (number % 21, number / 21 % 21);
            let name = topic.to_string();
            let found = ask(lookup, u8::try_from(who).unwrap(), Some((Topic, &name))).await;
            assert_eq!(found.user, users.get(who).copied());
            assert_eq!(found.object.map(|object| object.creator), users.get(topic).copied());
            let subscribers = if topic < 20 { &users[..=topic] } else { &[] };
            assert_eq!(found.is_subscribed, topic < 20 && who <= topic);
            let others = subscribers.iter().copied().filter(|one| Some(*one) != found.user);
            let mut others: Vec<Uuid> = others.collect();
            others.sort();
            assert_eq!(found.receivers, others);
        });
        join_all(questions).await;
        let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lookup' \
                           AND datname = current_database()";
        let connections: i64 = one(&config, connections).await;
        assert!((1..=2).contains(&connections), "{connections}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_questions_at_once_read_no_whole_table() {
    with_database(async |config| {
        let (_store, _drain, lookup) = start(&config).await;
        let many = "INSERT INTO mom_users (id, key_hash) \
                    SELECT gen_random_uuid(), sha256(n::text::bytea) \
                    FROM generate_series(1, 20000) AS n; \
                    INSERT INTO mom_objects (kind, name, creator, stage) \
                    SELECT 'queue', row_number() OVER (), id, 'ready' FROM mom_users; \
                    ANALYZE mom_users, mom_objects";
        client(&config).await.batch_execute(many).await.unwrap();
        let scans = async |kind: &str| {
            let sum = format!(
                "SELECT coalesce(sum({kind}), 0)::int8 FROM pg_stat_user_tables \
                 WHERE relname IN ('mom_users', 'mom_objects')"
            );
            one::<i64>(&config, &sum).await
        };
        let (by_index, whole) = (scans("idx_scan").await, scans("seq_scan").await);
        for _ in 0..3 {
            let names: Vec<String> = (1..=500).map(|number| number.to_string()).collect();
            join_all(names.iter().map(|name| ask(&lookup, 1, Some((Queue, name))))).await;
        }
        // Both are told together, some time after.
        while scans("idx_scan").await < by_index + 3 * 500 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            ask(&lookup, 1, None).await;
        }
        assert_eq!(scans("seq_scan").await, whole);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_waits_too_long_fails() {
    with_database(async |config| {
        let (store, _drain, lookup) = start(&config).await;
        let somebody = user(&store, 1).await;
        let mut client = client(&config).await;
        let lock = client.transaction().await.unwrap();
        lock.batch_execute("LOCK TABLE mom_users").await.unwrap();
        let errors = join_all((0..50).map(|_| lookup.ask(key(1), None))).await;
        for error in errors {
            let error = error.unwrap_err();
            assert!(matches!(error, StoreError::Timeout { .. }), "{error}");
            assert!(error.is_transient());
        }
        lock.rollback().await.unwrap();
        assert_eq!(ask(&lookup, 1, None).await.user, Some(somebody));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_to_all_who_asked() {
    with_database(async |config| {
        let (store, _drain, lookup) = start(&config).await;
        let somebody = user(&store, 1).await;
        let client = client(&config).await;
        client.batch_execute("ALTER TABLE mom_users RENAME TO elsewhere").await.unwrap();
        for error in join_all((0..50).map(|_| lookup.ask(key(1), None))).await {
            let error = error.unwrap_err();
            assert!(error.is_transient() && !error.is_timeout());
            assert!(error.to_string().contains("platziverse db migrate"), "{error}");
            assert!(error.sqlstate().is_some() && std::error::Error::source(&error).is_some());
        }
        client.batch_execute("ALTER TABLE elsewhere RENAME TO mom_users").await.unwrap();
        assert_eq!(ask(&lookup, 1, None).await.user, Some(somebody));
    })
    .await;
}

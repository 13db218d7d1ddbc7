use futures_util::future::join_all;
use platziverse_store::Store;
use platziverse_store::events::{StoredEvent, insert};
use uuid::Uuid;

use crate::database::{client, one, with_database};
use crate::sightings::noon;

const COUNT: &str = "SELECT count(*) FROM events";

fn event(id: u128, payload: &str) -> StoredEvent<'_> {
    StoredEvent {
        id: Uuid::from_u128(id),
        name: "door.opened",
        source: None,
        payload,
        occurred_at: noon(),
        received_at: noon().plus_millis(7),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_read_as_they_were_sent() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        insert(&store, &[]).await.unwrap();
        let payload = r#"{"b": 1.50, "a": ["größer", "\"\\", null]}"#;
        let events = [
            StoredEvent { source: Some("a\"{,}b"), ..event(2, payload) },
            StoredEvent { name: "NULL", ..event(1, "null") },
        ];
        insert(&store, &events).await.unwrap();
        let rows = "SELECT array_agg(format('%s|%s|%s|%s|%s|%s', right(id::text, 1), name, source, \
            payload, occurred_at AT TIME ZONE 'UTC', received_at - occurred_at) ORDER BY id) \
            FROM events";
        assert_eq!(
            one::<Vec<String>>(&config, rows).await,
            [
                "1|NULL||null|2026-03-01 12:00:00|00:00:00.007",
                "2|door.opened|a\"{,}b|{\"a\": [\"größer\", \"\\\"\\\\\", null], \"b\": 1.50}|\
                 2026-03-01 12:00:00|00:00:00.007",
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_stored_once() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let first = [event(3, "1"), event(1, "2"), event(3, "3"), event(2, "4"), event(3, "5")];
        insert(&store, &first).await.unwrap();
        insert(&store, &first).await.unwrap();
        insert(&store, &[event(2, "6"), event(4, "7")]).await.unwrap();
        let payloads = "SELECT array_agg(payload::text ORDER BY id) FROM events";
        assert_eq!(one::<Vec<String>>(&config, payloads).await, ["2", "4", "1", "7"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jsonb_cannot_hold_is_data_trouble() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for bad in ["1e999999", r#""\u0000""#, "\"\0\"", r#""\ud800""#, "nonsense", "", &deep] {
            let error = insert(&store, &[event(1, "1"), event(2, bad)]).await.unwrap_err();
            assert!(!error.is_transient(), "{bad:.20}: {error:?}");
        }
        assert_eq!(one::<i64>(&config, COUNT).await, 0);
        let nul = StoredEvent { name: "a\0b", ..event(2, "1") };
        assert!(!insert(&store, &[nul]).await.unwrap_err().is_transient());
        insert(&store, &[event(1, "1")]).await.unwrap();
        assert_eq!(one::<i64>(&config, COUNT).await, 1);

        client(&config).await.batch_execute("ALTER TABLE events RENAME TO e").await.unwrap();
        let error = insert(&store, &[event(2, "1")]).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("platziverse db migrate"), "{error}");
    })
    .await;
}

/// Each event is in several batches, which begin at different places.
#[tokio::test(flavor = "multi_thread")]
async fn many_workers_store_each_event_once_and_never_deadlock() {
    with_database(async |config| {
        const EVENTS: u128 = 4_000;
        let store = Store::connect(&config, "test").await.unwrap();
        for round in 0..5 {
            let storing = async |offset: u128| {
                let ids = (0..EVENTS).map(|place| round * EVENTS + (place + offset) % EVENTS);
                let batch: Vec<_> = ids.map(|id| event(id, "{}")).collect();
                insert(&store, &batch).await.unwrap();
            };
            join_all([0, 1_000, 2_000, 3_000].map(storing)).await;
        }
        assert_eq!(one::<i64>(&config, COUNT).await, 20_000);
    })
    .await;
}

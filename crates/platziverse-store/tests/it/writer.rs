use std::time::Duration;

use platziverse_protocol::agent::{AgentMessage, Metric};
use platziverse_protocol::event::AgentEvent;
use platziverse_store::writer::Writer;
use platziverse_store::{Sighting, Written};
use uuid::Uuid;

use crate::database::{client, one, with_database};
use crate::sightings::{agent, message, noon, of, session, untimed, uuid};

const COUNT: &str = "SELECT count(*) FROM metrics";

fn written(stored: u64, duplicate: u64, rows: u64) -> Written {
    Written { stored, duplicate, rows }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_read_as_they_were_sent() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        assert_eq!(writer.write(&[]).await.unwrap(), written(0, 0, 0));
        assert_eq!(writer.write(&[message(7, "yyy")]).await.unwrap(), written(1, 0, 3));

        let client = client(&config).await;
        let agents = "SELECT format('%s|%s|%s|%s|%s|%s|%s|%s|%s', id, uuid, username, name, \
            hostname, pid, connected, gateway, last_seen_at AT TIME ZONE 'UTC') FROM agents";
        let agent: String = client.query_one(agents, &[]).await.unwrap().get(0);
        let expected = "1|yyy|platzi|platzi|platzibogota|10|t|gateway-1|2026-03-01 12:00:00.007";
        assert_eq!(agent, expected);

        let metrics = "SELECT format('%s|%s|%s|%s|%s|%s|%s', agent_id, type, value, text_value, \
            timestamp = received_at, received_at AT TIME ZONE 'UTC', ordinal) FROM metrics \
            WHERE message_id = $1 ORDER BY ordinal";
        let rows = client.query(metrics, &[&Uuid::from_u128(7)]).await.unwrap();
        let rows: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(
            rows,
            [
                "1|memory|1001|1001|t|2026-03-01 12:00:00.007|0",
                "1|temp|33||t|2026-03-01 12:00:00.007|1",
                "1|state||größer|t|2026-03-01 12:00:00.007|2",
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_of_adding_store_the_same() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        writer.write(&[message(1, "a")]).await.unwrap();
        // The repeated first one makes the batch skip duplicates.
        writer.write(&[message(1, "a"), message(2, "a")]).await.unwrap();
        let different = "SELECT count(DISTINCT (agent_id, type, value, text_value, ordinal, \
            received_at - timestamp)) FROM metrics";
        assert_eq!(one::<i64>(&config, different).await, 3);
        assert_eq!(one::<i64>(&config, COUNT).await, 6);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_add_no_row() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let batch = [message(1, "a"), message(2, "b"), message(3, "a")];
        assert_eq!(writer.write(&batch).await.unwrap(), written(3, 0, 9));
        assert_eq!(writer.write(&batch).await.unwrap(), written(0, 3, 0));
        let mixed = [message(3, "a"), message(4, "c"), message(4, "c")];
        assert_eq!(writer.write(&mixed).await.unwrap(), written(1, 2, 3));
        let empty = AgentMessage { agent: agent("a"), metrics: vec![], timestamp: None, id: None };
        let presence = [
            of(5, AgentEvent::Connected(agent("a"))),
            of(6, AgentEvent::Message(empty)),
            message(1, "a"),
        ];
        assert_eq!(writer.write(&presence).await.unwrap(), written(2, 1, 0));
        assert_eq!(one::<i64>(&config, COUNT).await, 12);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_but_undated_message_sent_again_adds_no_row() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let (first, later) = (noon(), noon().plus_millis(90_000_000));
        let batch = [untimed(1, "a", first), untimed(2, "a", first)];
        assert_eq!(writer.write(&batch).await.unwrap(), written(2, 0, 6));
        let again = [untimed(1, "a", later), untimed(3, "a", later), untimed(3, "a", first)];
        assert_eq!(writer.write(&again).await.unwrap(), written(1, 2, 3));
        assert_eq!(writer.write(&[untimed(1, "a", first)]).await.unwrap(), written(0, 1, 0));
        assert_eq!(one::<i64>(&config, COUNT).await, 9);

        // One that is dated is another message, whatever its id.
        let dated = |received| {
            let mut dated = untimed(1, "a", received);
            if let AgentEvent::Message(message) = &mut dated.event {
                message.timestamp = Some(later);
            }
            dated
        };
        let both = [dated(first), untimed(1, "a", later), dated(later)];
        assert_eq!(writer.write(&both).await.unwrap(), written(1, 2, 3));

        // Two writers at the same moment.
        let mut other = Writer::new(&config, "test");
        for id in 10..40 {
            let (one, two) = ([untimed(id, "a", first)], [untimed(id, "a", later)]);
            let (one, two) = tokio::join!(writer.write(&one), other.write(&two));
            assert_eq!(one.unwrap().rows + two.unwrap().rows, 3);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_may_arrive_first() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        writer.write(&[of(1, AgentEvent::Disconnected(uuid("a")))]).await.unwrap();
        let unknown = "SELECT count(*) FROM agents WHERE NOT connected AND name IS NULL \
                       AND last_seen_at IS NULL";
        assert_eq!(one::<i64>(&config, unknown).await, 1);
        writer.write(&[message(2, "a")]).await.unwrap();
        let known = "SELECT count(*) FROM agents WHERE NOT connected AND name = 'platzi'";
        assert_eq!(one::<i64>(&config, known).await, 1);
        writer.write(&[Sighting { session: session(2), ..message(3, "a") }]).await.unwrap();
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM agents WHERE connected").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_deleted_gets_a_new_row() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        writer.write(&[message(1, "a")]).await.unwrap();
        client(&config).await.execute("DELETE FROM agents", &[]).await.unwrap();
        assert_eq!(writer.write(&[message(2, "a")]).await.unwrap(), written(1, 0, 3));
        let orphans = "SELECT count(*) FROM metrics WHERE agent_id NOT IN (SELECT id FROM agents)";
        assert_eq!(one::<i64>(&config, orphans).await, 3, "those of the deleted agent");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_trouble_is_told_from_other_trouble() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let mut bad = message(1, "a");
        if let AgentEvent::Message(message) = &mut bad.event {
            message.metrics.push(Metric { kind: "a\0b".into(), number: None, text: None });
        }
        let error = writer.write(&[bad, message(2, "b")]).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        assert!(writer.is_connected(), "it has rolled back");
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM agents").await, 0);
        assert_eq!(writer.write(&[message(2, "b")]).await.unwrap(), written(1, 0, 3));

        let client = client(&config).await;
        client.batch_execute("ALTER TABLE metrics RENAME TO m").await.unwrap();
        let error = writer.write(&[message(3, "b")]).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        client.batch_execute("ALTER TABLE m RENAME TO metrics").await.unwrap();
        assert_eq!(writer.write(&[message(3, "b")]).await.unwrap(), written(1, 0, 3));

        let check = "ALTER TABLE agents ADD CONSTRAINT named CHECK (uuid <> 'forbidden')";
        client.batch_execute(check).await.unwrap();
        let error = writer.write(&[message(4, "forbidden")]).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
    })
    .await;
}

/// What stands in the way of `bad` does not stand in the way of `good`.
async fn refuses_only(writer: &mut Writer, bad: Sighting<'static>, good: Sighting<'static>) {
    let error = writer.write(&[bad.clone(), good.clone()]).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(!writer.write(&[bad]).await.unwrap_err().is_transient());
    assert_eq!(writer.write(&[good]).await.unwrap().stored, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_forbids_is_data_trouble() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let client = client(&config).await;
        let index = "CREATE UNIQUE INDEX agents_name ON agents (name)";
        client.batch_execute(index).await.unwrap();
        writer.write(&[message(1, "a")]).await.unwrap();
        let mut other = message(2, "b");
        if let AgentEvent::Message(message) = &mut other.event {
            message.agent.name = "another".into();
        }
        refuses_only(&mut writer, message(3, "c"), other).await;
        client.batch_execute("DROP INDEX agents_name").await.unwrap();

        let trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                $$BEGIN RAISE 'no'; END$$; \
            CREATE TRIGGER refuse BEFORE INSERT ON agents FOR EACH ROW \
                WHEN (NEW.uuid = 'forbidden') EXECUTE FUNCTION refuse()";
        client.batch_execute(trigger).await.unwrap();
        refuses_only(&mut writer, message(4, "forbidden"), message(5, "d")).await;

        let index = "CREATE UNIQUE INDEX metrics_once ON metrics (agent_id, type, timestamp)";
        client.batch_execute(index).await.unwrap();
        let mut twice = message(6, "a");
        if let AgentEvent::Message(message) = &mut twice.event {
            message.metrics[2].kind = "temp".into();
        }
        refuses_only(&mut writer, twice, message(7, "a")).await;
        // What is repeated is still known by its id.
        let again = [message(7, "a"), message(8, "a")];
        assert_eq!(writer.write(&again).await.unwrap(), written(1, 1, 3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_whose_numbers_are_taken_get_the_next_ones() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let restored = "INSERT INTO agents (id, uuid, connected, session, gateway) \
            OVERRIDING SYSTEM VALUE \
            SELECT n, 'old-' || n, false, gen_random_uuid(), 'g' FROM generate_series(1, 5000) n";
        client(&config).await.batch_execute(restored).await.unwrap();
        assert_eq!(writer.write(&[message(1, "a")]).await.unwrap(), written(1, 0, 3));
        assert_eq!(writer.write(&[message(2, "b")]).await.unwrap(), written(1, 0, 3));
        let id = "SELECT id FROM agents WHERE uuid = 'b'";
        let first: i64 = one(&config, id).await;
        assert!((5_001..5_010).contains(&first), "{first}");

        // One number in the way of a sequence that is past all others.
        let in_the_way = "INSERT INTO agents (id, uuid, connected, session, gateway) \
            OVERRIDING SYSTEM VALUE \
            SELECT last_value + 1, 'c', false, gen_random_uuid(), 'g' FROM agents_id_seq";
        client(&config).await.batch_execute(in_the_way).await.unwrap();
        assert_eq!(writer.write(&[message(3, "d")]).await.unwrap(), written(1, 0, 3));
        let last: i64 = one(&config, "SELECT max(id) FROM agents").await;
        assert!((first + 2..first + 10).contains(&last), "{last}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_no_partition_takes_is_not_refused() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        let client = client(&config).await;
        client.batch_execute("DROP TABLE metrics_default").await.unwrap();
        let error = writer.write(&[message(1, "a")]).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("no partition takes the row"), "{error}");
        let default = "CREATE TABLE metrics_default PARTITION OF metrics DEFAULT";
        client.batch_execute(default).await.unwrap();
        assert_eq!(writer.write(&[message(1, "a")]).await.unwrap(), written(1, 0, 3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_connection_was_cut_connects_again() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "to be cut");
        writer.write(&[message(1, "a")]).await.unwrap();
        let client = client(&config).await;
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'to be cut'";
        assert_eq!(client.query_one(cut, &[]).await.unwrap().get::<_, i64>(0), 1);
        // The cut is noticed by this write, or was before it.
        if let Err(error) = writer.write(&[message(2, "a")]).await {
            assert!(error.is_transient(), "{error}");
            assert!(!writer.is_connected());
            writer.write(&[message(2, "a")]).await.unwrap();
        }
        assert!(writer.is_connected());
        assert_eq!(one::<i64>(&config, COUNT).await, 6);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_given_up() {
    with_database(async |mut config| {
        config.statement_timeout = Duration::from_secs(2);
        let mut writer = Writer::new(&config, "test");
        writer.check().await.unwrap();
        let mut client = client(&config).await;
        let lock = client.transaction().await.unwrap();
        lock.batch_execute("LOCK TABLE metrics").await.unwrap();
        let error = writer.write(&[message(1, "a")]).await.unwrap_err();
        assert!(error.is_transient() && error.is_timeout(), "{error}");
        lock.rollback().await.unwrap();
        assert_eq!(writer.write(&[message(1, "a")]).await.unwrap(), written(1, 0, 3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_dropped_leaves_nothing_behind() {
    with_database(async |config| {
        let mut writer = Writer::new(&config, "test");
        writer.check().await.unwrap();
        let mut client = client(&config).await;
        let lock = client.transaction().await.unwrap();
        lock.batch_execute("LOCK TABLE metrics").await.unwrap();
        let batch = [message(1, "a")];
        let dropped = tokio::time::timeout(Duration::from_millis(100), writer.write(&batch));
        assert!(dropped.await.is_err());
        assert!(!writer.is_connected());
        lock.rollback().await.unwrap();
        assert_eq!(writer.write(&batch).await.unwrap(), written(1, 0, 3));
        assert_eq!(one::<i64>(&config, COUNT).await, 3);
    })
    .await;
}

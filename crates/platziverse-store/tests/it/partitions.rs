use chrono::{DateTime, NaiveDate, Utc};
use platziverse_config::DatabaseConfig;
use platziverse_protocol::time::Timestamp;
use platziverse_store::Sighting;
use platziverse_store::partitions::{Maintained, Policy, maintain, make_missing};
use platziverse_store::writer::Writer;

use crate::database::{client, one, with_database};
use crate::sightings::{message, untimed};

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// The database's time, by which today is told.
async fn now(config: &DatabaseConfig) -> Timestamp {
    let now: DateTime<Utc> = one(config, "SELECT now()").await;
    Timestamp::from_millis(now.timestamp_millis()).unwrap()
}

/// The partition of the day so many days after `now`.
fn partition(now: Timestamp, days: i64) -> String {
    let day: NaiveDate = now.plus_millis(days * DAY_MILLIS).to_chrono().date_naive();
    day.format("metrics_%Y%m%d").to_string()
}

/// A message of three metrics, received so many days after `now`.
fn message_on(now: Timestamp, id: u128, days: i64) -> Sighting<'static> {
    Sighting { received: now.plus_millis(days * DAY_MILLIS), ..message(id, "a") }
}

async fn done(config: &DatabaseConfig, ahead_days: u32, retention_days: u32) -> Maintained {
    let policy = Policy { ahead_days, retention_days };
    let now = now(config).await;
    maintain(config, "test", now, policy).await.unwrap().unwrap()
}

const IN_DEFAULT: &str = "SELECT count(*) FROM metrics_default";
const IN_ALL: &str = "SELECT count(*) FROM metrics";

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_around_today_and_rows_move_there() {
    with_database(async |config| {
        let now = now(&config).await;
        let mut writer = Writer::new(&config, "test");
        // Today, within a week, long ago.
        let messages = [(1, 0), (2, -7), (3, -20)].map(|(id, days)| message_on(now, id, days));
        writer.write(&messages).await.unwrap();
        assert_eq!(one::<i64>(&config, IN_DEFAULT).await, 9);

        let first = done(&config, 2, 30).await;
        assert_eq!(first.made, (-7..=2).map(|day| partition(now, day)).collect::<Vec<_>>());
        assert_eq!((first.moved, first.deleted, first.clocks_apart), (6, 0, None));
        assert!(first.failures.is_empty(), "{first:?}");
        assert_eq!(one::<i64>(&config, IN_DEFAULT).await, 3);
        assert_eq!(one::<i64>(&config, IN_ALL).await, 9);

        // The writer goes on through the change; duplicates are found where the rows went.
        let written = writer.write(&[message_on(now, 1, 0), message_on(now, 4, 2)]).await.unwrap();
        assert_eq!((written.stored, written.duplicate, written.rows), (1, 1, 3));
        let ahead = format!("SELECT count(*) FROM {}", partition(now, 2));
        assert_eq!(one::<i64>(&config, &ahead).await, 3);
        let again = done(&config, 2, 30).await;
        assert_eq!((again.made.len(), again.moved, again.dropped.len()), (0, 0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes() {
    with_database(async |config| {
        let now = now(&config).await;
        let mut writer = Writer::new(&config, "test");
        done(&config, 1, 30).await;
        let messages = [(1, 0), (2, -3), (3, -20)].map(|(id, days)| message_on(now, id, days));
        writer.write(&messages).await.unwrap();
        let long_ago = now.plus_millis(-20 * DAY_MILLIS);
        writer.write(&[untimed(4, "a", long_ago), untimed(5, "a", now)]).await.unwrap();

        let policy = Policy { ahead_days: 1, retention_days: 2 };
        // Whose clock is wrong throws nothing away.
        for hours in [-2, 2] {
            let wrong = now.plus_millis(hours * 60 * 60 * 1_000);
            let careful = maintain(&config, "test", wrong, policy).await.unwrap().unwrap();
            assert_eq!(careful.clocks_apart.unwrap().signum(), hours.signum());
            assert_eq!((careful.dropped.len(), careful.deleted, careful.times_deleted), (0, 0, 0));
        }
        let done = done(&config, 1, 2).await;
        assert_eq!(done.dropped, (-7..-2).map(|day| partition(now, day)).collect::<Vec<_>>());
        assert_eq!((done.deleted, done.times_deleted), (6, 1));
        let kept = "SELECT array_agg(DISTINCT right(message_id::text, 1)) FROM metrics";
        assert_eq!(one::<Vec<String>>(&config, kept).await, ["1", "5"]);
        let kept = "SELECT right(message_id::text, 1) FROM message_times";
        assert_eq!(one::<String>(&config, kept).await, "5");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn making_what_is_missing_throws_nothing_away() {
    with_database(async |config| {
        let now = now(&config).await;
        done(&config, 1, 30).await;
        let mut writer = Writer::new(&config, "test");
        let long_ago = now.plus_millis(-20 * DAY_MILLIS);
        let messages = [message_on(now, 1, -3), message_on(now, 2, 2), untimed(3, "a", long_ago)];
        writer.write(&messages).await.unwrap();

        let policy = Policy { ahead_days: 2, retention_days: 1 };
        let made = make_missing(&config, "test", policy).await.unwrap().unwrap();
        assert_eq!((made.made, made.moved), (vec![partition(now, 2)], 3));
        assert_eq!((made.dropped.len(), made.deleted, made.times_deleted), (0, 0, 0));
        let done = done(&config, 2, 1).await;
        assert_eq!((done.made.len(), done.dropped.len()), (0, 6));
        assert_eq!((done.deleted, done.times_deleted), (3, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_does_not_keep_the_rest_from_being_done() {
    with_database(async |config| {
        let now = now(&config).await;
        let other = client(&config).await;
        let left_over = partition(now, 0);
        other.batch_execute(&format!("CREATE TABLE {left_over} (i int)")).await.unwrap();
        let mut writer = Writer::new(&config, "test");
        writer.write(&[message_on(now, 1, 0), message_on(now, 2, -40)]).await.unwrap();
        let done = done(&config, 1, 30).await;
        assert_eq!((done.made.len(), done.deleted), (8, 3));
        assert_eq!(done.failures.len(), 1);
        assert_eq!(done.failures[0].step, format!("making {left_over}"));
        let error = done.failures[0].error.sqlstate().unwrap().code();
        assert_eq!(error, "42P07", "duplicate table");
        assert_eq!(one::<i64>(&config, IN_DEFAULT).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_maintains_at_a_time() {
    with_database(async |config| {
        // The number of the lock, as `pg_locks` splits it; other versions share it.
        let holder = client(&config).await;
        holder.execute("SELECT pg_advisory_lock(x'706c747a00000003'::int8)", &[]).await.unwrap();
        let policy = Policy { ahead_days: 1, retention_days: 30 };
        let now = now(&config).await;
        assert!(maintain(&config, "test", now, policy).await.unwrap().is_none());
        assert!(make_missing(&config, "test", policy).await.unwrap().is_none());
        holder.execute("SELECT pg_advisory_unlock_all()", &[]).await.unwrap();
        assert!(maintain(&config, "test", now, policy).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintainers_and_writers_run_at_once() {
    with_database(async |config| {
        let now = now(&config).await;
        let writing = async {
            let mut writer = Writer::new(&config, "test");
            for id in 0..200u128 {
                let days = i64::try_from(id % 9).unwrap() - 4;
                writer.write(&[message_on(now, id, days)]).await.unwrap();
            }
        };
        let policy = Policy { ahead_days: 7, retention_days: 30 };
        let maintaining = async {
            let (one, two) = tokio::join!(
                maintain(&config, "one", now, policy),
                maintain(&config, "two", now, policy),
            );
            let done: Vec<_> = [one, two].into_iter().filter_map(Result::unwrap).collect();
            assert!(!done.is_empty() && done.iter().all(|done| done.failures.is_empty()));
        };
        tokio::join!(writing, maintaining);
        assert_eq!(one::<i64>(&config, IN_ALL).await, 600);
        assert_eq!(one::<i64>(&config, IN_DEFAULT).await, 0);
        let today = partition(now, 0);
        let indexes = format!("SELECT count(*) FROM pg_indexes WHERE tablename = '{today}'");
        assert_eq!(one::<i64>(&config, &indexes).await, 2);
    })
    .await;
}

use platziverse_protocol::time::Timestamp;
use platziverse_store::Sighting;
use platziverse_store::partitions::{Policy, maintain};
use platziverse_store::writer::Writer;

use crate::database::{client, one, with_database};
use crate::sightings::{message, noon};

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// A message of three metrics, received so many days after noon.
fn message_on(id: u128, days: i64) -> Sighting<'static> {
    Sighting { received: noon().plus_millis(days * DAY_MILLIS), ..message(id, "a") }
}

fn policy(ahead_days: u32, retention_days: u32) -> Policy {
    Policy { ahead_days, retention_days }
}

const IN_DEFAULT: &str = "SELECT count(*) FROM metrics_default";
const IN_ALL: &str = "SELECT count(*) FROM metrics";

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_around_today_and_rows_move_there() {
    with_database(async |config| {
        let mut writer = Writer::connect(&config, "test").await.unwrap();
        // Today, within a week, long ago.
        writer.write(&[message_on(1, 0), message_on(2, -7), message_on(3, -20)]).await.unwrap();
        assert_eq!(one::<i64>(&config, IN_DEFAULT).await, 9);

        let done = maintain(&config, "test", noon(), policy(2, 30)).await.unwrap().unwrap();
        assert_eq!(done.made.len(), 10);
        assert_eq!(done.made[0], "metrics_20260222");
        assert_eq!(done.made[9], "metrics_20260303");
        assert_eq!((done.moved, done.deleted), (6, 0));
        assert_eq!(one::<i64>(&config, IN_DEFAULT).await, 3);
        assert_eq!(one::<i64>(&config, IN_ALL).await, 9);

        // The writer goes on through the change; duplicates are found where the rows went.
        let written = writer.write(&[message_on(1, 0), message_on(4, 2)]).await.unwrap();
        assert_eq!((written.stored, written.duplicate, written.rows), (1, 1, 3));
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM metrics_20260303").await, 3);
        let again = maintain(&config, "test", noon(), policy(2, 30)).await.unwrap().unwrap();
        assert_eq!(again, Default::default());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes() {
    with_database(async |config| {
        let mut writer = Writer::connect(&config, "test").await.unwrap();
        maintain(&config, "test", noon(), policy(1, 30)).await.unwrap().unwrap();
        writer.write(&[message_on(1, 0), message_on(2, -3), message_on(3, -20)]).await.unwrap();

        let later: Timestamp = noon().plus_millis(2 * DAY_MILLIS);
        let done = maintain(&config, "test", later, policy(1, 4)).await.unwrap().unwrap();
        assert_eq!(done.dropped.first().unwrap(), "metrics_20260222");
        assert_eq!(done.dropped.last().unwrap(), "metrics_20260226");
        assert_eq!(done.deleted, 3);
        let kept = "SELECT count(*) FROM metrics WHERE message_id = \
                    '00000000-0000-0000-0000-000000000001'";
        assert_eq!(one::<i64>(&config, kept).await, 3);
        assert_eq!(one::<i64>(&config, IN_ALL).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintainers_and_writers_run_at_once() {
    with_database(async |config| {
        let writing = async {
            let mut writer = Writer::connect(&config, "test").await.unwrap();
            for id in 0..200u128 {
                let days = i64::try_from(id % 9).unwrap() - 4;
                writer.write(&[message_on(id, days)]).await.unwrap();
            }
        };
        let maintaining = async {
            let (one, two) = tokio::join!(
                maintain(&config, "one", noon(), policy(7, 30)),
                maintain(&config, "two", noon(), policy(7, 30)),
            );
            assert!(one.unwrap().is_some() | two.unwrap().is_some());
        };
        tokio::join!(writing, maintaining);
        assert_eq!(one::<i64>(&config, IN_ALL).await, 600);
        assert_eq!(one::<i64>(&config, IN_DEFAULT).await, 0);
        let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'metrics_20260301'";
        assert_eq!(
            client(&config).await.query_one(indexes, &[]).await.unwrap().get::<_, i64>(0),
            2
        );
    })
    .await;
}

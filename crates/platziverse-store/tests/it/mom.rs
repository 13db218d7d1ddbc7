use std::time::Duration;

use platziverse_config::DatabaseConfig;
use platziverse_protocol::time::Timestamp;
use platziverse_store::Store;
use platziverse_store::mom::{
    Created, Deletion, Object, ObjectKind, ObjectOptions, Stage, Subscribed, Unfinished,
    Unsubscription, UserDeletion, Which, begin_create, begin_delete, begin_subscribe,
    begin_unsubscribe, claim_unfinished, create_user, delete_user, finish_create, finish_delete,
    finish_subscribe, finish_unsubscribe, forget_publishes, list, published, remember_publish,
    rotate_key, show,
};
use uuid::Uuid;

use crate::database::{client, one, with_database};

use ObjectKind::{Queue, Topic};

/// The longest that a change waits for whoever began it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn key(number: u8) -> [u8; 32] {
    [number; 32]
}

/// Adds a user whose key is `key(number)`.
pub(crate) async fn user(store: &Store, number: u8) -> Uuid {
    create_user(store, key(number)).await.unwrap()
}

pub(crate) async fn create(store: &Store, kind: ObjectKind, name: &str, creator: Uuid) -> Created {
    begin_create(store, kind, name, creator, &ObjectOptions::default()).await.unwrap()
}

pub(crate) async fn ready(store: &Store, kind: ObjectKind, name: &str, creator: Uuid) {
    assert_eq!(create(store, kind, name, creator).await, Created::New);
    finish_create(store, kind, name).await.unwrap();
}

pub(crate) async fn subscribe(store: &Store, kind: ObjectKind, name: &str, user: Uuid) {
    let begun = begin_subscribe(store, kind, name, user, 1_000).await.unwrap();
    assert_eq!(begun, Subscribed::Begun(ObjectOptions::default()));
    finish_subscribe(store, kind, name, user).await.unwrap();
}

/// Whom a deletion has to do with, sorted.
pub(crate) fn begun(deletion: Deletion) -> Vec<Uuid> {
    let Deletion::Begun { mut subscribers } = deletion else { panic!("{deletion:?}") };
    subscribers.sort();
    subscribers
}

pub(crate) async fn shown(store: &Store, kind: ObjectKind, name: &str) -> Option<(Stage, u64)> {
    let found = show(store, kind, name).await.unwrap();
    found.map(|(object, subscribers)| (object.stage, subscribers))
}

/// Lets time pass for all that is under way.
pub(crate) async fn age(config: &DatabaseConfig) {
    let all = ["mom_objects", "mom_subscriptions"].map(|table| {
        format!(
            "UPDATE {table} SET updated_at = updated_at - interval '11 s', claims = \
             array(SELECT one - interval '11 s' FROM unnest(claims) AS one);"
        )
    });
    client(config).await.batch_execute(&all.concat()).await.unwrap();
}

pub(crate) async fn claim(store: &Store) -> Vec<Unfinished> {
    claim_unfinished(store, PATIENCE, 1_000).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_come_and_go() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (one_user, other) = (user(&store, 1).await, user(&store, 2).await);
        assert_ne!(one_user, other);
        let taken = create_user(&store, key(1)).await.unwrap_err();
        assert!(!taken.is_transient(), "{taken}");
        assert!(rotate_key(&store, one_user, key(3)).await.unwrap());
        user(&store, 1).await;
        let taken = rotate_key(&store, one_user, key(2)).await.unwrap_err();
        assert!(!taken.is_transient(), "{taken}");

        assert_eq!(delete_user(&store, one_user).await.unwrap(), UserDeletion::Deleted);
        assert_eq!(delete_user(&store, one_user).await.unwrap(), UserDeletion::Unknown);
        assert!(!rotate_key(&store, one_user, key(4)).await.unwrap());
        assert_eq!(create(&store, Topic, "t", one_user).await, Created::UnknownUser);
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM mom_users").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_goes_with_the_last_subscription() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        for name in ["a", "b"] {
            ready(&store, Topic, name, creator).await;
            subscribe(&store, Topic, name, guest).await;
        }
        assert_eq!(delete_user(&store, creator).await.unwrap(), UserDeletion::HasObjects);
        assert_eq!(delete_user(&store, guest).await.unwrap(), UserDeletion::Deleted);
        assert_eq!(delete_user(&store, guest).await.unwrap(), UserDeletion::Unknown);
        assert_eq!(shown(&store, Topic, "a").await, Some((Stage::Ready, 1)));
        let again = begin_subscribe(&store, Topic, "a", guest, 9).await.unwrap();
        assert_eq!(again, Subscribed::UnknownUser);

        age(&config).await;
        let unfinished = claim(&store).await;
        assert_eq!(unfinished.len(), 2);
        for (one, name) in unfinished.into_iter().zip(["a", "b"]) {
            let expected = Unfinished::Unsubscribe { kind: Topic, name: name.into(), user: guest };
            assert_eq!(one, expected);
            assert!(finish_unsubscribe(&store, Topic, name, guest).await.unwrap());
        }
        let users = "SELECT count(*) FROM mom_users";
        assert_eq!(one::<i64>(&config, users).await, 2);
        assert_eq!(claim(&store).await, []);
        assert_eq!(one::<i64>(&config, users).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_once() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (creator, other) = (user(&store, 1).await, user(&store, 2).await);
        assert_eq!(create(&store, Queue, "á b", creator).await, Created::New);
        assert_eq!(create(&store, Queue, "á b", creator).await, Created::Unfinished);
        assert_eq!(create(&store, Queue, "á b", other).await, Created::Taken);
        assert_eq!(shown(&store, Queue, "á b").await, Some((Stage::Creating, 1)));
        let early = begin_subscribe(&store, Queue, "á b", other, 9).await.unwrap();
        assert_eq!(early, Subscribed::Unknown);

        finish_create(&store, Queue, "á b").await.unwrap();
        finish_create(&store, Queue, "á b").await.unwrap();
        assert_eq!(create(&store, Queue, "á b", creator).await, Created::Exists);
        assert_eq!(create(&store, Queue, "á b", other).await, Created::Taken);
        let options = ObjectOptions { max_length: Some(1), ..ObjectOptions::default() };
        let others = begin_create(&store, Queue, "á b", creator, &options).await.unwrap();
        assert_eq!(others, Created::Taken);
        assert_eq!(create(&store, Topic, "á b", other).await, Created::New, "another kind");
        let again = begin_subscribe(&store, Queue, "á b", creator, 9).await.unwrap();
        assert_eq!(again, Subscribed::Already, "the creator is subscribed");
        finish_create(&store, Queue, "nobody").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_kept() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let creator = user(&store, 1).await;
        let before =
            one::<i64>(&config, "SELECT floor(extract(epoch FROM now()))::int8").await * 1_000;
        let check = async |name: &str, options: ObjectOptions, kept: ObjectOptions| {
            let create = async || begin_create(&store, Queue, name, creator, &options).await;
            assert_eq!(create().await.unwrap(), Created::New);
            assert_eq!(create().await.unwrap(), Created::Unfinished, "{options:?}");
            let (object, _) = show(&store, Queue, name).await.unwrap().unwrap();
            assert!(object.created_at.as_millis() >= before);
            let Object { created_at, .. } = object;
            let (kind, stage) = (Queue, Stage::Creating);
            let name = name.to_owned();
            let expected = Object { kind, name, creator, options: kept, stage, created_at };
            assert_eq!(object, expected);
        };
        check("none", ObjectOptions::default(), ObjectOptions::default()).await;
        let all = ObjectOptions {
            max_length: Some(5_000_000_000),
            message_ttl: Some(Duration::from_micros(1_500)),
            delivery_limit: Some(7),
        };
        let kept = ObjectOptions { message_ttl: Some(Duration::from_millis(1)), ..all };
        check("all", all, kept).await;
        let huge = ObjectOptions {
            max_length: Some(u64::MAX),
            message_ttl: Some(Duration::MAX),
            delivery_limit: Some(u32::MAX),
        };
        let kept = ObjectOptions {
            max_length: Some(i64::MAX.unsigned_abs()),
            message_ttl: Some(Duration::from_millis(i64::MAX.unsigned_abs())),
            delivery_limit: Some(i32::MAX.unsigned_abs()),
        };
        check("huge", huge, kept).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_deleted_by_their_creator() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        ready(&store, Topic, "t", creator).await;
        subscribe(&store, Topic, "t", guest).await;
        let delete = async |by| begin_delete(&store, Topic, "t", by).await.unwrap();
        assert_eq!(delete(guest).await, Deletion::NotCreator);
        assert!(finish_delete(&store, Queue, "t").await.unwrap(), "there is none");

        let mut everybody = vec![creator, guest];
        everybody.sort();
        assert_eq!(begun(delete(creator).await), everybody);
        assert_eq!(delete_user(&store, creator).await.unwrap(), UserDeletion::HasObjects);
        assert_eq!(create(&store, Topic, "t", creator).await, Created::Deleting);
        assert_eq!(create(&store, Topic, "t", guest).await, Created::Deleting);
        let late = begin_subscribe(&store, Topic, "t", guest, 9).await.unwrap();
        assert_eq!(late, Subscribed::Unknown);
        let late = begin_unsubscribe(&store, Topic, "t", guest).await.unwrap();
        assert_eq!(late, Unsubscription::Unknown);
        finish_create(&store, Topic, "t").await.unwrap();
        assert_eq!(shown(&store, Topic, "t").await, Some((Stage::Deleting, 2)));
        assert!(finish_delete(&store, Topic, "t").await.unwrap());
        assert_eq!(shown(&store, Topic, "t").await, None);
        assert_eq!(delete(creator).await, Deletion::Unknown);
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM mom_subscriptions").await, 0);
        ready(&store, Topic, "t", guest).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_free_when_nobody_can_be_late() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let creator = user(&store, 1).await;
        // Two delete it, and one of them is slower.
        ready(&store, Queue, "q", creator).await;
        for _ in 0..2 {
            assert_eq!(begun(begin_delete(&store, Queue, "q", creator).await.unwrap()), [creator]);
        }
        assert!(!finish_delete(&store, Queue, "q").await.unwrap());
        assert_eq!(create(&store, Queue, "q", creator).await, Created::Deleting);
        assert!(finish_delete(&store, Queue, "q").await.unwrap());

        // One is still about to create it.
        assert_eq!(create(&store, Queue, "q", creator).await, Created::New);
        begun(begin_delete(&store, Queue, "q", creator).await.unwrap());
        finish_create(&store, Queue, "q").await.unwrap();
        assert!(!finish_delete(&store, Queue, "q").await.unwrap());
        assert_eq!(claim(&store).await, []);
        age(&config).await;
        let subscribers = vec![creator];
        let expected = Unfinished::Delete { kind: Queue, name: "q".into(), subscribers };
        assert_eq!(claim(&store).await, [expected]);
        assert!(finish_delete(&store, Queue, "q").await.unwrap());

        // The same creation twice, of which one is slower, or died.
        assert_eq!(create(&store, Queue, "q", creator).await, Created::New);
        assert_eq!(create(&store, Queue, "q", creator).await, Created::Unfinished);
        finish_create(&store, Queue, "q").await.unwrap();
        begun(begin_delete(&store, Queue, "q", creator).await.unwrap());
        assert!(!finish_delete(&store, Queue, "q").await.unwrap());
        age(&config).await;
        begun(begin_delete(&store, Queue, "q", creator).await.unwrap());
        assert!(finish_delete(&store, Queue, "q").await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_stays_until_no_subscriber_can_be_late() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        let delete = async || begun(begin_delete(&store, Topic, "t", creator).await.unwrap());
        let finish = async || finish_delete(&store, Topic, "t").await.unwrap();
        // Who is about to subscribe may do so after RabbitMQ has heard of the deletion.
        ready(&store, Topic, "t", creator).await;
        begin_subscribe(&store, Topic, "t", guest, 9).await.unwrap();
        assert_eq!(delete().await.len(), 2);
        finish_subscribe(&store, Topic, "t", guest).await.unwrap();
        assert!(!finish().await);
        age(&config).await;
        let unfinished = claim(&store).await;
        assert!(matches!(&unfinished[..], [Unfinished::Delete { .. }]), "{unfinished:?}");
        assert!(finish().await);

        // Who is about to unsubscribe is waited for.
        ready(&store, Topic, "t", creator).await;
        subscribe(&store, Topic, "t", guest).await;
        begin_unsubscribe(&store, Topic, "t", guest).await.unwrap();
        assert_eq!(delete().await.len(), 2);
        assert!(!finish().await);
        assert!(finish_unsubscribe(&store, Topic, "t", guest).await.unwrap());
        assert_eq!(delete().await, [creator]);
        assert!(finish().await);

        // Who has not come back is forgotten after a time.
        ready(&store, Topic, "t", creator).await;
        begin_subscribe(&store, Topic, "t", guest, 9).await.unwrap();
        age(&config).await;
        assert_eq!(delete().await.len(), 2);
        assert!(finish().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_subscribe_and_unsubscribe() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        let options = ObjectOptions { max_length: Some(9), ..ObjectOptions::default() };
        begin_create(&store, Topic, "t", creator, &options).await.unwrap();
        finish_create(&store, Topic, "t").await.unwrap();
        let begin = async |max| begin_subscribe(&store, Topic, "t", guest, max).await.unwrap();
        let end = async || begin_unsubscribe(&store, Topic, "t", guest).await.unwrap();
        let forget = async || finish_unsubscribe(&store, Topic, "t", guest).await.unwrap();

        assert_eq!(
            begin_subscribe(&store, Queue, "t", guest, 9).await.unwrap(),
            Subscribed::Unknown
        );
        assert_eq!(
            begin_unsubscribe(&store, Queue, "t", guest).await.unwrap(),
            Unsubscription::Unknown
        );
        assert_eq!(end().await, Unsubscription::NotSubscribed);
        assert_eq!(begin(1).await, Subscribed::TooMany);
        assert_eq!(begin(2).await, Subscribed::Begun(options));
        assert_eq!(begin(1).await, Subscribed::Begun(options), "it is counted already");
        finish_subscribe(&store, Topic, "t", guest).await.unwrap();
        assert_eq!(begin(1).await, Subscribed::Already);
        assert_eq!(end().await, Unsubscription::Begun);
        assert!(!forget().await, "the second subscriber may be late");
        assert_eq!(begin(9).await, Subscribed::Deleting);
        finish_subscribe(&store, Topic, "t", guest).await.unwrap();
        assert_eq!(begin(9).await, Subscribed::Deleting);
        assert_eq!(shown(&store, Topic, "t").await, Some((Stage::Ready, 1)));
        age(&config).await;
        assert_eq!(end().await, Unsubscription::Begun);
        assert!(forget().await);
        assert_eq!(end().await, Unsubscription::NotSubscribed);
        assert!(forget().await, "there is none");
        assert_eq!(begin(9).await, Subscribed::Begun(options));
        let nobody = begin_subscribe(&store, Topic, "t", Uuid::nil(), 9).await.unwrap();
        assert_eq!(nobody, Subscribed::UnknownUser);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_who_leaves_waits_for_whoever_creates() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let creator = user(&store, 1).await;
        // The same creation twice, of which one is slower, and makes the creator's queue once more.
        assert_eq!(create(&store, Topic, "t", creator).await, Created::New);
        assert_eq!(create(&store, Topic, "t", creator).await, Created::Unfinished);
        finish_create(&store, Topic, "t").await.unwrap();
        let begun = begin_unsubscribe(&store, Topic, "t", creator).await.unwrap();
        assert_eq!(begun, Unsubscription::Begun);
        assert!(!finish_unsubscribe(&store, Topic, "t", creator).await.unwrap());
        finish_create(&store, Topic, "t").await.unwrap();
        age(&config).await;
        let kind = Topic;
        let expected = Unfinished::Unsubscribe { kind, name: "t".into(), user: creator };
        assert_eq!(claim(&store).await, [expected]);
        assert!(finish_unsubscribe(&store, Topic, "t", creator).await.unwrap());

        // Nobody is late.
        subscribe(&store, Topic, "t", creator).await;
        begin_unsubscribe(&store, Topic, "t", creator).await.unwrap();
        assert!(finish_unsubscribe(&store, Topic, "t", creator).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unfinished_is_claimed_after_a_time() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        create(&store, Topic, "half", creator).await;
        for name in ["full", "going"] {
            ready(&store, Topic, name, creator).await;
        }
        begin_delete(&store, Topic, "going", creator).await.unwrap();
        begin_subscribe(&store, Topic, "full", guest, 9).await.unwrap();
        begin_unsubscribe(&store, Topic, "full", creator).await.unwrap();
        assert_eq!(claim(&store).await, []);

        age(&config).await;
        let first = claim_unfinished(&store, PATIENCE, 1).await.unwrap();
        assert_eq!(first.len(), 1);
        let mut all = first;
        all.extend(claim(&store).await);
        assert_eq!(claim(&store).await, [], "each is somebody's");
        let half = show(&store, Topic, "half").await.unwrap().unwrap().0;
        let object = show(&store, Topic, "full").await.unwrap().unwrap().0;
        let (kind, subscribers) = (Topic, vec![creator]);
        let expected = [
            Unfinished::Create(half),
            Unfinished::Delete { kind, name: "going".into(), subscribers },
            Unfinished::Subscribe { object, user: guest },
            Unfinished::Unsubscribe { kind, name: "full".into(), user: creator },
        ];
        assert_eq!(all, expected);

        finish_create(&store, Topic, "half").await.unwrap();
        assert!(finish_delete(&store, Topic, "going").await.unwrap());
        finish_subscribe(&store, Topic, "full", guest).await.unwrap();
        assert!(finish_unsubscribe(&store, Topic, "full", creator).await.unwrap());
        age(&config).await;
        assert_eq!(claim(&store).await, []);
        assert_eq!(shown(&store, Topic, "half").await, Some((Stage::Ready, 1)));
        assert_eq!(shown(&store, Topic, "full").await, Some((Stage::Ready, 1)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_listed_by_name() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        for name in ["b", "a", "á", "Z", "gone"] {
            ready(&store, Topic, name, creator).await;
        }
        ready(&store, Queue, "q", creator).await;
        ready(&store, Topic, "own", guest).await;
        subscribe(&store, Topic, "b", guest).await;
        subscribe(&store, Topic, "gone", guest).await;
        begin_delete(&store, Topic, "gone", creator).await.unwrap();
        create(&store, Queue, "half", guest).await;

        let check = async |user, which, kind, after, limit, expected: &[&str]| {
            let listed = list(&store, user, which, kind, after, limit).await.unwrap();
            let names: Vec<&str> = listed.iter().map(|object| object.name.as_str()).collect();
            assert_eq!(names, expected);
        };
        check(creator, Which::Created, Topic, None, 9, &["Z", "a", "b", "á"]).await;
        check(creator, Which::Created, Topic, None, 2, &["Z", "a"]).await;
        check(creator, Which::Created, Topic, Some("a"), 9, &["b", "á"]).await;
        check(creator, Which::Created, Queue, None, 9, &["q"]).await;
        check(creator, Which::Subscribed, Topic, Some("Z"), 9, &["a", "b", "á"]).await;
        check(guest, Which::Created, Topic, None, 9, &["own"]).await;
        check(guest, Which::Created, Queue, None, 9, &["half"]).await;
        check(guest, Which::Subscribed, Topic, None, 9, &["b", "own"]).await;
        begin_unsubscribe(&store, Topic, "b", guest).await.unwrap();
        check(guest, Which::Subscribed, Topic, None, 9, &["own"]).await;
        check(Uuid::nil(), Which::Created, Topic, None, 9, &[]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_are_known_by_their_keys() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let (one_user, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (message, receivers) = (Uuid::from_u128(3), 7);
        assert_eq!(published(&store, one_user, key(1)).await.unwrap(), None);
        remember_publish(&store, one_user, key(1), message, receivers).await.unwrap();
        remember_publish(&store, one_user, key(1), Uuid::nil(), 0).await.unwrap();
        assert_eq!(published(&store, one_user, key(1)).await.unwrap(), Some((message, receivers)));
        assert_eq!(published(&store, other, key(1)).await.unwrap(), None);
        assert_eq!(published(&store, one_user, key(2)).await.unwrap(), None);

        remember_publish(&store, one_user, key(2), message, u32::MAX).await.unwrap();
        let now: i64 = one(&config, "SELECT (extract(epoch FROM now()) * 1000)::int8").await;
        let now = Timestamp::from_millis(now).unwrap();
        let forget = async |at, limit| forget_publishes(&store, at, limit).await.unwrap();
        assert_eq!(forget(now.plus_millis(-60_000), 10).await, 0);
        let later = now.plus_millis(60_000);
        assert_eq!(forget(later, 1).await, 1);
        assert_eq!(published(&store, one_user, key(1)).await.unwrap(), None, "the oldest first");
        assert_eq!(forget(later, 10).await, 1);
        assert_eq!(forget(later, 10).await, 0);
    })
    .await;
}

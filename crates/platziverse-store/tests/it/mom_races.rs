//! Several servers and one catalogue.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use platziverse_config::DatabaseConfig;
use platziverse_store::mom::{
    Created, Deletion, ObjectKind, ObjectOptions, Stage, Subscribed, Unfinished, Unsubscription,
    UserDeletion, begin_create, begin_delete, begin_subscribe, begin_unsubscribe, claim_unfinished,
    delete_user, finish_create, finish_delete, finish_subscribe, finish_unsubscribe, show,
};
use platziverse_store::{Store, StoreError};
use uuid::Uuid;

use crate::database::{client, one, with_database};
use crate::mom::{age, begun, claim, create, ready, shown, subscribe, user};

use ObjectKind::{Queue, Topic};

const ROUNDS: u32 = 100;

/// Long enough for the other to be first for certain.
const AFTER: Duration = Duration::from_millis(500);

/// Lets the one or the other be first: this one last in the first round, then at random.
async fn stagger<T>(round: u32, what: impl Future<Output = T>) -> T {
    let some = Duration::from_millis(u64::from(round % 5));
    tokio::time::sleep(if round == 0 { AFTER } else { some }).await;
    what.await
}

/// The other one: last in the second round.
async fn other_way<T>(round: u32, what: impl Future<Output = T>) -> T {
    if round == 1 {
        tokio::time::sleep(AFTER).await;
    }
    what.await
}

async fn two(config: &DatabaseConfig) -> (Store, Store) {
    let first = Store::connect(config, "one").await.unwrap();
    (first, Store::connect(config, "two").await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_who_create_a_name_gets_it() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let users = [user(&store, 1).await, user(&store, 2).await];
        for name in (0..ROUNDS).map(|number| number.to_string()) {
            let results = tokio::join!(
                create(&store, Topic, &name, users[0]),
                create(&other, Topic, &name, users[1]),
            );
            let winner = match results {
                (Created::New, Created::Taken) => users[0],
                (Created::Taken, Created::New) => users[1],
                _ => panic!("{results:?}"),
            };
            let (object, subscribers) = show(&store, Topic, &name).await.unwrap().unwrap();
            assert_eq!((object.creator, subscribers), (winner, 1));

            // The same user twice, as when a request is repeated.
            let mut results: [Created; 2] = tokio::join!(
                create(&store, Queue, &name, winner),
                create(&other, Queue, &name, winner),
            )
            .into();
            results.sort_by_key(|result| *result != Created::New);
            assert_eq!(results, [Created::New, Created::Unfinished]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_created_again_or_not() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let creator = user(&store, 1).await;
        for number in 0..ROUNDS {
            let name = number.to_string();
            // Every other time whoever creates it waits until it can.
            let waits = number % 2 == 1;
            ready(&store, Queue, &name, creator).await;
            let delete = async {
                begun(begin_delete(&store, Queue, &name, creator).await.unwrap());
                assert!(finish_delete(&store, Queue, &name).await.unwrap());
            };
            let recreate = async {
                loop {
                    let created = create(&other, Queue, &name, creator).await;
                    if created == Created::New || created == Created::Deleting && !waits {
                        return created;
                    }
                }
            };
            let ((), created) = tokio::join!(delete, recreate);
            let left = match created {
                Created::New => Some((Stage::Creating, 1)),
                Created::Deleting => None,
                _ => panic!("{created:?}"),
            };
            assert_eq!(shown(&store, Queue, &name).await, left, "{created:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_knows_of_all_who_could_subscribe() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        let mut seen = HashSet::new();
        for round in 0..ROUNDS {
            let name = round.to_string();
            ready(&store, Topic, &name, creator).await;
            let (deletion, subscribed) = tokio::join!(
                stagger(round, begin_delete(&store, Topic, &name, creator)),
                other_way(round, begin_subscribe(&other, Topic, &name, guest, 9)),
            );
            let known = begun(deletion.unwrap()).contains(&guest);
            let subscribed = subscribed.unwrap();
            assert!(matches!(subscribed, Subscribed::Begun(_) | Subscribed::Unknown));
            assert_eq!(known, subscribed != Subscribed::Unknown);
            // Whoever has begun may be late.
            assert_eq!(finish_delete(&store, Topic, &name).await.unwrap(), !known);
            seen.insert(known);
        }
        assert_eq!(seen.len(), 2, "each was first at times");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_whoever_unsubscribes() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let (creator, guest) = (user(&store, 1).await, user(&store, 2).await);
        let mut seen = HashSet::new();
        for round in 0..ROUNDS {
            let name = round.to_string();
            ready(&store, Topic, &name, creator).await;
            subscribe(&store, Topic, &name, guest).await;
            let delete = async {
                begun(begin_delete(&store, Topic, &name, creator).await.unwrap());
                finish_delete(&store, Topic, &name).await.unwrap()
            };
            let unsubscribe = begin_unsubscribe(&other, Topic, &name, guest);
            let unsubscribe = other_way(round, unsubscribe);
            let (is_gone, unsubscribed) = tokio::join!(stagger(round, delete), unsubscribe);
            assert_eq!(is_gone, unsubscribed.unwrap() == Unsubscription::Unknown);
            seen.insert(is_gone);
        }
        assert_eq!(seen.len(), 2, "each was first at times");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_deleted_subscribes_to_nothing() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let creator = user(&store, 200).await;
        ready(&store, Topic, "t", creator).await;
        let mut seen = HashSet::new();
        for round in 0..ROUNDS {
            let guest = user(&store, 1).await;
            let (deleted, subscribed) = tokio::join!(
                stagger(round, delete_user(&store, guest)),
                other_way(round, begin_subscribe(&other, Topic, "t", guest, 1_000)),
            );
            assert_eq!(deleted.unwrap(), UserDeletion::Deleted);
            let left = format!("SELECT stage FROM mom_subscriptions WHERE user_id = '{guest}'");
            let left = client(&config).await.query_opt(&left, &[]).await.unwrap();
            let left: Option<String> = left.map(|row| row.get(0));
            let is_unknown = subscribed.unwrap() == Subscribed::UnknownUser;
            assert_eq!(left.as_deref(), (!is_unknown).then_some("deleting"));
            let again = begin_subscribe(&store, Topic, "t", guest, 1_000).await.unwrap();
            assert_eq!(again, Subscribed::UnknownUser);
            seen.insert(is_unknown);
        }
        assert_eq!(seen.len(), 2, "each was first at times");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_deleted_creates_nothing() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let creator = user(&store, 200).await;
        ready(&store, Topic, "t", creator).await;
        let mut seen = HashSet::new();
        for (round, number) in (0..ROUNDS).zip(0..) {
            // With a subscription, the row stays for a while.
            let guest = user(&store, number).await;
            subscribe(&store, Topic, "t", guest).await;
            let (name, options) = (round.to_string(), ObjectOptions::default());
            let (deleted, created) = tokio::join!(
                stagger(round, delete_user(&store, guest)),
                other_way(round, begin_create(&other, Topic, &name, guest, &options)),
            );
            let is_deleted = match (deleted.unwrap(), created.unwrap()) {
                (UserDeletion::Deleted, Created::UnknownUser) => true,
                (UserDeletion::HasObjects, Created::New) => false,
                both => panic!("{both:?}"),
            };
            seen.insert(is_deleted);
        }
        assert_eq!(seen.len(), 2, "each was first at times");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_subscribers_than_there_may_be() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let creator = user(&store, 200).await;
        let guests = join_all((0..20).map(|number| user(&store, number))).await;
        for name in ["a", "b", "c"] {
            ready(&store, Topic, name, creator).await;
            let all = guests.iter().zip([&store, &other].into_iter().cycle());
            let all = all.map(|(guest, store)| begin_subscribe(store, Topic, name, *guest, 6));
            let all: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
            let begun = all.iter().filter(|one| matches!(one, Subscribed::Begun(_))).count();
            let refused = all.iter().filter(|one| **one == Subscribed::TooMany).count();
            assert_eq!((begun, refused), (5, 15));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_finish_what_was_left_share_it() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let creator = user(&store, 1).await;
        ready(&store, Topic, "t", creator).await;
        let many = format!(
            "INSERT INTO mom_objects (kind, name, creator, stage, updated_at) \
             SELECT 'queue', n, '{creator}', 'creating', now() - interval '1 hour' \
             FROM generate_series(1, 1000) AS n; \
             INSERT INTO mom_users (id) SELECT gen_random_uuid() FROM generate_series(1, 1000); \
             INSERT INTO mom_subscriptions (kind, name, user_id, stage, updated_at) \
             SELECT 'topic', 't', id, 'deleting', now() - interval '1 hour' \
             FROM mom_users WHERE key_hash IS NULL"
        );
        client(&config).await.batch_execute(&many).await.unwrap();
        let claim_all = async |store: &Store| {
            let mut claimed = Vec::new();
            loop {
                match claim_unfinished(store, Duration::from_secs(10), 50).await? {
                    none if none.is_empty() => return Ok::<_, StoreError>(claimed),
                    some => claimed.extend(some),
                }
            }
        };
        let (first, second) = tokio::join!(claim_all(&store), claim_all(&other));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(!first.is_empty() && !second.is_empty(), "they did not meet");
        let names: HashSet<String> =
            first.iter().chain(&second).map(|one| format!("{one:?}")).collect();
        assert_eq!((names.len(), first.len() + second.len()), (2_000, 2_000), "each once");
    })
    .await;
}

/// What RabbitMQ has: names of objects, and of subscribers' queues.
#[derive(Default)]
struct Broker {
    has: Mutex<BTreeSet<String>>,
}

impl Broker {
    async fn make(&self, name: String, chance: &mut Chance) {
        tokio::time::sleep(Duration::from_millis(chance.below(6))).await;
        self.has.lock().unwrap().insert(name);
    }

    async fn remove(&self, name: String, chance: &mut Chance) {
        tokio::time::sleep(Duration::from_millis(chance.below(6))).await;
        self.has.lock().unwrap().remove(&name);
    }
}

/// The same numbers in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A server that does what it is asked, and now and then dies half-way.
struct Server<'a> {
    store: &'a Store,
    broker: &'a Broker,
    chance: Chance,
    is_mortal: bool,
}

impl Server<'_> {
    fn dies(&mut self) -> bool {
        self.is_mortal && self.chance.below(8) == 0
    }

    async fn obey(&mut self, topic: &str, user: Uuid) {
        let store = self.store;
        match self.chance.below(6) {
            0 | 1 => {
                let created = create(store, Topic, topic, user).await;
                if matches!(created, Created::New | Created::Unfinished) {
                    self.create(topic, user).await;
                }
            }
            2 => {
                let deletion = begin_delete(store, Topic, topic, user).await.unwrap();
                if let Deletion::Begun { subscribers } = deletion {
                    self.delete(topic, &subscribers).await;
                }
            }
            3 | 4 => {
                let subscribed = begin_subscribe(store, Topic, topic, user, 9).await.unwrap();
                if let Subscribed::Begun(_) = subscribed {
                    self.subscribe(topic, user).await;
                }
            }
            _ => {
                let ended = begin_unsubscribe(store, Topic, topic, user).await.unwrap();
                if ended == Unsubscription::Begun {
                    self.unsubscribe(topic, user).await;
                }
            }
        }
    }

    async fn create(&mut self, topic: &str, user: Uuid) {
        self.broker.make(topic.to_owned(), &mut self.chance).await;
        if self.dies() {
            return;
        }
        self.broker.make(format!("{topic}.{user}"), &mut self.chance).await;
        if !self.dies() {
            finish_create(self.store, Topic, topic).await.unwrap();
        }
    }

    async fn delete(&mut self, topic: &str, subscribers: &[Uuid]) {
        for user in subscribers {
            self.broker.remove(format!("{topic}.{user}"), &mut self.chance).await;
            if self.dies() {
                return;
            }
        }
        self.broker.remove(topic.to_owned(), &mut self.chance).await;
        if !self.dies() {
            finish_delete(self.store, Topic, topic).await.unwrap();
        }
    }

    async fn subscribe(&mut self, topic: &str, user: Uuid) {
        self.broker.make(format!("{topic}.{user}"), &mut self.chance).await;
        if !self.dies() {
            finish_subscribe(self.store, Topic, topic, user).await.unwrap();
        }
    }

    async fn unsubscribe(&mut self, topic: &str, user: Uuid) {
        self.broker.remove(format!("{topic}.{user}"), &mut self.chance).await;
        if !self.dies() {
            finish_unsubscribe(self.store, Topic, topic, user).await.unwrap();
        }
    }

    /// Answers how much there was to finish.
    async fn reconcile(&mut self) -> usize {
        let unfinished = claim(self.store).await;
        for one in &unfinished {
            match one {
                Unfinished::Create(object) => self.create(&object.name, object.creator).await,
                Unfinished::Delete { name, subscribers, .. } => {
                    self.delete(name, subscribers).await;
                }
                Unfinished::Subscribe { object, user } => {
                    self.subscribe(&object.name, *user).await;
                }
                Unfinished::Unsubscribe { name, user, .. } => self.unsubscribe(name, *user).await,
            }
        }
        unfinished.len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_servers_meet_and_die_both_sides_agree_in_the_end() {
    with_database(async |config| {
        let (store, other) = two(&config).await;
        let users = [user(&store, 1).await, user(&store, 2).await, user(&store, 3).await];
        let broker = Broker::default();
        let server = |seed, is_mortal| {
            let store = if seed % 2 == 0 { &store } else { &other };
            Server { store, broker: &broker, chance: Chance(seed), is_mortal }
        };
        let mut left = 0;
        for round in 0..30 {
            let busy = (0..8).map(|number| {
                let mut server = server(round * 8 + number, true);
                async move {
                    for _ in 0..12 {
                        let topic = ["a", "b"][usize::from(server.chance.below(4) == 0)];
                        let who = usize::try_from(server.chance.below(3)).unwrap();
                        server.obey(topic, users[who]).await;
                    }
                }
            });
            join_all(busy).await;

            age(&config).await;
            let (mut first, mut second) = (server(0, false), server(1, false));
            let (one_part, rest) = tokio::join!(first.reconcile(), second.reconcile());
            left += one_part + rest;
            age(&config).await;
            assert_eq!(first.reconcile().await, 0, "all is finished");
            let all = "SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM \
                       (SELECT name FROM mom_objects WHERE stage = 'ready' UNION ALL \
                        SELECT name || '.' || user_id FROM mom_subscriptions \
                        WHERE stage = 'ready') AS known";
            let catalogue: Vec<String> = one(&config, all).await;
            let catalogue: BTreeSet<String> = catalogue.into_iter().collect();
            assert_eq!(catalogue, *broker.has.lock().unwrap(), "round {round}");
        }
        assert!(left > 30, "too few died: {left}");
    })
    .await;
}

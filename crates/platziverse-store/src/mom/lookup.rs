//! Who asks, and about what: the question of every request.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platziverse_service::Drain;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::Parameter;
use super::object::{Object, ObjectKind};
use crate::error::StoreError;
use crate::store::Store;

/// How long a question may wait for its answer.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The questions that may wait; more wait for room.
const QUESTIONS_MAX: usize = 10_000;

/// The most questions in one statement.
const BATCH_MAX: usize = 500;

/// The statements that may be under way.
const LANES: usize = 2;

/// What the catalogue knows of a key and an object, at one moment after it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whose key it is.
    pub user: Option<Uuid>,
    /// The object, at whatever stage.
    pub object: Option<Object>,
    /// Whether the user's subscription to it is ready.
    pub is_subscribed: bool,
    /// Of a topic: all its subscribers but the user, without those whose subscription is being
    /// ended.
    pub receivers: Vec<Uuid>,
}

/// Gathers questions while others are asked, and asks them together. Cloning shares it.
#[derive(Clone)]
pub struct Lookup {
    gathering: Arc<Gathering>,
}

struct Gathering {
    store: Store,
    drain: Drain,
    /// One for each question that may wait.
    places: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    questions: VecDeque<Question>,
    /// Tasks that ask until nothing waits any more.
    lanes: usize,
}

struct Question {
    key_hash: [u8; 32],
    about: Option<(ObjectKind, String)>,
    answer: oneshot::Sender<Result<Found, StoreError>>,
    /// Kept also when whoever asked has given up. The semaphore is never closed.
    _place: Result<OwnedSemaphorePermit, AcquireError>,
}

const WHAT: &str = "looking up a key";

impl Lookup {
    /// A lookup that asks `store`, with at most two of its connections at a time. It has tasks only
    /// while it has questions.
    pub fn start(drain: &Drain, store: &Store) -> Self {
        let gathering = Gathering {
            store: store.clone(),
            drain: drain.clone(),
            places: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            waiting: Mutex::default(),
        };
        Self { gathering: Arc::new(gathering) }
    }

    /// Whose key it is whose SHA-256 this is, and what is known of an object. Takes at most
    /// [`LOOKUP_TIMEOUT`].
    pub async fn ask(
        &self,
        key_hash: [u8; 32],
        about: Option<(ObjectKind, &str)>,
    ) -> Result<Found, StoreError> {
        // PostgreSQL refuses U+0000, and with it all that is asked together.
        let about = about.filter(|(_, name)| !name.contains('\0'));
        let about = about.map(|(kind, name)| (kind, name.to_owned()));
        let answered = timeout(LOOKUP_TIMEOUT, async {
            let place = self.gathering.places.clone().acquire_owned().await;
            let (answer, answered) = oneshot::channel();
            self.gathering.add(Question { key_hash, about, answer, _place: place });
            match answered.await {
                Ok(answer) => answer,
                // The statement took too long, and so has this.
                Err(_) => std::future::pending().await,
            }
        });
        answered.await.unwrap_or_else(|_| Err(self.gathering.store.late(WHAT, LOOKUP_TIMEOUT)))
    }
}

impl Gathering {
    fn add(self: &Arc<Self>, question: Question) {
        let mut waiting = self.waiting();
        waiting.questions.push_back(question);
        if waiting.lanes < LANES {
            waiting.lanes += 1;
            let gathering = self.clone();
            self.drain.spawn("lookup", async move {
                while let Some(questions) = gathering.take() {
                    gathering.answer(questions).await;
                }
            });
        }
    }

    /// What to ask next; nothing ends the lane.
    fn take(&self) -> Option<Vec<Question>> {
        let mut waiting = self.waiting();
        // Whoever has given up needs no answer.
        waiting.questions.retain(|question| !question.answer.is_closed());
        let count = waiting.questions.len().min(BATCH_MAX);
        if count == 0 {
            waiting.lanes -= 1;
            return None;
        }
        Some(waiting.questions.drain(..count).collect())
    }

    async fn answer(&self, questions: Vec<Question>) {
        let asked = self.store.run(WHAT, async |client| ask(client, &questions).await);
        // Everybody has given up by then. The connection is, too.
        let Ok(found) = timeout(LOOKUP_TIMEOUT, asked).await else { return };
        match found {
            Ok(found) => {
                for (question, found) in questions.into_iter().zip(found) {
                    _ = question.answer.send(Ok(found));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for question in questions {
                    _ = question.answer.send(Err(StoreError::Shared(error.clone())));
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscribers are read once for each topic, with the first question about it. `LIMIT` has each
/// question use the index: for many at once PostgreSQL would rather read whole tables.
const FIND: &str = "\
SELECT u.id AS user_id, o.*,
  EXISTS (SELECT FROM mom_subscriptions AS s WHERE s.kind = q.kind AND s.name = q.name
    AND s.user_id = u.id AND s.stage = 'ready') AS is_subscribed,
  CASE WHEN q.is_first AND q.kind = 'topic' THEN ARRAY(SELECT s.user_id FROM mom_subscriptions AS s
    WHERE s.kind = q.kind AND s.name = q.name AND s.stage <> 'deleting') END AS subscribers
FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bool[])
  WITH ORDINALITY AS q(key_hash, kind, name, is_first, place)
LEFT JOIN LATERAL (SELECT id FROM mom_users WHERE key_hash = q.key_hash LIMIT 1) AS u ON true
LEFT JOIN LATERAL (SELECT * FROM mom_objects WHERE kind = q.kind AND name = q.name LIMIT 1) AS o
  ON true
ORDER BY q.place";

/// Answers each question, in their order.
async fn ask(client: &Client, questions: &[Question]) -> Result<Vec<Found>, Error> {
    let columns = Columns::of(questions);
    let Columns { keys, kinds, names, are_first, firsts } = &columns;
    let parameters: [Parameter<'_>; 4] = [
        (keys, Type::BYTEA_ARRAY),
        (kinds, Type::TEXT_ARRAY),
        (names, Type::TEXT_ARRAY),
        (are_first, Type::BOOL_ARRAY),
    ];
    let rows = client.query_typed(FIND, &parameters).await?;
    let subscribers: Vec<Option<Vec<Uuid>>> =
        rows.iter().map(|row| row.try_get("subscribers")).collect::<Result<_, _>>()?;
    let read = |(row, first): (&Row, &usize)| {
        let user: Option<Uuid> = row.try_get("user_id")?;
        let kind: Option<ObjectKind> = row.try_get("kind")?;
        let all = subscribers.get(*first).and_then(Option::as_ref).into_iter().flatten();
        Ok(Found {
            user,
            object: kind.is_some().then(|| Object::read(row)).transpose()?,
            is_subscribed: row.try_get("is_subscribed")?,
            receivers: all.copied().filter(|one| Some(*one) != user).collect(),
        })
    };
    rows.iter().zip(firsts).map(read).collect()
}

/// Questions as arrays, one for each parameter of [`FIND`].
#[derive(Default)]
struct Columns<'a> {
    keys: Vec<&'a [u8]>,
    kinds: Vec<Option<&'a str>>,
    names: Vec<Option<&'a str>>,
    /// Whether a question is the first about its object.
    are_first: Vec<bool>,
    /// Where the first question about the same object is.
    firsts: Vec<usize>,
}

impl<'a> Columns<'a> {
    fn of(questions: &'a [Question]) -> Self {
        let mut columns = Self::default();
        let mut known = HashMap::new();
        for (place, Question { key_hash, about, .. }) in questions.iter().enumerate() {
            let first = *known.entry(about).or_insert(place);
            columns.keys.push(key_hash);
            columns.kinds.push(about.as_ref().map(|(kind, _)| kind.as_str()));
            columns.names.push(about.as_ref().map(|(_, name)| name.as_str()));
            columns.are_first.push(first == place);
            columns.firsts.push(first);
        }
        columns
    }
}

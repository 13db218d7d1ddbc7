//! Ending the sessions of gateways that are gone. One worker at a time does it.

use platziverse_config::DatabaseConfig;
use platziverse_protocol::agent::AgentUuid;
use platziverse_protocol::presence::SessionId;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::connection::Link;
use crate::error::StoreError;
use crate::frozen::{self, Frozen};
use crate::locks;

/// The most agents that [`Leader::lost`] names, so that telling of them and ending them is short,
/// and takes little memory.
pub const LOST_MAX: usize = 10_000;

/// Who would sweep: a connection of its own, which keeps asking for the lock.
///
/// PostgreSQL ends it after 10 s in which it asks nothing.
pub struct Candidate {
    link: Link,
}

/// What came of asking for the lock.
pub enum Election {
    /// It is held now.
    Won(Leader),
    /// Another process holds it.
    Lost(Candidate),
}

impl Candidate {
    /// Connects. `application_name` is what `pg_stat_activity` shows.
    pub async fn connect(
        config: &DatabaseConfig,
        application_name: &str,
    ) -> Result<Self, StoreError> {
        Ok(Self { link: locks::open(config, application_name).await? })
    }

    /// Becomes the leader, unless another process is.
    pub async fn stand(self) -> Result<Election, StoreError> {
        let won = locks::try_take(&self.link, "asking to lead the sweep", locks::SWEEP).await?;
        Ok(if won { Election::Won(Leader { link: self.link }) } else { Election::Lost(self) })
    }
}

/// The right to sweep: an advisory lock, held by a connection of its own. It is lost with the
/// connection, which PostgreSQL ends after 10 s in which it asks nothing, and given up by dropping
/// this. After an error it is to be dropped.
pub struct Leader {
    link: Link,
}

/// An agent that is connected, as far as the database knows, on a gateway that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which agent.
    pub uuid: AgentUuid<'static>,
    /// Its session.
    pub session: SessionId,
    /// The gateway instance that is gone.
    pub gateway: String,
}

impl Leader {
    /// The agents that are connected on a gateway other than these: at most [`LOST_MAX`], in any
    /// order, after which there may be more.
    ///
    /// An empty list means all of them: the caller has listened for a whole lease. Whoever tells
    /// the world does so before [`end`](Self::end): a process that dies in between has told too
    /// early, and the next leader tells it again. Told afterwards, it might never be told.
    pub async fn lost(&self, alive: &[impl AsRef<str>]) -> Result<Vec<Lost>, StoreError> {
        let alive: Vec<&str> = alive.iter().map(AsRef::as_ref).collect();
        let limit = i64::try_from(LOST_MAX).unwrap_or(i64::MAX);
        let client = &self.link.client;
        let asked = async {
            let gone: Vec<String> =
                client.query(GONE, &[&alive]).await?.iter().map(|row| row.get(0)).collect();
            if gone.is_empty() {
                return Ok(Vec::new());
            }
            client.query(LOST, &[&gone, &limit]).await
        };
        let rows = self.link.within("looking for the agents of lost gateways", asked).await?;
        Ok(rows.iter().filter_map(lost).collect())
    }

    /// Marks these agents disconnected, unless they have a newer session meanwhile, and answers
    /// how many it marked.
    pub async fn end(&self, lost: &[Lost]) -> Result<u64, StoreError> {
        let uuids: Vec<&str> = lost.iter().map(|one| one.uuid.as_str()).collect();
        let sessions: Vec<Uuid> = lost.iter().map(|one| *one.session.as_uuid()).collect();
        let ended = async { self.link.client.execute(END, &[&uuids, &sessions]).await };
        self.link.within("ending the sessions of lost gateways", ended).await
    }

    /// Ends the database sessions of workers that are frozen while they write: others would wait
    /// for what those hold. One counts as frozen when PostgreSQL waits for the rest of a statement
    /// that was begun more than `database.statement_timeout` and 5 s ago. To be called every few
    /// seconds. What PostgreSQL refuses here leaves the leader as it is.
    pub async fn end_frozen(&self) -> Result<Vec<Frozen>, StoreError> {
        frozen::end(&self.link).await
    }
}

/// The gateways with connected agents, found by leaping through the index from one to the next:
/// as many steps as there are gateways, however many agents each has.
const GONE: &str = "\
WITH RECURSIVE g(gateway) AS (
  (SELECT gateway FROM agents WHERE connected ORDER BY gateway LIMIT 1)
  UNION ALL
  SELECT (SELECT a.gateway FROM agents a WHERE a.connected AND a.gateway > g.gateway
          ORDER BY a.gateway LIMIT 1)
  FROM g WHERE g.gateway IS NOT NULL
)
SELECT gateway FROM g WHERE gateway IS NOT NULL AND gateway <> ALL ($1::text[])";

const LOST: &str = "\
SELECT uuid, session, gateway FROM agents WHERE connected AND gateway = ANY ($1::text[])
LIMIT $2";

/// Locks in the order of the writers, so that the two never deadlock.
const END: &str = "\
WITH ended AS (
  SELECT a.id FROM agents a
  JOIN unnest($1::text[], $2::uuid[]) AS lost(uuid, session)
    ON a.uuid = lost.uuid AND a.session = lost.session
  WHERE a.connected ORDER BY a.uuid FOR UPDATE OF a
)
UPDATE agents SET connected = false, updated_at = now()
FROM ended WHERE agents.id = ended.id";

/// A stored uuid was checked before it was stored.
fn lost(row: &Row) -> Option<Lost> {
    let uuid = AgentUuid::parse(row.get::<_, String>(0)).ok()?;
    let session = SessionId::from_uuid(row.get::<_, Uuid>(1));
    Some(Lost { uuid, session, gateway: row.get(2) })
}

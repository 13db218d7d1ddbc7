//! Ending the sessions of gateways that are gone. One worker at a time does it.

use platziverse_config::DatabaseConfig;
use platziverse_protocol::agent::AgentUuid;
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::time::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::connection::Link;
use crate::error::StoreError;
use crate::locks;

/// The most agents that one call ends, so that neither its transaction nor its answer grows
/// without bound.
pub const ENDED_MAX: usize = 10_000;

const ENDING: &str = "ending the sessions of lost gateways";

/// The right to sweep: an advisory lock, held by a connection of its own. It is lost with the
/// connection, and given up by dropping this.
pub struct Leader {
    link: Link,
}

/// An agent whose session was ended by the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which agent.
    pub uuid: AgentUuid<'static>,
    /// Its session.
    pub session: SessionId,
    /// The gateway instance that is gone.
    pub gateway: String,
}

impl Leader {
    /// Becomes the leader, unless another process is.
    pub async fn acquire(
        config: &DatabaseConfig,
        application_name: &str,
    ) -> Result<Option<Self>, StoreError> {
        let link = Link::open(config, application_name).await?;
        let lock = link.client.query_one(locks::TRY_LOCK, &[&locks::SWEEP]);
        let row = link.within("asking to lead the sweep", lock).await?;
        if !row.get::<_, bool>(0) {
            return Ok(None);
        }
        Ok(Some(Self { link }))
    }

    /// Whether the connection, and the right with it, is gone.
    pub fn is_lost(&self) -> bool {
        self.link.client.is_closed()
    }

    /// Marks every agent disconnected that is connected on a gateway other than these: at most
    /// [`ENDED_MAX`], after which there may be more. It holds once it is
    /// [committed](Ending::commit), which is to be soon: nobody can write to these agents meanwhile.
    ///
    /// An empty list ends everyone: the caller has listened for a whole lease. After an error, and
    /// without a commit, the leader is to be dropped.
    pub async fn end_gateways_except(
        &self,
        alive: &[impl AsRef<str>],
        now: Timestamp,
    ) -> Result<Ending<'_>, StoreError> {
        let alive: Vec<&str> = alive.iter().map(AsRef::as_ref).collect();
        let limit = i64::try_from(ENDED_MAX).unwrap_or(i64::MAX);
        let (client, now) = (&self.link.client, now.to_chrono());
        let statements = async {
            let gone: Vec<String> =
                client.query(GONE, &[&alive]).await?.iter().map(|row| row.get(0)).collect();
            if gone.is_empty() {
                return Ok(None);
            }
            client.batch_execute("BEGIN").await?;
            client.query(END, &[&gone, &now, &limit]).await.map(Some)
        };
        let rows = self.link.within(ENDING, statements).await?;
        let agents = rows.iter().flatten().filter_map(ended).collect();
        Ok(Ending { open: rows.is_some().then_some(&self.link), agents })
    }
}

/// What a sweep ends, in a transaction that is still open.
///
/// Whoever tells the world does so before the commit: a process that dies in between has told too
/// early, and the next sweep tells it again. Told after the commit, it would never be told.
#[must_use = "without a commit nothing is ended"]
pub struct Ending<'a> {
    /// The connection, if there is a transaction.
    open: Option<&'a Link>,
    agents: Vec<Ended>,
}

impl Ending<'_> {
    /// The agents.
    pub fn agents(&self) -> &[Ended] {
        &self.agents
    }

    /// Makes it hold, and answers the agents.
    pub async fn commit(self) -> Result<Vec<Ended>, StoreError> {
        if let Some(link) = self.open {
            link.within(ENDING, link.client.batch_execute("COMMIT")).await?;
        }
        Ok(self.agents)
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

/// Locks in the order of the writers, so that the two never deadlock.
const END: &str = "\
WITH lost AS (
  SELECT id FROM agents WHERE connected AND gateway = ANY ($1::text[])
  ORDER BY uuid LIMIT $3 FOR UPDATE
)
UPDATE agents SET connected = false, updated_at = $2
FROM lost WHERE agents.id = lost.id
RETURNING agents.uuid, agents.session, agents.gateway";

/// A stored uuid was checked before it was stored.
fn ended(row: &Row) -> Option<Ended> {
    let uuid = AgentUuid::parse(row.get::<_, String>(0)).ok()?;
    let session = SessionId::from_uuid(row.get::<_, Uuid>(1));
    Some(Ended { uuid, session, gateway: row.get(2) })
}

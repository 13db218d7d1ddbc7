//! What an operator wants to know of the database.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::Serialize;

use crate::migrations::{self, Failure, MigrationStatus};

/// The database as it is.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseStatus {
    /// The server's version.
    pub server_version: String,
    /// The size of the whole database, in bytes.
    pub bytes: i64,
    /// All migrations that this program knows, in order.
    pub migrations: Vec<MigrationStatus>,
    /// The tables; a partitioned one stands for all its partitions.
    pub tables: Vec<TableStatus>,
    /// The partitions of `metrics`, the oldest first, the default one last.
    pub partitions: Vec<PartitionStatus>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct TableStatus {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// About how many rows it has; unknown until PostgreSQL has analyzed it.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub rows_estimate: Option<i64>,
    /// Its size with its indexes, in bytes.
    #[diesel(sql_type = BigInt)]
    pub bytes: i64,
}

/// One partition of `metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct PartitionStatus {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// What it holds, in PostgreSQL's words: `FOR VALUES FROM … TO …`, or `DEFAULT`.
    #[diesel(sql_type = Text)]
    pub bounds: String,
    /// About how many rows it has; unknown until PostgreSQL has analyzed it.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub rows_estimate: Option<i64>,
    /// Its size with its indexes, in bytes.
    #[diesel(sql_type = BigInt)]
    pub bytes: i64,
}

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

const SERVER: &str = "\
SELECT current_setting('server_version') AS version,
       pg_database_size(current_database()) AS bytes";

/// Works on a database without any of the tables, too.
const TABLES: &str = "\
SELECT t.relname::text AS name,
       sum(nullif(leaf.reltuples, -1))::int8 AS rows_estimate,
       coalesce(sum(pg_total_relation_size(leaf.oid)), 0)::int8 AS bytes
FROM pg_class t
LEFT JOIN LATERAL pg_partition_tree(t.oid) part ON part.isleaf
JOIN pg_class leaf ON leaf.oid = coalesce(part.relid, t.oid)
WHERE t.relnamespace = current_schema()::regnamespace
  AND t.relkind IN ('r', 'p') AND NOT t.relispartition
  AND t.relname <> '__diesel_schema_migrations'
GROUP BY t.relname ORDER BY t.relname";

const PARTITIONS: &str = "\
SELECT c.relname::text AS name,
       pg_get_expr(c.relpartbound, c.oid) AS bounds,
       nullif(c.reltuples, -1)::int8 AS rows_estimate,
       pg_total_relation_size(c.oid)::int8 AS bytes
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('metrics')
ORDER BY pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT', c.relname";

pub(crate) async fn read(connection: &mut AsyncPgConnection) -> Result<DatabaseStatus, Failure> {
    let server: Server = diesel::sql_query(SERVER).get_result(connection).await?;
    Ok(DatabaseStatus {
        server_version: server.version,
        bytes: server.bytes,
        migrations: migrations::status_of(connection).await?,
        tables: diesel::sql_query(TABLES).load(connection).await?,
        partitions: diesel::sql_query(PARTITIONS).load(connection).await?,
    })
}

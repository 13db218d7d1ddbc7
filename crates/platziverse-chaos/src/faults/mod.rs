//! The faults: what each is, and how it begins and ends.

mod clients;
mod cluster;
mod commands;
mod deliveries;
mod lost;
mod mom;
mod overload;
mod poison;
mod postgres;
mod processes;
mod rabbitmq;
mod rows;
mod sessions;
mod subscribers;
mod takeover;
mod tasks;

use std::time::Duration;

pub use overload::Overload;

use crate::mom::reconcile::Promises;
use crate::stage::{Setting, Stage};
use crate::work::Load;

/// What a fault injures. Faults of different parts can be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A gateway.
    Gateways,
    /// A worker.
    Workers,
    /// RabbitMQ, or the way to it.
    RabbitMq,
    /// PostgreSQL, or the way to it.
    PostgreSql,
    /// MQTT clients.
    Clients,
    /// Everything, so that it goes alone.
    Everything,
}

/// The servers that a fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// One RabbitMQ and one PostgreSQL, which rounds share.
    Shared,
    /// A RabbitMQ cluster of three nodes.
    Cluster,
    /// A PostgreSQL on a small disk of its own.
    SmallDisk,
}

macro_rules! faults {
    ($($variant:ident $name:literal $target:ident $module:ident $hold:literal $about:literal,)*) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $(#[doc = $about] $variant,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and in the table.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does, for a person.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            /// What it injures.
            pub fn target(self) -> Target {
                match self { $(Self::$variant => Target::$target,)* }
            }

            /// How long it holds between its beginning and its end.
            pub fn hold(self) -> Duration {
                let seconds = match self { $(Self::$variant => $hold,)* };
                Duration::from_secs(seconds)
            }

            /// Begins.
            pub async fn begin(self, stage: &mut Stage) -> Result<(), String> {
                match self { $(Self::$variant => $module::begin(self, stage).await,)* }
            }

            /// Ends, after it has held for its time.
            pub async fn end(self, stage: &mut Stage) -> Result<(), String> {
                match self { $(Self::$variant => $module::end(self, stage).await,)* }
            }
        }
    };
}

faults! {
    None "none" Everything processes 2 "nothing: the measure of all others",
    GatewayKill "gateway-kill" Gateways processes 3 "kill -9 of a gateway",
    GatewayTerm "gateway-term" Gateways processes 2 "SIGTERM of a gateway",
    GatewaysKill "gateways-kill" Gateways processes 3 "kill -9 of two gateways at once",
    GatewayLost "gateway-lost" Gateways lost 0 "kill -9 of a gateway that does not come back, with agents that cannot go elsewhere",
    WorkerKill "worker-kill" Workers processes 3 "kill -9 of a worker",
    WorkerTerm "worker-term" Workers processes 2 "SIGTERM of a worker",
    WorkersKill "workers-kill" Workers processes 3 "kill -9 of two workers at once",
    Rolling "rolling-restart" Everything processes 0 "SIGTERM and restart of every service, one after the other",
    Drain "drain" Everything processes 1 "SIGTERM of all services at once, in mid-flight",
    RabbitRestart "rabbitmq-restart" RabbitMq rabbitmq 3 "RabbitMQ stopped in good order and started",
    RabbitKill "rabbitmq-kill" RabbitMq rabbitmq 3 "kill -9 of RabbitMQ",
    RabbitAlarm "rabbitmq-alarm" RabbitMq rabbitmq 6 "RabbitMQ's memory alarm: connection.blocked",
    QueueFull "queue-full" RabbitMq rabbitmq 6 "the ingest queue is full: RabbitMQ refuses publishes",
    RabbitCut "rabbitmq-cut" RabbitMq rabbitmq 3 "every connection to RabbitMQ ended with a FIN, then none accepted",
    RabbitHalfOpen "rabbitmq-half-open" RabbitMq rabbitmq 25 "connections to RabbitMQ stay open and nothing passes",
    RabbitSlow "rabbitmq-slow" RabbitMq rabbitmq 8 "200 ms between gateways and RabbitMQ, 256 KB/s between it and workers",
    QueueDeleted "queue-deleted" RabbitMq rabbitmq 3 "the ingest queue deleted, and so its consumers cancelled",
    ClusterKill "cluster-kill" RabbitMq cluster 0 "a cluster of three: kill -9 of one node after the other",
    ClusterPartition "cluster-partition" RabbitMq cluster 15 "a cluster of three: one node parted from the others",
    PostgresCut "postgres-cut" PostgreSql postgres 3 "every connection to PostgreSQL ended with a FIN, then none accepted",
    PostgresHalfOpen "postgres-half-open" PostgreSql postgres 12 "connections to PostgreSQL stay open and nothing passes",
    PostgresSlow "postgres-slow" PostgreSql postgres 6 "200 ms between the workers and PostgreSQL",
    PostgresRestart "postgres-restart" PostgreSql postgres 3 "PostgreSQL stopped in good order and started",
    PostgresKill "postgres-kill" PostgreSql postgres 3 "kill -9 of PostgreSQL",
    PostgresTerminate "postgres-terminate" PostgreSql postgres 4 "pg_terminate_backend of every connection, again and again",
    PostgresTimeout "postgres-timeout" PostgreSql postgres 5 "a table locked for longer than the statement timeout",
    PostgresFull "postgres-disk-full" PostgreSql postgres 5 "no room on PostgreSQL's disk",
    PostgresLock "postgres-lock" PostgreSql postgres 10 "the table agents locked for 10 s",
    PostgresReadOnly "postgres-read-only" PostgreSql postgres 5 "the database read-only",
    Poison "poison" Workers poison 3 "records that PostgreSQL refuses and validation cannot foresee",
    Redelivery "redelivery" Workers deliveries 8 "for 2 s no acknowledgement of a worker arrives, then its connections end: three times",
    PrefetchOne "prefetch-1" Workers processes 3 "prefetch 1, and kill -9 of a worker",
    PrefetchMany "prefetch-1000" Workers processes 3 "prefetch 1000, and kill -9 of a worker",
    DeliveryLimit "delivery-limit" Workers deliveries 0 "deliveries repeated until their limit",
    Storm "reconnect-storm" Clients clients 8 "2,000 clients connect, report, break off and come again",
    SlowSubscriber "slow-subscriber" Clients subscribers 6 "subscribers that read slowly",
    NeverAcking "never-acking" Clients subscribers 6 "subscribers at QoS 1 that never acknowledge",
    StoppedReader "stopped-reader" Clients subscribers 6 "subscribers that stop reading",
    HalfOpenClients "half-open-clients" Clients clients 8 "agents whose network is gone: keep-alive ends them",
    Takeover "takeover" Clients takeover 0 "one client id taken over 1,000 times across two gateways",
    LateEnd "late-end" Clients clients 5 "agents move to a gateway while the one they left cannot tell",
    MidPacket "mid-packet" Clients clients 4 "clients that die in the middle of a packet",
    OverloadThree "overload-3" Everything overload 240 "three times what the workers can take, for 5 minutes",
    OverloadTen "overload-10" Everything overload 40 "ten times what the workers can take, for a minute",
    TasksWorkerKill "tasks-worker-kill" Everything tasks 3 "events and commands: kill -9 of a worker in the middle of some",
    TasksWorkersKill "tasks-workers-kill" Everything tasks 3 "events and commands: kill -9 of two workers at once",
    TasksWorkerTerm "tasks-worker-term" Everything tasks 2 "events and commands: SIGTERM of each worker, with a successor",
    TasksRabbitKill "tasks-rabbitmq-kill" Everything tasks 3 "events and commands: kill -9 of RabbitMQ",
    TasksRabbitCut "tasks-rabbitmq-cut" Everything tasks 3 "events and commands: every connection to RabbitMQ ended with a FIN, then none accepted",
    TasksPostgresKill "tasks-postgres-kill" Everything tasks 3 "events and commands: kill -9 of PostgreSQL",
    TasksTarget "tasks-target-fails" Everything tasks 2 "events and commands: the service that commands call fails for 2 s",
    CommandsGatewayKill "commands-gateway-kill" Everything commands 3 "commands to agents: kill -9 of a gateway",
    CommandsGatewaysKill "commands-gateways-kill" Everything commands 3 "commands to agents: kill -9 of two gateways at once",
    CommandsWorkersKill "commands-workers-kill" Everything commands 3 "commands to agents: kill -9 of two workers at once",
    CommandsRabbitRestart "commands-rabbitmq-restart" Everything commands 3 "commands to agents: RabbitMQ stopped in good order and started",
    CommandsPostgresKill "commands-postgres-kill" Everything commands 3 "commands to agents: kill -9 of PostgreSQL",
    CommandsAgentsCrash "commands-agents-crash" Everything commands 4 "commands to agents, each of whom crashes between PUBACK and answer",
    MomNone "mom-none" Everything mom 2 "topics and queues: nothing, the measure of the others",
    MomServerKill "mom-server-kill" Everything mom 3 "topics and queues: kill -9 of a server in the middle of publishes and changes",
    MomServersKill "mom-servers-kill" Everything mom 3 "topics and queues: kill -9 of two servers at once",
    MomServersTerm "mom-servers-term" Everything mom 1 "topics and queues: SIGTERM of each server, with a successor",
    MomRabbitKill "mom-rabbitmq-kill" Everything mom 4 "topics and queues: kill -9 of RabbitMQ",
    MomRabbitCut "mom-rabbitmq-cut" Everything mom 3 "topics and queues: every connection to RabbitMQ ended with a FIN, then none accepted",
    MomPostgresKill "mom-postgres-kill" Everything mom 8 "topics and queues: kill -9 of PostgreSQL",
    MomConsumersKill "mom-consumers-kill" Everything mom 1 "topics and queues: consumers killed with messages in their hands, again and again",
    AggregatorNone "aggregator-none" Everything sessions 2 "aggregators: nothing, the measure of the others",
    AggregatorsKill "aggregators-kill" Everything sessions 0 "aggregators: kill -9 of one after the other, with requests in its hands",
    AggregatorsTerm "aggregators-term" Everything sessions 0 "aggregators: SIGTERM of each, with a successor",
    AggregatorServersKill "aggregator-servers-kill" Everything sessions 2 "aggregators: kill -9 of one server in the middle of work, then of both",
    AggregatorRabbitKill "aggregator-rabbitmq-kill" Everything sessions 4 "aggregators: kill -9 of RabbitMQ",
    AggregatorRabbitCut "aggregator-rabbitmq-cut" Everything sessions 3 "aggregators: their connections to RabbitMQ ended with a FIN, then none accepted",
    AggregatorRabbitStalled "aggregator-rabbitmq-stalled" Everything sessions 8 "aggregators: nothing passes between them and RabbitMQ for 8 s",
    AggregatorRabbitSlow "aggregator-rabbitmq-slow" Everything sessions 5 "aggregators: 200 ms between them and RabbitMQ",
    AggregatorClientsCut "aggregator-clients-cut" Everything sessions 0 "aggregators: the connections of their clients reset, again and again",
    AggregatorClientsStalled "aggregator-clients-stalled" Everything sessions 5 "aggregators: nothing passes to and from clients, who go elsewhere",
    AggregatorClientsSlow "aggregator-clients-slow" Everything sessions 5 "aggregators: 4 KB/s to and from clients",
}

impl Fault {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// The servers that it needs.
    pub fn needs(self) -> Needs {
        match self {
            Self::ClusterKill | Self::ClusterPartition => Needs::Cluster,
            Self::PostgresFull => Needs::SmallDisk,
            _ => Needs::Shared,
        }
    }

    /// Whether it belongs to the short run: one of each kind, and none that takes long. What has a
    /// test of its own that injures the same gives way.
    pub fn is_short(self) -> bool {
        matches!(
            self,
            Self::GatewayLost
                | Self::Drain
                | Self::RabbitKill
                | Self::QueueDeleted
                | Self::PostgresKill
                | Self::Redelivery
                | Self::LateEnd
                | Self::TasksWorkersKill
                | Self::CommandsGatewayKill
                | Self::MomServersKill
                | Self::AggregatorsKill
        )
    }

    /// What the services are busy with meanwhile.
    pub fn load(self) -> Load {
        match self {
            Self::TasksWorkerKill
            | Self::TasksWorkersKill
            | Self::TasksWorkerTerm
            | Self::TasksRabbitKill
            | Self::TasksRabbitCut
            | Self::TasksPostgresKill
            | Self::TasksTarget => Load::Tasks,
            Self::CommandsGatewayKill
            | Self::CommandsGatewaysKill
            | Self::CommandsWorkersKill
            | Self::CommandsRabbitRestart
            | Self::CommandsPostgresKill
            | Self::CommandsAgentsCrash => Load::Commands,
            Self::MomNone
            | Self::MomServerKill
            | Self::MomServersKill
            | Self::MomServersTerm
            | Self::MomRabbitKill
            | Self::MomRabbitCut
            | Self::MomPostgresKill
            | Self::MomConsumersKill => Load::Mom,
            Self::AggregatorNone
            | Self::AggregatorsKill
            | Self::AggregatorsTerm
            | Self::AggregatorServersKill
            | Self::AggregatorRabbitKill
            | Self::AggregatorRabbitCut
            | Self::AggregatorRabbitStalled
            | Self::AggregatorRabbitSlow
            | Self::AggregatorClientsCut
            | Self::AggregatorClientsStalled
            | Self::AggregatorClientsSlow => Load::Sessions,
            _ => Load::Reports,
        }
    }

    /// Whether it can go along with faults of other targets: not if it needs settings or servers of
    /// its own, looks at rows while it holds, or goes by what only its own toxics may do.
    pub fn is_combinable(self) -> bool {
        self.target() != Target::Everything
            && self.needs() == Needs::Shared
            && self.settings().is_empty()
            && !matches!(
                self,
                Self::QueueDeleted
                    | Self::GatewayLost
                    | Self::Redelivery
                    | Self::Poison
                    | Self::HalfOpenClients
                    | Self::Takeover
                    | Self::LateEnd
            )
    }

    /// Whether a service may find no server, so that it cannot end by itself in its time.
    pub fn is_outage(self) -> bool {
        match self {
            Self::RabbitSlow | Self::PostgresSlow | Self::PostgresTerminate => false,
            Self::TasksRabbitKill | Self::TasksRabbitCut | Self::TasksPostgresKill => true,
            Self::CommandsRabbitRestart | Self::CommandsPostgresKill => true,
            Self::MomRabbitKill | Self::MomRabbitCut | Self::MomPostgresKill => true,
            Self::AggregatorRabbitKill => true,
            _ => matches!(self.target(), Target::RabbitMq | Target::PostgreSql),
        }
    }

    /// What it leaves in force, of topics and queues and of aggregators.
    pub fn promises(self) -> Promises {
        let all = Promises {
            settled_once: true,
            streamed_once: true,
            known_by_key: true,
            done_once: true,
        };
        match self {
            Self::MomServersTerm | Self::MomConsumersKill => {
                Promises { streamed_once: false, ..all }
            }
            Self::MomPostgresKill => Promises { known_by_key: false, ..all },
            Self::MomServerKill
            | Self::MomServersKill
            | Self::MomRabbitKill
            | Self::MomRabbitCut
            | Self::AggregatorServersKill
            | Self::AggregatorRabbitKill => Promises::default(),
            _ => all,
        }
    }

    /// Settings that all services of the round have.
    pub fn settings(self) -> Vec<Setting> {
        let setting = |name, value: &str| vec![(name, value.to_owned())];
        match self {
            Self::QueueFull => setting("PLATZIVERSE_INGEST__QUEUE_LENGTH_MAX", "20"),
            Self::PostgresTimeout => setting("PLATZIVERSE_DATABASE__STATEMENT_TIMEOUT", "1s"),
            Self::PrefetchOne => setting("PLATZIVERSE_INGEST__PREFETCH", "1"),
            Self::PrefetchMany => setting("PLATZIVERSE_INGEST__PREFETCH", "1000"),
            Self::DeliveryLimit => setting("PLATZIVERSE_INGEST__DELIVERY_LIMIT", "2"),
            Self::OverloadThree | Self::OverloadTen => overload::settings(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: HashSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(*fault));
        }
    }
}

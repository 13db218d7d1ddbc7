//! What can be played.

use crate::figure::Played;
use crate::scenarios::{
    aggregator, cost, drain, edge, end_to_end, fan_out, full, idle, mom, tasks, workers,
};
use crate::site::Site;

macro_rules! scenarios {
    ($($variant:ident $name:literal $module:ident $about:literal,)*) => {
        /// Something to be measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scenario {
            $(#[doc = $about] $variant,)*
        }

        impl Scenario {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and in the table.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it measures, for a person.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            pub(crate) async fn play(self, site: &Site) -> Played {
                match self { $(Self::$variant => $module::play(site).await.into(),)* }
            }
        }
    };
}

scenarios! {
    Edge "edge" edge "QoS 1 publishes that are acknowledged, 1, 20 and 100 in flight for each client",
    EndToEnd "end-to-end" end_to_end "published, confirmed, consumed and committed in the same run, and how long that takes",
    Drain "drain" drain "a worker alone that empties a backlog, and one that does so while new load arrives",
    Idle "idle" idle "memory and pace of connections that only stay",
    FanOut "fan-out" fan_out "one message to 1,000 subscribers",
    Cost "cost" cost "processor time of a message, with few and many agents, with 1 and 10 metrics",
    Workers "workers" workers "one and two workers, where the way to PostgreSQL is slow",
    Tasks "tasks" tasks "tasks that one worker handles, with prefetch 200 and 1, and events that it stores",
    Mom "mom" mom "topics and queues: published and consumed over gRPC and HTTP, and 2,000 consumers that wait",
    Aggregator "aggregator" aggregator "WebSockets: idle ones, broadcasts, messages from client to client and to servers, write and wait",
    Full "full" full "a worker's pace with 1,000,000 agents and 100,000,000 metrics in the tables (takes long, and 25 GB)",
}

impl Scenario {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scenario| scenario.name() == name)
    }

    /// Whether it is played only if it is asked for.
    pub fn is_heavy(self) -> bool {
        self == Self::Full
    }
}

//! The name of one process among its replicas.

use std::fmt;

/// `<host>:<id>`: which process on which machine. The id is new at every start, so that what a
/// dead process left behind is never taken for a living one's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    host: String,
    id: String,
}

impl Instance {
    /// A name for the process that starts.
    pub(crate) fn start() -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        Self { host: hostname(), id: random[..8].to_owned() }
    }

    /// `platziverse-<service>@<host>:<id>`.
    pub fn connection_name(&self, service: &str) -> String {
        format!("platziverse-{service}@{self}")
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.id)
    }
}

fn hostname() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = kernel.trim().chars().take(64).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

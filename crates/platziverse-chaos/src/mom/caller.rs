//! A user over HTTP, at any of the servers.

use std::sync::Arc;
use std::time::Duration;

use platziverse_testkit::{MomAnswer, MomUser};
use tokio::time::timeout;

/// Longer than a server may take for anything here.
const WITHIN: Duration = Duration::from_secs(20);

/// A user over HTTP, at any of the servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller(Arc<[MomUser]>);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// No server was there: nothing was asked.
    Nobody,
    /// It may have been done or not.
    Broken,
}

impl Caller {
    /// The user, at each of the servers.
    pub fn of(at: impl Iterator<Item = MomUser>) -> Self {
        Self(at.collect())
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.0.len()
    }

    /// Asks one of the servers, counted on beyond the last one.
    pub async fn ask(
        &self,
        server: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<MomAnswer, Silence> {
        let user = self.0.get(server % self.0.len().max(1)).ok_or(Silence::Nobody)?;
        match timeout(WITHIN, user.try_ask(method, path, headers, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.contains("refused") => Err(Silence::Nobody),
            Ok(Err(_)) | Err(_) => Err(Silence::Broken),
        }
    }
}

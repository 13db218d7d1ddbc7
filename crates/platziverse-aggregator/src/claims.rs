//! Who sends a request: the aggregator whose claim to it comes first in the stream of requests. All
//! aggregators read the same there, in the same order, and so agree.

use std::time::Duration;

use platziverse_broker::aggregator::{Claim, ClaimId, Kind, Post, PostError, Sender, To};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::core::Core;
use crate::requests::{Standing, Taken};

/// Claims that are written together.
const BATCH_MAX: usize = 1_024;
/// How long a claim may take to come back; later, it is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// How long after a claim was read its owner may still be sending: to have it come back and to publish
/// takes 10 s each at most.
pub(crate) const HELD: Duration = Duration::from_secs(30);
/// How old a claim is before its owner counts as gone that has no binding: one that has lost its
/// connections has new ones by then, and one that ends has sent what it has in hand.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// How often another aggregator's claim is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Takes claims that are to be written.
#[derive(Debug)]
pub struct Claims(mpsc::Sender<Waiting>);

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    written: oneshot::Sender<()>,
}

/// Claims that wait to be written.
#[derive(Debug)]
pub struct ClaimQueue(mpsc::Receiver<Waiting>);

/// Claims that are written together.
#[derive(Debug)]
pub struct ClaimBatch(Vec<Waiting>);

impl Claims {
    /// None yet.
    pub fn new() -> (Self, ClaimQueue) {
        let (sender, receiver) = mpsc::channel(BATCH_MAX);
        (Self(sender), ClaimQueue(receiver))
    }

    /// Resolves when a claim has been written and read again. Given up, it may still be.
    pub async fn write(&self, claim: Claim) {
        let (written, told) = oneshot::channel();
        // Whoever writes them ends with the process only.
        let _ = self.0.send(Waiting { claim, written }).await;
        if told.await.is_err() {
            std::future::pending().await
        }
    }
}

impl ClaimQueue {
    /// What there is, once there is something.
    pub async fn next(&mut self) -> ClaimBatch {
        let mut batch = Vec::new();
        while batch.is_empty() {
            if self.0.recv_many(&mut batch, BATCH_MAX).await == 0 {
                std::future::pending().await
            }
            batch.retain(|waiting| !waiting.written.is_closed());
        }
        ClaimBatch(batch)
    }
}

impl ClaimBatch {
    /// Those that somebody still waits for.
    pub fn claims(&self) -> Vec<Claim> {
        let waiting = self.0.iter().filter(|waiting| !waiting.written.is_closed());
        waiting.map(|waiting| waiting.claim.clone()).collect()
    }

    /// Says that they have been written and read again.
    pub fn written(self) {
        for waiting in self.0 {
            // Whoever stopped waiting need not know.
            let _ = waiting.written.send(());
        }
    }
}

/// Takes a request in hand, once nobody else at this process has it.
pub(crate) async fn take<'a>(core: &'a Core, client: &str, request: &str) -> Taken<'a> {
    loop {
        match core.book.take(client, request) {
            Some(taken) => return taken,
            None => sleep(LOOK_EVERY).await,
        }
    }
}

/// Whether a request is this aggregator's to send. If it is, it has to be sent at once.
pub(crate) async fn is_ours(
    core: &Core,
    taken: &mut Taken<'_>,
    client: &str,
    request: &str,
) -> Result<bool, PostError> {
    loop {
        let instead_of = match core.book.standing(client, request) {
            Standing::Claimed(other, at) if is_void(core, other, at).await => Some(other),
            Standing::Claimed(..) => {
                sleep(LOOK_EVERY).await;
                continue;
            }
            // Also what is known is looked at where a claim is in the stream: it may have been
            // withdrawn before.
            Standing::Stored | Standing::Unknown => None,
        };
        let claim = core.book.claim(client, request, instead_of);
        taken.claim = Some(claim.clone());
        let (ours, made) = (claim.id, Instant::now());
        let written = timeout(WRITE_PATIENCE, core.claims.write(claim)).await;
        // Also after the whole process has stood still.
        if written.is_err() || made.elapsed() > WRITE_PATIENCE {
            let why = format!("it did not show a claim within {WRITE_PATIENCE:?}");
            return Err(PostError::Unavailable(why));
        }
        match core.book.standing(client, request) {
            Standing::Claimed(id, _) if id == ours => return Ok(true),
            Standing::Stored => return Ok(false),
            Standing::Claimed(..) | Standing::Unknown => {}
        }
    }
}

/// Whether nobody sends what was claimed. What this process has claimed before it does not send any
/// more: it is asked for again.
async fn is_void(core: &Core, claim: ClaimId, at: Instant) -> bool {
    if core.book.is_own(claim) || at.elapsed() > HELD {
        return true;
    }
    at.elapsed() > GONE_AFTER
        && core.sender.exists(&ClaimId::owner_key(claim.owner)).await == Ok(false)
}

/// Tells all aggregators what has become of a claim.
pub(crate) async fn tell(sender: Sender, claim: Claim) {
    let to = To::Marker { id: Uuid::now_v7(), claims: vec![claim] };
    let post = Post::new(to, Kind::Publish, "");
    if let Err(error) = sender.hand(post).await.confirmed().await {
        tracing::debug!("what has become of a claim could not be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use platziverse_broker::aggregator::ClaimState;

    use super::*;

    fn claim(number: u64) -> Claim {
        let [client, request] = ["ana", "1"].map(str::to_owned);
        let id = ClaimId { owner: Uuid::nil(), number };
        Claim { id, client, request, state: ClaimState::Made, instead_of: None }
    }

    #[tokio::test]
    async fn claims_are_written_together() {
        let (claims, mut queue) = Claims::new();
        let mut first = Box::pin(claims.write(claim(1)));
        assert_eq!((&mut first).now_or_never(), None);
        let batch = queue.next().await;
        assert_eq!(batch.claims(), [claim(1)]);
        let [mut second, mut third] = [2, 3].map(|number| Box::pin(claims.write(claim(number))));
        assert_eq!((&mut second).now_or_never(), None);
        assert_eq!((&mut third).now_or_never(), None);
        batch.written();
        first.await;
        let batch = queue.next().await;
        assert_eq!(batch.claims(), [claim(2), claim(3)]);
        batch.written();
        tokio::join!(second, third);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_claimed() {
        let (claims, mut queue) = Claims::new();
        assert_eq!(claims.write(claim(1)).now_or_never(), None);
        assert!(queue.next().now_or_never().is_none());
        let [mut given_up, mut late] = [2, 3].map(|number| Box::pin(claims.write(claim(number))));
        assert_eq!((&mut given_up).now_or_never(), None);
        assert_eq!((&mut late).now_or_never(), None);
        let batch = queue.next().await;
        drop(given_up);
        assert_eq!(batch.claims(), [claim(3)]);
        drop((batch, queue));
        assert_eq!((&mut late).now_or_never(), None, "nobody has written it");
    }
}

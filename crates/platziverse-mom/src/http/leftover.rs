//! What is left of a request's body when its answer is there.
//!
//! Many clients read no answer before they have sent all, and see a broken connection if it is closed
//! before: what nobody has read is read and dropped.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// How much is read of what nobody wants, and for how long.
const BYTES_MAX: usize = 64 * 1_048_576;
const PATIENCE: Duration = Duration::from_secs(10);

/// A body that is lent to whoever answers.
#[derive(Clone, Debug)]
pub(super) struct Lent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    body: Mutex<Incoming>,
    is_begun: AtomicBool,
}

impl Lent {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Arc::new(Inner { body: Mutex::new(body), is_begun: AtomicBool::new(false) }))
    }

    /// Reads what is left. A client that waits to be told to go on (`Expect`), and was not, has sent
    /// nothing, and is not to send it now.
    pub(super) async fn discard(mut self, waits: bool) {
        if self.is_end_stream() || (waits && !self.0.is_begun.load(Ordering::Relaxed)) {
            return;
        }
        let rest = async {
            let mut read = 0;
            while let Some(Ok(frame)) = self.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > BYTES_MAX {
                    break;
                }
            }
        };
        // It is of no use anyway.
        let _ = timeout(PATIENCE, rest).await;
    }

    fn body(&self) -> MutexGuard<'_, Incoming> {
        // A body that panicked is read no further than it can be.
        self.0.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.is_begun.store(true, Ordering::Relaxed);
        Pin::new(&mut *self.body()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

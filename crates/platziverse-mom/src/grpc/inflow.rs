//! What calls send: so many bytes are held of all of them, and nobody sends half a message and holds
//! the room for the rest.
//!
//! A message that comes in many frames takes its room with the second, whole: messages that each have
//! a part of theirs would wait for each other.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use crate::core::{Code, Refusal};
use crate::http::UNCHECKED_BYTES_MAX;

/// How long a message may be on its way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may wait for its room.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);
/// More than any message has: one that says so takes no room before it comes, and is refused.
const MESSAGE_BYTES_MAX: usize = 16 * 1_048_576;

/// The bytes of a call that were read and are still of use: an extension of its request. It gives
/// back what they take of the room when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Held(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    room: Option<OwnedSemaphorePermit>,
    framing: Framing,
    /// For how many bytes of the message that is on its way there is room already.
    ahead: usize,
    /// Since when a message is on its way.
    since: Option<Instant>,
}

impl Held {
    fn new() -> Self {
        Self(Arc::default())
    }

    /// The room of the first message that nobody has taken, which ends with what this answers.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        let mut kept = self.kept();
        let bytes = kept.framing.whole.pop_front()?;
        let room = kept.room.as_mut()?;
        if bytes >= room.num_permits() { kept.room.take() } else { room.split(bytes) }
    }

    /// Adds room.
    fn widen(&self, more: OwnedSemaphorePermit) {
        let mut kept = self.kept();
        match &mut kept.room {
            Some(room) => room.merge(more),
            None => kept.room = Some(more),
        }
    }

    /// Notes bytes for which there is room.
    fn put(&self, data: &[u8]) {
        let mut kept = self.kept();
        let whole = kept.framing.whole.len();
        kept.framing.feed(data);
        kept.ahead = kept.ahead.saturating_sub(data.len());
        if !kept.framing.is_amid() {
            kept.since = None;
        } else if kept.since.is_none() || kept.framing.whole.len() > whole {
            kept.since = Some(Instant::now());
        }
    }

    fn ahead(&self) -> usize {
        self.kept().ahead
    }

    /// How much room the rest of the message that is on its way lacks, which it has from now on.
    fn look_ahead(&self) -> Option<usize> {
        let mut kept = self.kept();
        let left = kept.framing.left;
        if kept.ahead > 0 || !(1..=MESSAGE_BYTES_MAX).contains(&left) {
            return None;
        }
        kept.ahead = left;
        Some(left)
    }

    /// Until when the message that is on its way must be there; nothing if there is none.
    fn deadline(&self) -> Option<Instant> {
        Some(self.kept().since? + PATIENCE)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Plain values are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Where messages end.
#[derive(Debug, Default)]
struct Framing {
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come, once its prefix is there.
    left: usize,
    /// The sizes of messages that are there, with their prefixes.
    whole: VecDeque<usize>,
}

impl Framing {
    fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.prefix.len() < PREFIX_BYTES {
                let (prefix, rest) =
                    data.split_at(data.len().min(PREFIX_BYTES - self.prefix.len()));
                self.prefix.extend_from_slice(prefix);
                data = rest;
                let Ok([_, length @ ..]) = <[u8; PREFIX_BYTES]>::try_from(&*self.prefix) else {
                    return;
                };
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                let part = data.len().min(self.left);
                data = &data[part..];
                self.left -= part;
            }
            if self.left == 0 {
                self.whole.push_back(self.size());
                self.prefix.clear();
            }
        }
    }

    /// The size of a message whose last byte has just come.
    fn size(&self) -> usize {
        let length =
            self.prefix[1..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        PREFIX_BYTES + length
    }

    /// Whether a part of a message is there.
    fn is_amid(&self) -> bool {
        !self.prefix.is_empty()
    }
}

/// Whether a call may send much.
pub(super) type Check = BoxFuture<'static, Result<(), Refusal>>;

/// What there is no room for yet.
struct Waiting {
    /// A frame; if it is empty, the rest of the message that is on its way.
    data: Bytes,
    acquiring: BoxFuture<'static, Result<OwnedSemaphorePermit, Refusal>>,
    until: Instant,
}

/// A request's body, whose bytes are counted.
pub(super) struct Inflow {
    body: Body,
    room: Arc<Semaphore>,
    held: Held,
    /// Asked before a large message takes its room.
    check: Option<Check>,
    waiting: Option<Waiting>,
    /// What is left of a frame.
    rest: Bytes,
    patience: Option<Pin<Box<Sleep>>>,
}

impl Inflow {
    /// Counts what comes of a body in a room that all share.
    pub(super) fn of(body: Body, room: Arc<Semaphore>, check: Option<Check>) -> (Self, Held) {
        let held = Held::new();
        let (waiting, rest, patience) = (None, Bytes::new(), None);
        (Self { body, room, held: held.clone(), check, waiting, rest, patience }, held)
    }

    /// Takes so much room before a frame goes on, or before the rest of a message is read.
    fn acquire(&mut self, data: Bytes, bytes: usize) {
        let is_large = bytes as u64 > UNCHECKED_BYTES_MAX;
        let check = if is_large { self.check.take() } else { None };
        let room = Arc::clone(&self.room);
        let acquiring = async move {
            if let Some(check) = check {
                check.await?;
            }
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            room.acquire_many_owned(bytes)
                .await
                .map_err(|_| Refusal::unavailable("the server ends"))
        };
        let until = Instant::now() + ROOM_PATIENCE;
        self.waiting = Some(Waiting { data, acquiring: acquiring.boxed(), until });
    }

    /// Waits on, unless it takes too long.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let room_until = self.waiting.as_ref().map(|waiting| waiting.until);
        let Some(deadline) = room_until.or(self.held.deadline()) else {
            self.patience = None;
            return Poll::Pending;
        };
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if patience.deadline() != deadline {
            patience.as_mut().reset(deadline);
        }
        ready!(patience.as_mut().poll(context));
        let refusal = match room_until {
            Some(_) => Refusal::unavailable("the server has all the messages it may have"),
            None => {
                let detail = format!("the message did not come within {PATIENCE:?}");
                Refusal::new(Code::RequestTimeout, detail)
            }
        };
        Poll::Ready(Some(Err(refusal.into())))
    }

    /// The next bytes, or what else comes.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Err(error)) => Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Ready(None),
        }
    }
}

impl HttpBody for Inflow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(waiting) = &mut this.waiting {
                let Poll::Ready(acquired) = waiting.acquiring.poll_unpin(context) else {
                    return this.wait(context);
                };
                let data = std::mem::take(&mut waiting.data);
                this.waiting = None;
                match acquired {
                    Ok(room) => this.held.widen(room),
                    Err(refusal) => return Poll::Ready(Some(Err(refusal.into()))),
                }
                if !data.is_empty() {
                    this.held.put(&data);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
            if let Some(bytes) = this.held.look_ahead() {
                this.acquire(Bytes::new(), bytes);
                continue;
            }
            let Poll::Ready(next) = this.poll_next(context) else { return this.wait(context) };
            let mut data = match next.map(|next| next.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if data.is_empty() => continue,
                Some(Ok(Ok(data))) => data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            };
            let ahead = this.held.ahead();
            if ahead == 0 {
                let bytes = data.len();
                this.acquire(data, bytes);
                continue;
            }
            // The end of a message goes on, whether there is room for the next one or not.
            this.rest = data.split_off(data.len().min(ahead));
            this.held.put(&data);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;

    /// A body of these parts that does not end.
    fn endless(parts: &[&'static [u8]]) -> Body {
        let parts: Vec<_> = parts.iter().map(|part| Ok::<_, Infallible>(*part)).collect();
        Body::from_stream(stream::iter(parts).chain(stream::pending()))
    }

    async fn read(inflow: &mut Inflow) -> Bytes {
        inflow.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[test]
    fn messages_are_told_apart() {
        let wire = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\x01\0";
        for cut in 1..=wire.len() {
            let mut framing = Framing::default();
            for part in wire.chunks(cut) {
                framing.feed(part);
            }
            // The last one is 256 bytes long, and does not come.
            assert_eq!(framing.whole, [8, 5], "{cut}");
            assert!(framing.is_amid());
            framing.feed(&[7; 256]);
            assert_eq!((framing.whole.len(), framing.whole[2]), (3, 261), "{cut}");
            assert!(!framing.is_amid());
        }
    }

    #[tokio::test]
    async fn bytes_take_room_until_they_are_of_no_use() {
        let room = Arc::new(Semaphore::new(20));
        let parts: [&[u8]; 3] = [b"\0\0\0\0\x03ab", b"", b"c\0\0\0\0\x01x\0"];
        let (mut inflow, held) = Inflow::of(endless(&parts), Arc::clone(&room), None);
        assert_eq!(read(&mut inflow).await, parts[0]);
        assert!(held.take().is_none());
        assert_eq!(read(&mut inflow).await, parts[2][..1]);
        assert_eq!(read(&mut inflow).await, parts[2][1..]);
        assert_eq!(room.available_permits(), 5);
        let message = held.take();
        drop(inflow);
        assert_eq!(room.available_permits(), 5);
        drop(message);
        assert_eq!(room.available_permits(), 13);
        drop(held.take());
        assert_eq!((room.available_permits(), held.take().is_none()), (19, true));
        drop(held);
        assert_eq!(room.available_permits(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_waits() {
        let room = Arc::new(Semaphore::new(4));
        let other = Arc::clone(&room).acquire_many_owned(3).await.unwrap();
        let (mut inflow, _held) = Inflow::of(endless(&[b"abcd"]), Arc::clone(&room), None);
        let soon = tokio::time::timeout(ROOM_PATIENCE / 2, read(&mut inflow)).await;
        assert!(soon.is_err());
        drop(other);
        assert_eq!(read(&mut inflow).await, &b"abcd"[..]);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_do_not_fit_together_come_one_after_the_other() {
        // Two have their first six bytes, and only one the rest.
        let room = Arc::new(Semaphore::new(15));
        let come = || async {
            let parts: [&[u8]; 4] = [b"\0\0\0\0\x04a", b"b", b"c", b"d"];
            let parts = stream::iter(parts).then(async |part| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, Infallible>(part)
            });
            let body = Body::from_stream(parts.chain(stream::pending()));
            let (mut inflow, held) = Inflow::of(body, Arc::clone(&room), None);
            loop {
                read(&mut inflow).await;
                if held.take().is_some() {
                    return;
                }
            }
        };
        tokio::join!(come(), come());
        assert_eq!(room.available_permits(), 15);
    }

    #[tokio::test]
    async fn the_end_of_a_message_does_not_wait_for_the_next() {
        let room = Arc::new(Semaphore::new(7));
        let parts: [&[u8]; 2] = [b"\0\0\0\0\x02a", b"b\0\0\0\0\x01"];
        let (mut inflow, held) = Inflow::of(endless(&parts), Arc::clone(&room), None);
        assert_eq!(read(&mut inflow).await, parts[0]);
        assert_eq!(read(&mut inflow).await, &b"b"[..]);
        assert_eq!(room.available_permits(), 0);
        drop(held.take());
        assert_eq!(read(&mut inflow).await, parts[1][1..]);
    }

    #[tokio::test]
    async fn much_is_read_of_those_who_are_known() {
        let small: [&[u8]; 2] = [b"\0\0\0\0\x02a", b"b"];
        let large: [&[u8]; 2] = [b"\0\0\x02\0\0a", b"b"];
        for (parts, is_read) in [(small, true), (large, false)] {
            let refusal = Refusal::new(Code::UnknownKey, "who?");
            let check: Check = Box::pin(std::future::ready(Err(refusal)));
            let room = Arc::new(Semaphore::new(1_048_576));
            let (mut inflow, _held) = Inflow::of(endless(&parts), room, Some(check));
            assert_eq!(read(&mut inflow).await, parts[0]);
            assert_eq!(inflow.frame().await.unwrap().is_ok(), is_read);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_message_is_not_waited_for_without_end() {
        let room = Arc::new(Semaphore::new(20));
        let parts: [&[u8]; 1] = [b"\0\0\0\0\x03ab"];
        let (mut inflow, _held) = Inflow::of(endless(&parts), Arc::clone(&room), None);
        read(&mut inflow).await;
        let begun = Instant::now();
        let status = inflow.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_messages_is_no_fault() {
        let room = Arc::new(Semaphore::new(20));
        let parts: [&[u8]; 1] = [b"\0\0\0\0\x02ab"];
        let (mut inflow, _held) = Inflow::of(endless(&parts), Arc::clone(&room), None);
        read(&mut inflow).await;
        let silence = tokio::time::timeout(PATIENCE * 10, inflow.frame()).await;
        assert!(silence.is_err());
    }
}

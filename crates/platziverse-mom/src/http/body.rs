//! Reading bodies: so many bytes of each, so many of all, and within a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::core::{Code, Refusal};

/// Bytes of bodies that are held at a time, until RabbitMQ has them.
pub(crate) const BYTES_MAX: usize = 64 * 1_048_576;
/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a body may wait for its room.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// A body that was read. What it takes of all bodies' room is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The length that the client has announced, if it has.
pub(crate) fn announced(body: &Body) -> Option<u64> {
    body.size_hint().exact()
}

/// Reads a body of at most `max` bytes. It takes its room whole, before it is read: bodies that each
/// have a part of theirs would wait for each other.
pub(crate) async fn read(
    mut body: Body,
    max: usize,
    room: &Arc<Semaphore>,
) -> Result<Held, Refusal> {
    let length = announced(&body).map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if length.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let gathering = async {
        let held = take(room, length.unwrap_or(max)).await?;
        gather(&mut body, max, held).await
    };
    timeout(PATIENCE, gathering).await.unwrap_or_else(|_| {
        let detail = format!("the body did not come within {PATIENCE:?}");
        Err(Refusal::new(Code::RequestTimeout, detail))
    })
}

async fn gather(
    body: &mut Body,
    max: usize,
    mut held: OwnedSemaphorePermit,
) -> Result<Held, Refusal> {
    let (mut first, mut more) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Refusal::invalid(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        if first.len() + more.len() + data.len() > max {
            return Err(too_large(max));
        }
        // Most bodies come as one, and are not copied.
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&first);
                first = Bytes::new();
            }
            more.extend_from_slice(&data);
        }
    }
    let bytes = if more.is_empty() { first } else { more.freeze() };
    drop(held.split(held.num_permits().saturating_sub(bytes.len())));
    Ok(Held { bytes, _room: held })
}

async fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let taken = timeout(ROOM_PATIENCE, Arc::clone(room).acquire_many_owned(bytes)).await;
    match taken {
        Ok(Ok(taken)) => Ok(taken),
        Ok(Err(_)) | Err(_) => {
            Err(Refusal::unavailable("the server has all the bodies it may have"))
        }
    }
}

fn too_large(max: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("the body may have {max} bytes at most"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};

    use super::*;

    fn parts(parts: &[&'static str]) -> Body {
        let parts: Vec<_> = parts.iter().map(|part| Ok::<_, Infallible>(*part)).collect();
        Body::from_stream(stream::iter(parts))
    }

    #[tokio::test]
    async fn bodies_are_put_together() {
        let room = Arc::new(Semaphore::new(100));
        let held = read(parts(&["a", "", "bc", "d"]), 4, &room).await.unwrap();
        assert_eq!(held.bytes, "abcd");
        assert_eq!(room.available_permits(), 96);
        drop(held);
        assert_eq!(room.available_permits(), 100);
        assert!(read(Body::empty(), 4, &room).await.unwrap().bytes.is_empty());
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_and_holds_nothing() {
        let room = Arc::new(Semaphore::new(100));
        for body in [parts(&["abc", "de"]), Body::from("abcde")] {
            let refusal = read(body, 4, &room).await.unwrap_err();
            assert_eq!(refusal.code, Code::TooLarge);
        }
        assert_eq!(room.available_permits(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_do_not_fit_together_come_one_after_the_other() {
        // Two have their first halves, and neither the other.
        let room = Arc::new(Semaphore::new(5));
        let come = async || {
            let parts = stream::iter(["ab", "cd"]).then(async |part| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, Infallible>(part)
            });
            read(Body::from_stream(parts), 4, &room).await.map(|held| held.bytes)
        };
        let (one, other) = tokio::join!(come(), come());
        assert_eq!((one.unwrap(), other.unwrap()), ("abcd".into(), "abcd".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_without_end() {
        let room = Arc::new(Semaphore::new(100));
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(read(silent, 4, &room).await.unwrap_err().code, Code::RequestTimeout);
        let _all = room.clone().acquire_many_owned(100).await.unwrap();
        let refusal = read(Body::from("a"), 4, &room).await.unwrap_err();
        assert_eq!(refusal.code, Code::Unavailable);
    }
}

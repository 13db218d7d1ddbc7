//! One direction of a connection.

use std::collections::VecDeque;
use std::future::pending;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{End, Toxic};

/// How many bytes are held at most.
const LINE_MAX: usize = 64 * 1024;
const CHUNK_MAX: usize = 16 * 1024;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Bytes on their way, each chunk with the time at which it came. An empty chunk is the end.
#[derive(Default)]
struct Line {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.chunks.push_back((Instant::now(), bytes.to_vec()));
    }

    fn sent(&mut self, count: usize) {
        self.bytes -= count;
        if let Some((_, chunk)) = self.chunks.front_mut() {
            chunk.drain(..count);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

/// Moves bytes as the toxic says, until the end has passed or something breaks.
pub(super) async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut toxics: watch::Receiver<Toxic>,
    end: watch::Receiver<End>,
) -> io::Result<()> {
    let mut line = Line::default();
    let mut buffer = vec![0; CHUNK_MAX];
    let (mut ended, mut pace) = (false, Instant::now());
    loop {
        let toxic = *toxics.borrow_and_update();
        // An end that another thread has ordered since this future was last polled comes first,
        // too: whoever sees it drops this future.
        if end.has_changed().unwrap_or(true) {
            pending::<()>().await;
        }
        let moves = toxic.moves(direction);
        let room = CHUNK_MAX.min(LINE_MAX - line.bytes);
        let next = line.chunks.front();
        tokio::select! {
            // Never an error: the connection's controls have the sender.
            changed = toxics.changed() => changed.map_err(io::Error::other)?,
            read = from.read(&mut buffer[..room]), if moves && !ended && room > 0 => {
                let count = read?;
                ended = count == 0;
                line.push(&buffer[..count]);
            }
            sent = send(&mut to, next, toxic, pace), if moves && next.is_some() => {
                match sent? {
                    0 => return Ok(()),
                    count => {
                        pace = pace.max(Instant::now()) + toxic.pause(count);
                        line.sent(count);
                    }
                }
            }
        }
    }
}

/// Writes some of a chunk when it is due: how much; 0 if it was the end.
async fn send(
    to: &mut WriteHalf<'_>,
    chunk: Option<&(Instant, Vec<u8>)>,
    toxic: Toxic,
    pace: Instant,
) -> io::Result<usize> {
    let Some((came, bytes)) = chunk else { return Ok(0) };
    // What came in while the toxic was another waits no longer than it says now.
    let due = *came + toxic.latency();
    sleep_until(if toxic.pause(1).is_zero() { due } else { due.max(pace) }).await;
    if bytes.is_empty() {
        to.shutdown().await?;
        return Ok(0);
    }
    match to.write(&bytes[..bytes.len().min(toxic.step())]).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

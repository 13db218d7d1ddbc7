//! Connections that do nothing but stay.

use std::io;
use std::net::TcpStream as Blocking;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::connecting::{LoadError, connect, connect_all};
use crate::latency::{Latency, Recorder};
use crate::plan::Server;
use crate::wire::{self, Answer};

/// How long all answers to a ping may take.
const PONG: Duration = Duration::from_secs(30);

/// Connections that do nothing but stay. Dropping it closes them.
///
/// None of them pings by itself: with a keep-alive, [`Idle::ping`] must be called in time.
#[derive(Debug)]
pub struct Idle {
    streams: Vec<TcpStream>,
    took: Duration,
    latency: Latency,
}

impl Idle {
    /// Connects `count` clients named `{name}-{number}`, spread over `servers`, `at_once` at a time,
    /// each with `keep_alive` seconds, 0 for none. `tell` hears every second, and at the end, how
    /// many there are. Each takes a file descriptor.
    ///
    /// # Errors
    /// When one of them is not let in within 30 s.
    pub async fn connect(
        servers: &[Server],
        name: &str,
        count: usize,
        at_once: usize,
        keep_alive: u16,
        tell: impl FnMut(usize),
    ) -> Result<Self, LoadError> {
        let begun = Instant::now();
        let open = |number, server| {
            let name = name.to_owned();
            async move {
                let begun = Instant::now();
                let stream = connect(&server, &name, number, keep_alive).await?;
                Ok((stream, begun.elapsed()))
            }
        };
        let connected = connect_all(servers, count, at_once, open, tell).await?;
        let took = begun.elapsed();
        let (streams, latencies): (_, Vec<_>) = connected.into_iter().unzip();
        let recorder = Recorder::new();
        recorder.record(0, latencies.into_iter());
        Ok(Self { streams, took, latency: recorder.read().1 })
    }

    /// How long all of them took to be let in.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// From connect() to CONNACK.
    pub fn latency(&self) -> Latency {
        self.latency
    }

    /// How many are still open, as far as this machine has heard. It looks at every socket, and
    /// waits for none.
    pub fn open(&self) -> usize {
        self.streams.iter().filter(|stream| is_open(stream)).count()
    }

    /// Sends a PINGREQ on every connection and waits for every PINGRESP, at most 30 s in all. How
    /// many answered.
    pub async fn ping(&mut self) -> usize {
        let give_up = tokio::time::Instant::now() + PONG;
        // An answer to an earlier ping must not count for this one.
        let asked = |stream: &TcpStream| {
            discard(stream);
            stream.try_write(&wire::PINGREQ).is_ok_and(|written| written == wire::PINGREQ.len())
        };
        let asked: Vec<bool> = self.streams.iter().map(asked).collect();
        let mut answered = 0;
        for (stream, asked) in self.streams.iter_mut().zip(asked) {
            let pong = tokio::time::timeout_at(give_up, pong(stream));
            answered += usize::from(asked && pong.await.is_ok_and(|pong| pong.is_ok()));
        }
        answered
    }
}

/// Whether the server has closed it.
///
/// Asks the socket itself: what the runtime knows of it is as old as its last look.
fn is_open(stream: &TcpStream) -> bool {
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return false };
    match Blocking::from(socket).peek(&mut [0]) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn discard(stream: &TcpStream) {
    while stream.try_read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
}

/// Waits for a PINGRESP.
async fn pong(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; wire::PINGREQ.len()];
    stream.read_exact(&mut answer).await?;
    match wire::first(&answer) {
        Some((Answer::Pingresp, _)) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

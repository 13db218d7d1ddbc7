//! One client: publishes what is due, and takes the answers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::latency::Recorder;
use crate::message::Messages;
use crate::plan::{Plan, Schedule, Server};
use crate::run::LoadError;
use crate::wire::{self, Answer};

/// How long the last answers may take.
const GRACE: Duration = Duration::from_secs(10);
/// What may wait to be written, in bytes: more is not made before it is.
const UNWRITTEN_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// What all clients of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) recorder: Recorder,
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    /// Of these, those whose answer came while it counted.
    pub(crate) in_time: AtomicU64,
    pub(crate) open: AtomicU64,
    /// When the clients begin to publish.
    pub(crate) begin: Instant,
    /// The same moment, in microseconds since 1970.
    pub(crate) begin_micros: u64,
}

impl Run {
    fn counts_from(&self) -> Instant {
        self.begin + self.plan.warm_up
    }

    pub(crate) fn end(&self) -> Instant {
        self.begin + self.length()
    }

    fn length(&self) -> Duration {
        self.plan.warm_up + self.plan.time
    }
}

/// Connects, and waits until the server has let the client in.
pub(crate) async fn connect(server: &Server, id: &str) -> Result<TcpStream, LoadError> {
    let address = server.address;
    let failed = |source| LoadError::Connect { address, source };
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    // No keep-alive: a client may be idle for long, and its end shows anyway.
    stream.write_all(&wire::connect(id, server.login.as_ref(), 0)).await.map_err(failed)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    match wire::first(&answer) {
        Some((Answer::Connack(0), _)) => Ok(stream),
        Some((Answer::Connack(code), _)) => Err(LoadError::Refused { address, code }),
        _ => Err(LoadError::NotMqtt { address }),
    }
}

/// A publish that awaits its answer.
struct Open {
    /// When it was due, or sent in a closed loop.
    since: Instant,
    answered: bool,
}

/// A client that publishes.
pub(crate) struct Client {
    run: Arc<Run>,
    number: usize,
    stream: TcpStream,
    messages: Messages,
    schedule: Option<Schedule>,
    /// In the order of their packet identifiers; the first has `first_packet`.
    open: VecDeque<Open>,
    first_packet: u16,
    published: u64,
    payload: Vec<u8>,
    outbound: Vec<u8>,
    written: usize,
    inbound: Vec<u8>,
    latencies: Vec<Duration>,
}

impl Client {
    pub(crate) fn new(run: Arc<Run>, number: usize, stream: TcpStream) -> Self {
        let plan = &run.plan;
        Self {
            number,
            stream,
            messages: Messages::of(&plan.shape, &plan.name, number),
            schedule: Schedule::of(plan, number),
            open: VecDeque::new(),
            first_packet: 1,
            published: 0,
            payload: Vec::new(),
            outbound: Vec::new(),
            written: 0,
            inbound: Vec::with_capacity(READ_BYTES),
            latencies: Vec::new(),
            run,
        }
    }

    /// Publishes to the end of the run, then waits for the last answers. Answers how many it has none
    /// of, and whether the connection lasted.
    pub(crate) async fn publish(mut self) -> (u64, io::Result<()>) {
        let result = self.serve().await;
        self.run.open.fetch_sub(1, Ordering::Relaxed);
        let sent = self.open.iter().filter(|open| !open.answered).count() as u64;
        let due = self.schedule.map_or(0, |schedule| schedule.due_before(self.run.length()));
        (sent + due.saturating_sub(self.published), result)
    }

    async fn serve(&mut self) -> io::Result<()> {
        let end = self.run.end();
        loop {
            let now = Instant::now();
            self.fill(now, end);
            self.write()?;
            let due = self.next_due(now);
            let is_done = self.open.is_empty() && due.is_none();
            if now >= end && (is_done || now >= end + GRACE) {
                return self.stream.write_all(&wire::DISCONNECT).await;
            }
            let wake = due.unwrap_or(if now < end { end } else { end + GRACE });
            let writing = self.written < self.outbound.len();
            tokio::select! {
                ready = self.stream.readable() => { ready?; self.read()?; }
                ready = self.stream.writable(), if writing => ready?,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// When the next publish is due that there is room for; nothing in a closed loop, or at its end.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = self.run.begin + self.schedule?.due(self.published);
        (self.has_room() && due < self.run.end()).then(|| due.max(now))
    }

    fn has_room(&self) -> bool {
        self.open.len() < self.run.plan.pace.in_flight_max() && self.outbound.len() < UNWRITTEN_MAX
    }

    /// Makes what is due. What was due before the end is made after it, too: a machine that comes
    /// late to it must not make the server look better.
    fn fill(&mut self, now: Instant, end: Instant) {
        let before = self.published;
        while self.has_room() {
            let since = match self.schedule {
                Some(schedule) => self.run.begin + schedule.due(self.published),
                None => now,
            };
            if since > now || since >= end {
                break;
            }
            let micros = since.duration_since(self.run.begin).as_micros();
            let due = self.run.begin_micros + u64::try_from(micros).unwrap_or(0);
            self.payload.clear();
            self.messages.write(due, &mut self.payload);
            let packet = packet(self.first_packet, self.open.len());
            wire::publish(self.run.plan.shape.topic(), packet, &self.payload, &mut self.outbound);
            self.open.push_back(Open { since, answered: false });
            self.published += 1;
        }
        self.run.sent.fetch_add(self.published - before, Ordering::Relaxed);
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.outbound.len() {
            match self.stream.try_write(&self.outbound[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outbound.clear();
        self.written = 0;
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        match self.stream.try_read_buf(&mut self.inbound) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let (now, mut used, mut answered) = (Instant::now(), 0, 0);
        while let Some((answer, length)) = wire::first(&self.inbound[used..]) {
            used += length;
            if let Answer::Puback(packet) = answer {
                answered += u64::from(self.answered(packet, now));
            }
        }
        self.inbound.drain(..used);
        self.run.answered.fetch_add(answered, Ordering::Relaxed);
        if now >= self.run.counts_from() && now < self.run.end() {
            self.run.in_time.fetch_add(answered, Ordering::Relaxed);
        }
        self.run.recorder.record(self.number, self.latencies.drain(..));
        Ok(())
    }

    fn answered(&mut self, packet: u16, now: Instant) -> bool {
        let Some(open) = self.open.get_mut(distance(self.first_packet, packet)) else {
            return false;
        };
        if std::mem::replace(&mut open.answered, true) {
            return false;
        }
        if open.since >= self.run.counts_from() && open.since < self.run.end() {
            self.latencies.push(now.duration_since(open.since));
        }
        while self.open.front().is_some_and(|open| open.answered) {
            self.open.pop_front();
            self.first_packet = packet_after(self.first_packet);
        }
        true
    }
}

/// Packet identifiers go from 1 to 65,535, and round (MQTT-2.3.1-1).
fn packet(first: u16, distance: usize) -> u16 {
    let index = (usize::from(first) - 1 + distance) % usize::from(u16::MAX);
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}

fn packet_after(packet: u16) -> u16 {
    self::packet(packet, 1)
}

/// How far `packet` is from `first`.
fn distance(first: u16, packet: u16) -> usize {
    let round = usize::from(u16::MAX);
    (usize::from(packet) + round - usize::from(first)) % round
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_identifiers_go_round() {
        assert_eq!([packet(1, 0), packet(65_535, 1), packet(65_000, 600)], [1, 1, 65]);
        for first in [1, 2, 65_535] {
            for far in [0, 1, 9_999] {
                assert_eq!(distance(first, packet(first, far)), far);
            }
        }
    }
}

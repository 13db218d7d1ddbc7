//! One client: publishes what is due, and takes the answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::latency::Recorder;
use crate::message::Messages;
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::socket::Socket;
use crate::timeline::Timeline;
use crate::window::Window;
use crate::wire::{self, Answer};

/// What all clients of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) timeline: Timeline,
    pub(crate) recorder: Recorder,
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    /// Of these, those whose answer came while it counted.
    pub(crate) in_time: AtomicU64,
    pub(crate) open: AtomicU64,
}

/// A client that publishes.
pub(crate) struct Client {
    run: Arc<Run>,
    number: usize,
    socket: Socket,
    messages: Messages,
    pacer: Pacer,
    /// When each was due, or sent in a closed loop.
    window: Window<Instant>,
    payload: Vec<u8>,
    latencies: Vec<Duration>,
}

impl Client {
    pub(crate) fn new(run: Arc<Run>, number: usize, stream: TcpStream) -> Self {
        let plan = &run.plan;
        Self {
            number,
            socket: Socket::new(stream),
            messages: Messages::of(&plan.shape, &plan.name, number),
            pacer: Pacer::of(plan.pace, plan.clients, number, run.timeline),
            window: Window::new(),
            payload: Vec::new(),
            latencies: Vec::new(),
            run,
        }
    }

    /// Publishes to the end of the run, then waits for the last answers. Answers how many it has none
    /// of, and whether the connection lasted.
    pub(crate) async fn publish(mut self) -> (u64, io::Result<()>) {
        let result = self.serve().await;
        self.run.open.fetch_sub(1, Ordering::Relaxed);
        (self.window.unanswered() + self.pacer.unsent(), result)
    }

    async fn serve(&mut self) -> io::Result<()> {
        let timeline = self.run.timeline;
        loop {
            let now = Instant::now();
            self.fill(now);
            self.socket.flush()?;
            let due = self.has_room().then(|| self.pacer.next(now)).flatten();
            let Some(wake) = timeline.wait_until(now, due, self.window.is_empty()) else {
                return self.socket.leave();
            };
            tokio::select! {
                ready = self.socket.wait() => { ready?; self.take_answers(); }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn has_room(&self) -> bool {
        self.window.len() < self.run.plan.pace.in_flight_max() && self.socket.has_room()
    }

    /// Makes what is due.
    fn fill(&mut self, now: Instant) {
        let before = self.pacer.published();
        while self.has_room() {
            let Some(since) = self.pacer.take(now) else { break };
            self.payload.clear();
            self.messages.write(self.run.timeline.micros(since), &mut self.payload);
            let (topic, packet) = (self.run.plan.shape.topic(), self.window.push(since));
            wire::publish(topic, packet, &self.payload, self.socket.outbound());
        }
        self.run.sent.fetch_add(self.pacer.published() - before, Ordering::Relaxed);
    }

    fn take_answers(&mut self) {
        let (now, timeline, mut answered) = (Instant::now(), self.run.timeline, 0);
        self.socket.packets(|answer, _| {
            if let Answer::Puback(packet) = answer
                && let Some(since) = self.window.answered(packet)
            {
                answered += 1;
                if timeline.counts(since) {
                    self.latencies.push(now.duration_since(since));
                }
            }
            true
        });
        self.run.answered.fetch_add(answered, Ordering::Relaxed);
        if timeline.counts(now) {
            self.run.in_time.fetch_add(answered, Ordering::Relaxed);
        }
        self.run.recorder.record(self.number, self.latencies.drain(..));
    }
}

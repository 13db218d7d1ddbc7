//! The one that publishes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Run;
use crate::message::Messages;
use crate::pacer::Pacer;
use crate::plan::{IN_FLIGHT_MAX, Pace};
use crate::socket::Socket;
use crate::window::Window;
use crate::wire::{self, Answer};

/// After the publisher's connection has ended: a server that dies ends all, and each is to be told.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What came of publishing.
pub(super) struct Published {
    /// Messages that were due while it counted, and could not be sent.
    pub(super) unsent_counted: u64,
    /// Whether the connection lasted.
    pub(super) result: io::Result<()>,
}

/// The one that publishes.
pub(super) struct Publisher {
    run: Arc<Run>,
    socket: Socket,
    messages: Messages,
    pacer: Pacer,
    window: Window<()>,
    payload: Vec<u8>,
}

impl Publisher {
    pub(super) fn new(run: Arc<Run>, socket: Socket) -> Self {
        let plan = &run.plan;
        Self {
            socket,
            messages: Messages::dated(&plan.shape, &plan.name, 0),
            pacer: Pacer::of(plan.pace, 1, 0, run.timeline),
            window: Window::new(),
            payload: Vec::new(),
            run,
        }
    }

    /// Publishes to the end of the run, then waits until everyone has heard everything, and at most
    /// 10 s. It ends early when `is_over`.
    pub(super) async fn publish(mut self, mut is_over: watch::Receiver<bool>) -> Published {
        let mut result = tokio::select! {
            result = self.serve() => result,
            _ = is_over.wait_for(|is_over| *is_over) => Ok(()),
        };
        tokio::select! {
            () = self.wait_until_heard(&result) => {}
            _ = is_over.wait_for(|is_over| *is_over) => {}
        }
        result = result.and_then(|()| self.socket.leave());
        self.run.open.fetch_sub(1, Ordering::Relaxed);
        Published { unsent_counted: self.pacer.unsent_counted(), result }
    }

    async fn serve(&mut self) -> io::Result<()> {
        let timeline = self.run.timeline;
        let run = Arc::clone(&self.run);
        loop {
            let now = Instant::now();
            self.fill(now);
            self.socket.flush()?;
            let due = self.has_room().then(|| self.pacer.next(now)).flatten();
            let Some(wake) = timeline.wait_until(now, due, self.window.is_empty()) else {
                return Ok(());
            };
            tokio::select! {
                ready = self.socket.wait() => { ready?; self.take_answers(); }
                () = run.ledger.completed() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    async fn wait_until_heard(&self, served: &io::Result<()>) {
        let give_up = self.run.timeline.give_up(Instant::now());
        let heard = async {
            while self.run.ledger.in_flight() > 0 {
                self.run.ledger.completed().await;
            }
            if served.is_err() {
                tokio::time::sleep(AFTERMATH).await;
            }
        };
        // Late or not, the report tells what is missing.
        let _ = tokio::time::timeout_at(give_up.into(), heard).await;
    }

    fn has_room(&self) -> bool {
        let is_heard = match self.run.plan.pace {
            Pace::Open(_) => true,
            closed => self.run.ledger.in_flight() < closed.in_flight_max() as u64,
        };
        is_heard && self.window.len() < usize::from(IN_FLIGHT_MAX) && self.socket.has_room()
    }

    /// Makes what is due.
    fn fill(&mut self, now: Instant) {
        while self.has_room() {
            let Some(since) = self.pacer.take(now) else { break };
            let due = self.run.ledger.enter(self.run.timeline.micros(since));
            self.payload.clear();
            self.messages.write(due, &mut self.payload);
            let (topic, packet) = (self.run.plan.shape.topic(), self.window.push(()));
            wire::publish(topic, packet, &self.payload, self.socket.outbound());
        }
    }

    fn take_answers(&mut self) {
        self.socket.packets(|answer, _| {
            if let Answer::Puback(packet) = answer {
                self.window.answered(packet);
            }
            true
        });
    }
}

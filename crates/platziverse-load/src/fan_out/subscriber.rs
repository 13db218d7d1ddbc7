//! One of those that hear what is published.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Run;
use super::ledger::{Hearing, Listener};
use super::mark::Mark;
use crate::connecting::LoadError;
use crate::socket::Socket;
use crate::wire::{self, Answer};

/// Subscribes, and waits until the server has granted it. What others publish meanwhile is passed
/// over.
pub(super) async fn subscribe(
    socket: &mut Socket,
    address: SocketAddr,
    topic: &str,
    qos: u8,
) -> Result<(), LoadError> {
    let failed = |source| LoadError::Connect { address, source };
    wire::subscribe(topic, qos, socket.outbound());
    loop {
        socket.flush().map_err(failed)?;
        socket.wait().await.map_err(failed)?;
        let mut granted = None;
        socket.packets(|answer, out| {
            match answer {
                Answer::Suback(code) => granted = Some(code),
                Answer::Publish { packet: Some(packet), .. } => wire::puback(packet, out),
                _ => {}
            }
            granted.is_none()
        });
        match granted {
            Some(code) if code == qos => return Ok(()),
            Some(code) => return Err(LoadError::Subscription { address, code }),
            None => {}
        }
    }
}

/// One of those that hear what is published.
pub(super) struct Subscriber {
    run: Arc<Run>,
    number: usize,
    socket: Socket,
    mark: Mark,
    listener: Listener,
    latencies: Vec<Duration>,
}

impl Subscriber {
    pub(super) fn new(run: Arc<Run>, number: usize, socket: Socket) -> Self {
        let mark = Mark::of(&run.plan.shape, &run.plan.name);
        let (listener, latencies) = (Listener::default(), Vec::new());
        Self { run, number, socket, mark, listener, latencies }
    }

    /// Hears everything until `is_over`, and says whether the connection lasted.
    pub(super) async fn listen(mut self, mut is_over: watch::Receiver<bool>) -> io::Result<()> {
        let result = tokio::select! {
            biased;
            result = self.serve() => result,
            _ = is_over.wait_for(|is_over| *is_over) => Ok(()),
        };
        self.run.open.fetch_sub(1, Ordering::Relaxed);
        result.and_then(|()| self.socket.leave())
    }

    async fn serve(&mut self) -> io::Result<()> {
        loop {
            // First what came with the SUBACK.
            self.hear();
            self.socket.flush()?;
            self.socket.wait().await?;
        }
    }

    fn hear(&mut self) {
        let (now, timeline) = (Instant::now(), self.run.timeline);
        let (mut delivered, mut doubled) = (0, 0);
        let reading = self.run.ledger.read();
        self.socket.packets(|answer, out| {
            let Answer::Publish { packet, payload } = answer else { return true };
            if let Some(packet) = packet {
                wire::puback(packet, out);
            }
            let Some(due) = self.mark.due(payload) else { return true };
            match reading.hear(&mut self.listener, due) {
                Hearing::First => {
                    delivered += 1;
                    let since = timeline.at(due);
                    if timeline.counts(since) {
                        self.latencies.push(now.saturating_duration_since(since));
                    }
                }
                Hearing::Again => doubled += 1,
                Hearing::Stranger => {}
            }
            true
        });
        drop(reading);
        if delivered == 0 && doubled == 0 {
            return;
        }
        self.run.delivered.fetch_add(delivered, Ordering::Relaxed);
        self.run.doubled.fetch_add(doubled, Ordering::Relaxed);
        if timeline.counts(now) {
            self.run.in_time.fetch_add(delivered, Ordering::Relaxed);
        }
        self.run.recorder.record(self.number, self.latencies.drain(..));
    }
}

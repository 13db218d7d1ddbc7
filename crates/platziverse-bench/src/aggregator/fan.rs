//! One client that speaks to all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::dialect::{CHANNELS, Heard, To};
use super::socket::Socket;
use super::{Stand, Target, Tasks};
use crate::mom::{Counted, Load, Window};

/// Messages that not every client has yet.
const IN_FLIGHT: u64 = 100;
/// How often it is looked at who has what.
const LOOK: Duration = Duration::from_millis(1);

/// How clients take channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// One channel, over one socket.
    Single,
    /// All channels, over one socket.
    Together,
    /// All channels, each over a socket of its own.
    Apart,
}

impl Split {
    /// How many channels messages are spread over, one after the other.
    fn channels(self) -> usize {
        if self == Self::Single { 1 } else { CHANNELS.len() }
    }

    /// The channels of each socket of a client.
    pub(crate) fn sockets(self) -> Vec<Vec<usize>> {
        let all = 0..self.channels();
        match self {
            Self::Single | Self::Together => vec![all.collect()],
            Self::Apart => all.map(|channel| vec![channel]).collect(),
        }
    }
}

/// Broadcasts to so many clients for a while. Each must get each message once, in the order in which
/// they were sent. Deliveries are counted.
pub(crate) async fn out(
    stand: &Stand,
    clients: usize,
    split: Split,
    window: Window,
) -> Result<Counted, String> {
    let (load, mut tasks) = (Arc::new(Load::new()), JoinSet::new());
    let progress: Arc<Vec<_>> = Arc::new((0..clients).map(|_| AtomicU64::new(0)).collect());
    let (total, known) = watch::channel(None);
    for client in 0..clients {
        for channels in split.sockets() {
            let socket = stand.target.listen(&format!("client-{client}"), &channels).await?;
            let listener = Listener { socket, channels, split, client };
            let (load, progress) = (Arc::clone(&load), Arc::clone(&progress));
            tasks.spawn(listener.listen(load, progress, known.clone()));
        }
    }
    speak(&mut tasks, &stand.target, &load, progress, (split, total)).await?;
    load.run(tasks, stand.process, window).await
}

async fn speak(
    tasks: &mut Tasks,
    target: &Target,
    load: &Arc<Load>,
    progress: Arc<Vec<AtomicU64>>,
    (split, total): (Split, watch::Sender<Option<u64>>),
) -> Result<(), String> {
    let (mut socket, load) = (target.connect("speaker").await?, Arc::clone(load));
    tasks.spawn(async move {
        let (mut sent, mut confirmed) = (0, 0);
        while !load.is_over() {
            while let Some(heard) = socket.hear().now_or_never() {
                confirmed += u64::from(matches!(heard?, Heard::Receipt(_)));
            }
            let slowest = progress.iter().map(|one| one.load(Ordering::Relaxed)).min();
            let room = (slowest.unwrap_or_default() + IN_FLIGHT).saturating_sub(sent);
            for _ in 0..room {
                let channel = sent as usize % split.channels();
                socket.publish(To::Everyone(channel), sent).await?;
                sent += 1;
            }
            socket.flush().await?;
            sleep(LOOK).await;
        }
        total.send_replace(Some(sent));
        while confirmed < sent {
            confirmed += u64::from(matches!(socket.hear().await?, Heard::Receipt(_)));
        }
        Ok(())
    });
    Ok(())
}

struct Listener {
    socket: Socket,
    channels: Vec<usize>,
    split: Split,
    client: usize,
}

impl Listener {
    async fn listen(
        mut self,
        load: Arc<Load>,
        progress: Arc<Vec<AtomicU64>>,
        mut total: watch::Receiver<Option<u64>>,
    ) -> Result<(), String> {
        let step = self.split.channels() as u64;
        // By channel, the message that comes next.
        let mut next: Vec<u64> = (0..step).collect();
        loop {
            let end = *total.borrow();
            let is_done = |total| self.channels.iter().all(|channel| next[*channel] >= total);
            if end.is_some_and(is_done) {
                return Ok(());
            }
            let heard = tokio::select! {
                heard = self.socket.hear() => heard?,
                _ = total.changed(), if end.is_none() => continue,
            };
            let Heard::Message(channel, number) = heard else { continue };
            if next.get(channel) != Some(&number) {
                return Err(format!(
                    "client {} got message {number} when {:?} were to come",
                    self.client, next
                ));
            }
            next[channel] += step;
            progress[self.client].fetch_add(1, Ordering::Relaxed);
            load.done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_spread_over_sockets() {
        assert_eq!(Split::Single.sockets(), [[0]]);
        assert_eq!(Split::Together.sockets(), [[0, 1, 2]]);
        assert_eq!(Split::Apart.sockets(), [[0], [1], [2]]);
    }
}

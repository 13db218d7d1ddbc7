//! This gateway's heartbeats, and what it learns from those of others.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use platziverse_broker::{LiveMessages, Outcome, heartbeat};
use platziverse_protocol::heartbeat::Heartbeat;
use tokio::sync::oneshot;

use crate::hub::Hub;
use crate::mailbox::Event;
use crate::settlement::Settlement;

/// How often a gateway shows that it lives.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// How long without a confirmed heartbeat until the sweep may have ended this gateway's sessions.
/// Less than the lease of 10 s, for what is under way.
const LOST_AFTER: Duration = Duration::from_secs(8);

/// Sends one heartbeat; resolves when RabbitMQ has it.
pub(crate) async fn beat(hub: &Hub, instance: &str) -> bool {
    let beat = Heartbeat {
        instance: instance.to_owned(),
        service: "gateway".to_owned(),
        time: hub.clock().time(hub.now()),
    };
    let (receipt, confirmed) = oneshot::channel();
    let outgoing = heartbeat::outgoing(&beat, Settlement::Awaited(receipt));
    if hub.signals.publish(outgoing).await.is_err() {
        return false;
    }
    matches!(confirmed.await, Ok(Outcome::Confirmed))
}

/// Beats until the process drains and has no connections any more. `last` is when the heartbeat before was sent.
pub(crate) async fn run(hub: Arc<Hub>, instance: String, mut last: Instant) {
    let mut heard = hub.live.listening_since();
    loop {
        tokio::select! {
            () = tokio::time::sleep(BEAT_EVERY) => {}
            () = is_empty(&hub) => return,
        }
        let sent = Instant::now();
        tokio::select! {
            confirmed = beat(&hub, &instance) => if !confirmed { continue },
            // At the end nobody is held up by a heartbeat that RabbitMQ does not take.
            () = is_empty(&hub) => return,
        }
        let silent = last.elapsed();
        last = sent;
        if silent > LOST_AFTER {
            begin_anew(&hub, silent);
            last = Instant::now();
        }
        let listening = hub.live.listening_since();
        let is_deaf = listening.is_none();
        if !is_deaf && (listening != heard || hub.roll_is_due.swap(false, Ordering::Relaxed)) {
            heard = listening;
            call_the_roll(&hub);
        }
    }
}

/// Resolves when the process drains and the last connection has gone.
async fn is_empty(hub: &Hub) {
    hub.drain.requested().await;
    while hub.open.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Gives every session a successor: the sweep may have ended it.
fn begin_anew(hub: &Hub, silent: Duration) {
    let seconds = silent.as_secs();
    tracing::warn!("no heartbeat for {seconds} s: every session begins anew");
    for mailbox in hub.registry().all() {
        mailbox.send(Event::Renew(None));
    }
}

/// Calls the roll beside the heartbeats, which must not wait for it.
fn call_the_roll(hub: &Arc<Hub>) {
    let roll = Arc::clone(hub);
    hub.drain.spawn("roll", async move {
        tokio::select! {
            () = roll.call_the_roll() => {}
            () = roll.drain.requested() => {}
        }
    });
}

/// Follows the clocks of the other gateways.
pub(crate) async fn listen(hub: Arc<Hub>, mut messages: LiveMessages) {
    while let Some(message) = messages.next().await {
        match heartbeat::read(&message) {
            Ok(beat) if beat.service == "gateway" => {
                if !hub.clock().hear(beat.time, hub.now()) {
                    let ahead = &beat.instance;
                    tracing::error!(
                        "the clock of gateway {ahead} is over an hour ahead: set it right, or agents that move there seem connected for ever"
                    );
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("something that is no heartbeat was heard: {error}"),
        }
    }
}

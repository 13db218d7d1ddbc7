//! Accepts connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::connection;
use crate::hub::Hub;

/// How many connections beyond the limit are accepted, so that they can be told why they are not
/// let in.
const REFUSED_AT_ONCE: usize = 256;
/// How long nothing is accepted after an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the process drains.
pub(crate) async fn run(hub: Arc<Hub>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = hub.drain.requested() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                hub.metrics.accepted.inc();
                if hub.open.load(Ordering::Relaxed) >= hub.connections_max + REFUSED_AT_ONCE {
                    continue;
                }
                // Small packets are written together by us, and not to be held back.
                let _ = stream.set_nodelay(true);
                let open = Open::new(Arc::clone(&hub));
                hub.drain.spawn_isolated(async move {
                    let rest = connection::run(Arc::clone(&open.0), stream, peer).await;
                    // A client that is gone takes nobody's place while RabbitMQ is waited for.
                    drop(open);
                    rest.finish().await;
                });
            }
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Counts an open connection until it is dropped, also by a panic.
struct Open(Arc<Hub>);

impl Open {
    fn new(hub: Arc<Hub>) -> Self {
        hub.open.fetch_add(1, Ordering::Relaxed);
        hub.metrics.connections.inc();
        Self(hub)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.connections.dec();
    }
}

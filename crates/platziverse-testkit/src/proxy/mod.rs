//! A TCP proxy that injures what passes through it.

mod pump;
mod toxic;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

pub use toxic::Toxic;

use pump::{Direction, pump};

/// How long a connection that was cut is still read from: what is left unread when a socket is
/// closed turns the FIN into a RST.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A proxy between a client and a server, with a [`Toxic`] that can be changed at any time. Its
/// connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    controls: Arc<Controls>,
    accepting: JoinHandle<()>,
}

/// What the proxy tells its connections.
#[derive(Debug)]
struct Controls {
    target: Mutex<SocketAddr>,
    toxic: watch::Sender<Toxic>,
    /// Sent to the connections that there are, not to later ones.
    end: watch::Sender<End>,
    open: AtomicUsize,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// With FIN.
    Cut,
    /// With RST.
    Reset,
}

impl Proxy {
    /// Listens on a port of its own on loopback, and passes everything on to `target`.
    #[expect(clippy::disallowed_methods, reason = "a test has no drain; the drop ends the task")]
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let controls = Arc::new(Controls {
            target: Mutex::new(target),
            toxic: watch::Sender::new(Toxic::None),
            end: watch::Sender::new(End::Cut),
            open: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, controls.clone()));
        Self { address, controls, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Injures the present and all later connections in this way from now on.
    pub fn set(&self, toxic: Toxic) {
        self.controls.toxic.send_replace(toxic);
        if matches!(toxic, Toxic::Refuse) {
            self.cut();
        }
    }

    /// Ends the present connections on both sides with FIN, with what is still on its way in them.
    pub fn cut(&self) {
        self.controls.end.send_replace(End::Cut);
    }

    /// Ends the present connections on both sides with RST.
    pub fn reset(&self) {
        self.controls.end.send_replace(End::Reset);
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.controls.open.load(Ordering::Relaxed)
    }

    /// Passes later connections on to another target.
    pub fn retarget(&self, target: SocketAddr) {
        *self.controls.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Counts a connection as long as it lives.
struct Open(Arc<Controls>);

impl Open {
    fn new(controls: Arc<Controls>) -> Self {
        controls.open.fetch_add(1, Ordering::Relaxed);
        Self(controls)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, controls: Arc<Controls>) {
    // Dropped with this task, it ends them.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    // Listens for its end before it looks at the toxic: nothing passes between.
                    let end = controls.end.subscribe();
                    connections.spawn(serve(client, Open::new(controls.clone()), end));
                }
                // Out of file descriptors, say: that may pass.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, open: Open, mut end: watch::Receiver<End>) {
    let toxic = open.0.toxic.subscribe();
    // In both selects the end comes first: what was held until now must not slip out before it,
    // although the toxic that held it may be gone already.
    let connected = tokio::select! {
        biased;
        how = ordered(&mut end) => Err(how),
        connected = connect(&open.0, toxic.clone()) => connected,
    };
    let mut server = match connected {
        Ok(server) => server,
        Err(how) => {
            drop(open);
            return finish([client], how).await;
        }
    };
    for stream in [&client, &server] {
        // A proxy that gathers would be a toxic of its own; one that cannot is still a proxy.
        let _ = stream.set_nodelay(true);
    }
    let how = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, Direction::Up, toxic.clone(), end.clone());
        let down = pump(from_server, to_client, Direction::Down, toxic, end.clone());
        tokio::select! {
            biased;
            how = ordered(&mut end) => how,
            ended = async { tokio::try_join!(up, down) } => match ended {
                Ok(_) => End::Cut,
                Err(_) => End::Reset,
            },
        }
    };
    drop(open);
    finish([client, server], how).await;
}

/// Connects to the target as soon as the toxic lets anything through.
async fn connect(controls: &Controls, mut toxic: watch::Receiver<Toxic>) -> Result<TcpStream, End> {
    let toxic = toxic.wait_for(|toxic| !matches!(toxic, Toxic::HalfOpen)).await;
    if toxic.is_ok_and(|toxic| matches!(*toxic, Toxic::Refuse)) {
        return Err(End::Reset);
    }
    let target = *controls.target.lock().unwrap_or_else(PoisonError::into_inner);
    match timeout(CONNECT, TcpStream::connect(target)).await {
        Ok(Ok(server)) => Ok(server),
        _ => Err(End::Reset),
    }
}

async fn ordered(end: &mut watch::Receiver<End>) -> End {
    // Never an error: the connection's controls have the sender.
    let _ = end.changed().await;
    *end.borrow()
}

async fn finish<const N: usize>(mut streams: [TcpStream; N], how: End) {
    for stream in &mut streams {
        // What the other side has already ended needs no end.
        let _ = match how {
            End::Cut => stream.shutdown().await.is_ok(),
            End::Reset => stream.set_zero_linger().is_ok(),
        };
    }
    if matches!(how, End::Cut) {
        let draining = async {
            for stream in &mut streams {
                let _ = copy(stream, &mut sink()).await;
            }
        };
        let _ = timeout(DRAIN, draining).await;
    }
}

//! A proxy before RabbitMQ that lets only the first steps of a change pass.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use platziverse_testkit::{PATIENCE, check, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// `exchange` and `queue` (AMQP 0-9-1): their methods make and delete what is in RabbitMQ.
const CLASSES: [u16; 2] = [40, 50];
const METHOD: u8 = 1;
/// How a client begins.
const GREETING_BYTES: usize = 8;
/// Type, channel and length.
const HEAD_BYTES: usize = 7;
/// Class, method, and a reserved word.
const BEFORE_NAME: usize = 6;

/// A proxy that counts what a server does about each topic and queue. Beyond what is allowed it
/// passes nothing on of the channel, so that its change stays as far as it has come.
pub(super) struct Gate {
    address: SocketAddr,
    held: Arc<Mutex<BTreeSet<String>>>,
    _accepting: JoinSet<()>,
}

impl Gate {
    /// Listens before `target`; `allowed` says how many steps pass, by the names of topics and
    /// queues. Of others all do.
    pub(super) async fn start(target: SocketAddr, allowed: HashMap<String, usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let held = Arc::new(Mutex::new(BTreeSet::new()));
        let (seen, mut accepting) = (held.clone(), JoinSet::new());
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (allowed, held) = (allowed.clone(), seen.clone());
                connections.spawn(async move {
                    // It ends with either side.
                    let _ = pass(client, target, allowed, held).await;
                });
            }
        });
        Self { address, held, _accepting: accepting }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Of how many names changes have been held.
    pub(super) fn count(&self) -> usize {
        self.held.lock().expect("no panic").len()
    }

    /// Waits until the changes of so many names have been held.
    pub(super) async fn holds(&self, count: usize) {
        eventually("all changes are held at their steps", PATIENCE, || async {
            let held = self.held.lock().expect("no panic").clone();
            check(held.len() == count, || format!("{} of {count}: {held:?}", held.len()))
        })
        .await;
    }
}

async fn pass(
    client: TcpStream,
    target: SocketAddr,
    mut allowed: HashMap<String, usize>,
    held: Arc<Mutex<BTreeSet<String>>>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = tokio::io::copy(&mut from_server, &mut to_client);
    let up = async {
        let mut greeting = [0; GREETING_BYTES];
        from_client.read_exact(&mut greeting).await?;
        to_server.write_all(&greeting).await?;
        let mut stopped = HashSet::new();
        loop {
            let (channel, frame) = frame(&mut from_client).await?;
            if let Some(name) = changed(&frame)
                && let Some(left) = allowed.get_mut(&name)
            {
                match left.checked_sub(1) {
                    Some(less) => *left = less,
                    None => {
                        stopped.insert(channel);
                        held.lock().expect("no panic").insert(name);
                    }
                }
            }
            if !stopped.contains(&channel) {
                to_server.write_all(&frame).await?;
            }
        }
    };
    tokio::select! {
        done = down => done.map(drop),
        done = up => done,
    }
}

/// The next frame, whole, and its channel.
async fn frame(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u16, Vec<u8>)> {
    let mut frame = vec![0; HEAD_BYTES];
    from.read_exact(&mut frame).await?;
    let channel = u16::from_be_bytes([frame[1], frame[2]]);
    let length = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
    // An octet marks the end.
    frame.resize(HEAD_BYTES + length + 1, 0);
    from.read_exact(&mut frame[HEAD_BYTES..]).await?;
    Ok((channel, frame))
}

/// The topic or queue that a frame makes or deletes something of.
fn changed(frame: &[u8]) -> Option<String> {
    let (kind, method) = (*frame.first()?, frame.get(HEAD_BYTES..)?);
    let class = u16::from_be_bytes([*method.first()?, *method.get(1)?]);
    if kind != METHOD || !CLASSES.contains(&class) {
        return None;
    }
    let length = usize::from(*method.get(BEFORE_NAME)?);
    let name = str::from_utf8(method.get(BEFORE_NAME + 1..)?.get(..length)?).ok()?;
    let name = name.strip_prefix("mom.topic.").or_else(|| name.strip_prefix("mom.queue."))?;
    name.split('.').next().map(str::to_owned)
}

//! An attempt to connect that can be broken off.
//!
//! lapin goes on with an attempt for which nobody waits any more: with a thread, a socket and
//! buffers, until the other side says something or goes away. Closing the socket under it ends it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::tcp::AMQPUriTcpExt;
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, ConnectionProperties};
use tokio::time::timeout;

/// Connects. Dropped before it is done, it leaves nothing behind once `patience` is over.
pub(crate) async fn connect(
    uri: &str,
    properties: ConnectionProperties,
    patience: Duration,
) -> Result<lapin::Connection, lapin::Error> {
    let uri: AMQPUri = uri.parse().map_err(io::Error::other)?;
    let attempt = Attempt::default();
    let socket = attempt.0.clone();
    let runtime = lapin::runtime::default_runtime()?;
    let opening = lapin::Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let opened = timeout(patience, uri.connect_async(&runtime)).await;
            let stream = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let second = match &stream {
                AsyncTcpStream::Plain(plain) => plain.get_ref().as_fd().try_clone_to_owned()?,
                AsyncTcpStream::Rustls(tls) => {
                    tls.get_ref().0.get_ref().as_fd().try_clone_to_owned()?
                }
                _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
            };
            socket.opened(second.into())?;
            Ok(stream)
        },
        properties,
    );
    let connection = opening.await?;
    attempt.succeeded();
    Ok(connection)
}

/// Ends the attempt when it is dropped.
#[derive(Debug, Default)]
struct Attempt(Socket);

#[derive(Clone, Debug, Default)]
struct Socket(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Begun,
    /// A second handle on the socket that lapin has.
    Opened(TcpStream),
    Over,
}

impl Attempt {
    fn succeeded(self) {
        *self.0.stage() = Stage::Over;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Stage::Opened(socket) = std::mem::replace(&mut *self.0.stage(), Stage::Over) {
            // What is closed already needs no closing.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Socket {
    /// Fails if the attempt is over already.
    fn opened(&self, socket: TcpStream) -> io::Result<()> {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Over) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *stage = Stage::Opened(socket);
        Ok(())
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // A stage is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_left_of_an_attempt_that_was_given_up() {
        const PATIENCE: Duration = Duration::from_secs(60);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("amqp://a:b@{}/%2f", listener.local_addr().unwrap());
        let connecting = connect(&uri, ConnectionProperties::default(), PATIENCE);
        let mut stream = tokio::select! {
            _ = connecting => unreachable!("nobody answers"),
            heard = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut header = [0; 8];
                stream.read_exact(&mut header).await.unwrap();
                stream
            } => heard,
        };
        let closed = timeout(PATIENCE / 2, stream.read(&mut [0; 8])).await;
        assert_eq!(closed.expect("the socket is closed").unwrap(), 0);
    }
}

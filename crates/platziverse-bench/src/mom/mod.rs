//! A server of topics and queues under load: who asks it, and how that is counted.

mod book;
mod crowd;
mod http;
mod load;

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderValue;
use platziverse_client::{Client, Destination, Options};
use platziverse_testkit::{Mom, World};

pub(crate) use self::book::Book;
pub(crate) use self::crowd::{Crowd, name as queue_name};
pub(crate) use self::http::{Asking, Target, converse};
pub(crate) use self::load::{Counted, Load, Window, result};

use crate::site::Site;

/// More than any load here: the limit counts, and stops nobody.
const SETTINGS: [(&str, &str); 1] = [("PLATZIVERSE_MOM__RATE_PER_KEY", "1000000")];
/// Bytes of a message.
pub(crate) const BYTES: usize = 200;

/// A server, and a user of it.
pub(crate) struct Stand {
    // It ends before what it uses goes.
    pub(crate) server: Mom,
    pub(crate) world: World,
    key: String,
}

impl Stand {
    /// Starts a server, and becomes its user.
    pub(crate) async fn start(site: &Site) -> Result<Self, String> {
        let world = World::on(Arc::clone(&site.servers)).await;
        let server = world.try_mom_with(&SETTINGS).await?;
        let nobody = Client::builder(url(&server)).build().map_err(words)?;
        let key = nobody.register().await.map_err(words)?.key;
        Ok(Self { server, world, key })
    }

    /// A queue, seen over a gRPC connection of its own.
    pub(crate) fn queue(&self, name: &str) -> Result<Destination, String> {
        let client = Client::builder(url(&self.server)).key(&self.key).build().map_err(words)?;
        Ok(client.queue(name))
    }

    /// Makes a queue.
    pub(crate) async fn make(&self, name: &str) -> Result<Destination, String> {
        let queue = self.queue(name)?;
        queue.create(&Options::default()).await.map_err(words)?;
        Ok(queue)
    }

    /// Where the user asks over HTTP.
    pub(crate) fn http(&self) -> Result<Target, String> {
        Target::new(self.server.http(), &format!("Bearer {}", self.key))
    }
}

impl Target {
    /// RabbitMQ's management, which has messages published over HTTP.
    pub(crate) fn management(world: &World) -> Result<Self, String> {
        Self::new(world.rabbitmq().address(), world.rabbitmq().authorization())
    }

    fn new(address: std::net::SocketAddr, authorization: &str) -> Result<Self, String> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(words);
        Ok(Self {
            address,
            host: value(&address.to_string())?,
            authorization: value(authorization)?,
        })
    }
}

fn url(server: &Mom) -> String {
    format!("http://{}", server.grpc())
}

/// What went wrong.
pub(crate) fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The message of a number.
pub(crate) fn body(number: u64) -> Bytes {
    format!("{number:<BYTES$}").into()
}

/// The number of a message.
pub(crate) fn number(body: &[u8]) -> Result<u64, String> {
    let text = str::from_utf8(body).map_err(words)?.trim_end();
    text.parse().map_err(|_| format!("this is no message that was published: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_number() {
        let message = body(17);
        assert_eq!((message.len(), number(&message)), (BYTES, Ok(17)));
        assert!(number(b"x").is_err() && number(b"").is_err());
    }
}

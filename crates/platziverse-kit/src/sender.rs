//! Sending to clients what none of them has asked for.

use std::sync::Arc;

use platziverse_broker::aggregator::{self, Kind, Post, To};
use serde::Serialize;

use crate::KitError;
use crate::channels::Channels;

/// Sends to clients. Clones are cheap, and share a connection.
///
/// What is sent is stored once RabbitMQ has confirmed it, which is waited for, at most 10 s. After an
/// error of the kind [`KitError::Send`] RabbitMQ may have the message, unless that says that it is too
/// large: sent again, it may come twice.
#[derive(Clone, Debug)]
pub struct Sender {
    pub(crate) posts: aggregator::Sender,
    pub(crate) channels: Arc<Channels>,
}

impl Sender {
    /// Sends to every client of the channel.
    ///
    /// # Errors
    ///
    /// See [`Sender`]; an unknown channel; what is no JSON. So with the others.
    pub async fn broadcast(&self, channel: &str, message: &impl Serialize) -> Result<(), KitError> {
        let channel = self.channels.check(channel)?.to_owned();
        self.post(To::Everyone { channel }, message).await
    }

    /// Sends to one client. Nobody says whether there is one of that id.
    pub async fn send(
        &self,
        channel: &str,
        client: &str,
        message: &impl Serialize,
    ) -> Result<(), KitError> {
        let (channel, client) = (self.channels.check(channel)?.to_owned(), client.to_owned());
        self.post(To::Client { channel, client }, message).await
    }

    /// Sends to these clients.
    pub async fn multicast(
        &self,
        channel: &str,
        clients: impl IntoIterator<Item = impl Into<String>>,
        message: &impl Serialize,
    ) -> Result<(), KitError> {
        let channel = self.channels.check(channel)?.to_owned();
        let clients = clients.into_iter().map(Into::into).collect();
        self.post(To::Clients { channel, clients }, message).await
    }

    async fn post(&self, to: To, message: &impl Serialize) -> Result<(), KitError> {
        let post = Post::new(to, Kind::Publish, serde_json::to_vec(message)?);
        Ok(self.posts.hand(post).await.confirmed().await?)
    }
}

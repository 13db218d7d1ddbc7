//! Messages that are lent.

use std::time::Duration;

use platziverse_rpc::mom;
use platziverse_rpc::mom::mom_client::MomClient;
use platziverse_rpc::mom::settle_request::How;
use tonic::transport::Channel;

use crate::client::Client;
use crate::error::Error;
use crate::message::Message;
use crate::time;

/// A message that is lent: unless it is acknowledged in time, it goes back.
#[derive(Debug)]
#[must_use = "unless it is acknowledged, it is delivered again when its lease is over"]
pub struct Lent {
    /// The message.
    pub message: Message,
    client: Client,
    lease: String,
}

impl Lent {
    pub(crate) fn new(client: &Client, message: Message, lease: String) -> Self {
        Self { message, client: client.clone(), lease }
    }

    /// What settles it, for whoever settles it elsewhere.
    pub fn lease(&self) -> &str {
        &self.lease
    }

    /// Is done with it. A refusal with the code [`LeaseGone`](crate::Code::LeaseGone) says that it goes
    /// back, unless the answer to an earlier attempt was lost: then it may be done with.
    pub async fn ack(self) -> Result<(), Error> {
        self.settle(How::Ack(mom::Ack {})).await
    }

    /// Gives it back, to be delivered again.
    pub async fn nack(self) -> Result<(), Error> {
        self.settle(How::Nack(mom::Nack {})).await
    }

    /// Keeps it for so long from now on.
    pub async fn extend(&self, lease: Duration) -> Result<(), Error> {
        self.settle(How::Extend(mom::Extend { lease: Some(time::duration(lease)) })).await
    }

    async fn settle(&self, how: How) -> Result<(), Error> {
        let request = mom::SettleRequest { lease: self.lease.clone(), how: Some(how) };
        let call =
            |mut client: MomClient<Channel>, request| async move { client.settle(request).await };
        self.client.call(request, &[], call).await?;
        Ok(())
    }
}

//! Binding and unbinding on an open channel.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use lapin::Channel;
use lapin::options::QueueBindOptions;
use lapin::types::{FieldTable, ShortString};

use super::bindings::Act;
use crate::BrokerError;
use crate::connection::within;
use crate::publisher::short;

/// What RabbitMQ answers to several acts.
pub(super) type Answers = Pin<Box<dyn Future<Output = Result<(), BrokerError>> + Send>>;

/// The queue and the exchange that are bound to each other.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) channel: Channel,
    pub(super) queue: ShortString,
    pub(super) exchange: &'static str,
}

impl Ends {
    /// Carries the acts out in order. All are sent before the first answer is waited for.
    pub(super) fn carry_out(self, acts: Vec<Act>) -> Answers {
        Box::pin(async move {
            let doing = format!("binding the queue {}", self.queue);
            within(&doing, self.send_all(acts)).await
        })
    }

    async fn send_all(&self, acts: Vec<Act>) -> Result<(), BrokerError> {
        let mut asked = Vec::with_capacity(acts.len());
        for act in acts {
            let mut asking = Box::pin(self.ask(act));
            // The first poll queues the frame: done here, in order.
            match poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
                Poll::Ready(answer) => answer?,
                Poll::Pending => asked.push(asking),
            }
        }
        for asking in asked {
            asking.await?;
        }
        Ok(())
    }

    async fn ask(&self, act: Act) -> Result<(), BrokerError> {
        let (queue, exchange) = (self.queue.clone(), short(self.exchange));
        let none = FieldTable::default();
        let (doing, answer) = match act {
            Act::Bind(key) => {
                let options = QueueBindOptions::default();
                let binding =
                    self.channel.queue_bind(queue, exchange, short(&key), options, none).await;
                (format!("binding the queue {} to {key:?}", self.queue), binding)
            }
            Act::Unbind(key) => {
                let unbinding = self.channel.queue_unbind(queue, exchange, short(&key), none).await;
                (format!("unbinding the queue {} from {key:?}", self.queue), unbinding)
            }
        };
        answer.map_err(|source| BrokerError::operation(doing, source))
    }
}

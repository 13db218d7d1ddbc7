//! Binding and unbinding on an open channel.

use std::future::{poll_fn, ready};
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
pub(super) type Answers = Pin<Box<dyn Future<Output = Result<(), Unmade>> + Send>>;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), BrokerError>> + Send + 'a>>;

/// Acts that were not carried out.
#[derive(Debug)]
pub(super) struct Unmade {
    /// Why the first was not.
    pub(super) error: BrokerError,
    pub(super) acts: Vec<Act>,
}

/// The queue and the exchange that are bound to each other.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) channel: Channel,
    pub(super) queue: ShortString,
    pub(super) exchange: &'static str,
}

impl Ends {
    /// Carries the acts out in order. All are sent before the first answer is waited for.
    pub(super) fn carry_out(self, mut acts: Vec<Act>) -> Answers {
        Box::pin(async move {
            let doing = format!("binding the queue {}", self.queue);
            let mut done = 0;
            let sending = within(&doing, self.send_all(&acts, &mut done)).await;
            sending.map_err(|error| Unmade { error, acts: acts.split_off(done) })
        })
    }

    /// Counts in `done` those that RabbitMQ has carried out; it answers in order.
    async fn send_all(&self, acts: &[Act], done: &mut usize) -> Result<(), BrokerError> {
        let mut asked: Vec<Answer<'_>> = Vec::with_capacity(acts.len());
        for act in acts {
            let mut asking = Box::pin(self.ask(act));
            // The first poll queues the frame: done here, in order.
            asked.push(match poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
                Poll::Ready(answer) => Box::pin(ready(answer)),
                Poll::Pending => asking,
            });
        }
        for asking in asked {
            asking.await?;
            *done += 1;
        }
        Ok(())
    }

    async fn ask(&self, act: &Act) -> Result<(), BrokerError> {
        let (queue, exchange) = (self.queue.clone(), short(self.exchange));
        let none = FieldTable::default();
        let (doing, answer) = match act {
            Act::Bind(key) => {
                let options = QueueBindOptions::default();
                let binding =
                    self.channel.queue_bind(queue, exchange, short(key), options, none).await;
                (format!("binding the queue {} to {key:?}", self.queue), binding)
            }
            Act::Unbind(key) => {
                let unbinding = self.channel.queue_unbind(queue, exchange, short(key), none).await;
                (format!("unbinding the queue {} from {key:?}", self.queue), unbinding)
            }
        };
        answer.map_err(|source| BrokerError::operation(doing, source))
    }
}

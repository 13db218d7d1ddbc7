//! Makes RabbitMQ have what a [`Topology`] says.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};

use super::{Binding, Destination, Exchange, Kind, Queue, Topology};
use crate::BrokerError;
use crate::error::is_not_found;
use crate::publisher::short;

/// Declares everything on a channel of the connection, in an order in which nothing can get lost in
/// between.
pub(crate) async fn declare(
    connection: &Connection,
    channel: &Channel,
    topology: &Topology,
) -> Result<(), BrokerError> {
    for exchange in &topology.exchanges {
        let declared = declare_exchange(channel, exchange).await;
        declared.map_err(|source| BrokerError::declare("exchange", &exchange.name, source))?;
    }
    for queue in &topology.queues {
        let declared = declare_queue(connection, channel, queue).await;
        declared.map_err(|source| BrokerError::declare("queue", &queue.name, source))?;
    }
    for binding in &topology.bindings {
        let name = format!("{} of {}", binding.key, binding.source);
        let bound = bind(channel, binding).await;
        bound.map_err(|source| BrokerError::declare("binding", &name, source))?;
    }
    for Binding { source, key, destination } in &topology.unbindings {
        let unbound = unbind(channel, short(source), short(key), destination).await;
        let doing = format!("taking the binding {key} of {source} away");
        unbound.map_err(|source| BrokerError::operation(doing, source))?;
    }
    Ok(())
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<(), lapin::Error> {
    let kind = match exchange.kind {
        Kind::Topic => ExchangeKind::Topic,
        Kind::Direct => ExchangeKind::Direct,
        Kind::Fanout => ExchangeKind::Fanout,
    };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = exchange.alternate {
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(alternate.into()));
    }
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(short(&exchange.name), kind, options, arguments).await
}

async fn declare_queue(
    connection: &Connection,
    channel: &Channel,
    queue: &Queue,
) -> Result<(), lapin::Error> {
    if queue.if_missing && exists(connection, &queue.name).await? {
        return Ok(());
    }
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(short(&queue.name), options, queue.table()).await.map(|_| ())
}

/// Whether there is a queue of that name, asked on a channel of its own: RabbitMQ closes the channel
/// on which one is asked for that it does not have.
async fn exists(connection: &Connection, queue: &str) -> Result<bool, lapin::Error> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(short(queue), options, FieldTable::default()).await {
        Ok(_) => channel.close(200, "done".into()).await.map(|()| true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn bind(channel: &Channel, binding: &Binding) -> Result<(), lapin::Error> {
    let (source, key) = (short(&binding.source), short(&binding.key));
    match &binding.destination {
        Destination::Queue(name) => {
            let options = QueueBindOptions::default();
            channel.queue_bind(short(name), source, key, options, FieldTable::default()).await
        }
        Destination::Exchange(name) => {
            let options = ExchangeBindOptions::default();
            channel.exchange_bind(short(name), source, key, options, FieldTable::default()).await
        }
    }
}

/// A binding that is not there is taken away as well as one that is.
async fn unbind(
    channel: &Channel,
    source: ShortString,
    key: ShortString,
    destination: &Destination,
) -> Result<(), lapin::Error> {
    let none = FieldTable::default();
    match destination {
        Destination::Queue(name) => channel.queue_unbind(short(name), source, key, none).await,
        Destination::Exchange(name) => {
            let options = ExchangeUnbindOptions::default();
            channel.exchange_unbind(short(name), source, key, options, none).await
        }
    }
}

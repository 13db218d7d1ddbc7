//! Letters on their way back: several await their confirms together.

use std::collections::BTreeSet;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{Acker, BasicProperties, Channel, Confirmation, PublisherConfirm};

use super::ORIGIN_APP;
use super::entry::{DeadEntry, is_of_death};
use crate::connection::asked;
use crate::message::Message;
use crate::publisher::short;
use crate::topology::LIVE;
use crate::{BrokerError, Connection};

/// Letters that await their confirms together.
const LETTERS_MAX: usize = 64;
/// Bytes of them; a larger letter goes alone.
const BYTES_MAX: usize = 8 << 20;

/// An exchange and a routing key.
type Route = (String, String);

struct Letter {
    route: Route,
    acker: Acker,
    confirm: PublisherConfirm,
}

/// What became of the letters of a [`Flight`].
pub(super) struct Landed {
    /// Those that RabbitMQ has confirmed elsewhere.
    pub(super) confirmed: Vec<Acker>,
    /// What went wrong with the first of the others.
    pub(super) failure: Option<BrokerError>,
}

/// Letters that are published and not confirmed yet.
pub(super) struct Flight {
    channel: Channel,
    letters: Vec<Letter>,
    bytes: usize,
}

impl Flight {
    pub(super) async fn start(connection: &Connection) -> Result<Self, BrokerError> {
        let channel = connection.channel().await?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        asked("switching publisher confirms on", selecting).await?;
        Ok(Self { channel, letters: Vec::new(), bytes: 0 })
    }

    /// Whether no more may be sent before those on their way have landed.
    pub(super) fn is_full(&self) -> bool {
        self.letters.len() >= LETTERS_MAX || self.bytes >= BYTES_MAX
    }

    /// Publishes a letter where it came from.
    pub(super) async fn send(
        &mut self,
        entry: DeadEntry,
        message: Message,
        acker: Acker,
    ) -> Result<(), BrokerError> {
        let route = (entry.origin_exchange, entry.origin_key);
        // Among listeners, nobody to hear it is no fault.
        let mandatory = route.0 != LIVE;
        let options = BasicPublishOptions { mandatory, immediate: false };
        let (to, under) = (short(&route.0), short(&route.1));
        let properties = properties(&message, &route.1);
        #[expect(clippy::disallowed_methods, reason = "in order, and its confirm is awaited")]
        let publishing = self.channel.basic_publish(to, under, options, &message.body, properties);
        let confirm = asked(&doing(&route), publishing).await?;
        self.bytes += message.body.len();
        self.letters.push(Letter { route, acker, confirm });
        Ok(())
    }

    /// Waits until RabbitMQ has answered to every letter.
    pub(super) async fn land(&mut self) -> Result<Landed, BrokerError> {
        self.bytes = 0;
        let (mut answered, mut returned) = (Vec::new(), BTreeSet::new());
        for Letter { route, acker, confirm } in self.letters.drain(..) {
            let refused = match asked(&doing(&route), confirm).await? {
                Confirmation::Ack(message) => {
                    returned.extend(message.map(|message| route_of(&message.delivery)));
                    None
                }
                Confirmation::Nack(message) => {
                    returned.extend(message.map(|message| route_of(&message.delivery)));
                    Some("refused it: a queue there is full, or has no leader")
                }
                Confirmation::NotRequested => Some("did not confirm it"),
            };
            answered.push((route, acker, refused));
        }
        let (mut confirmed, mut failure) = (Vec::new(), None);
        for (route, acker, refused) in answered {
            // lapin may attach a return to another letter's confirm: what was returned is known by
            // its route, and what else took that route reached no queue either.
            let is_returned = returned.contains(&(short(&route.0).into(), short(&route.1).into()));
            let answer = match refused {
                None if is_returned => Some("returned it: it reaches no queue there"),
                refused => refused,
            };
            match answer {
                None => confirmed.push(acker),
                Some(answer) => {
                    let doing = doing(&route);
                    failure.get_or_insert(BrokerError::Refused { doing, answer });
                }
            }
        }
        Ok(Landed { confirmed, failure })
    }
}

fn doing((exchange, key): &Route) -> String {
    format!("publishing to {exchange} under {key:?}")
}

fn route_of(returned: &lapin::message::Delivery) -> Route {
    (returned.exchange.to_string(), returned.routing_key.to_string())
}

/// The properties that it was published with, as far as they are known; the app-id is the first
/// publisher's.
fn properties(message: &Message, key: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in message.headers().into_iter().flat_map(FieldTable::inner) {
        if !is_of_death(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let mut properties = message.properties.clone().with_headers(headers);
    if let Some(app) = message.header(ORIGIN_APP) {
        properties = properties.with_app_id(short(&app));
    }
    if message.kind() == Some("dead") { properties.with_type(short(key)) } else { properties }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeadLetter, Lane};
    use lapin::types::{AMQPValue, ShortString};
    use platziverse_protocol::dead::{Reason, Stage};

    const LETTER: DeadLetter<'static> = DeadLetter {
        reason: Reason::DatabaseRefused,
        stage: Stage::Worker,
        error: "no",
        origin_exchange: "x",
        origin_key: "agent.message",
    };

    /// What a worker publishes, replayed.
    fn replayed(lane: &Lane) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("records".into(), AMQPValue::LongLongInt(1));
        for (name, value) in lane.headers() {
            headers.insert((*name).into(), AMQPValue::LongString(value.as_str().into()));
        }
        let message = Message {
            body: Vec::new(),
            exchange: "platziverse.dead".to_owned(),
            routing_key: "database_refused".to_owned(),
            redelivered: false,
            properties: BasicProperties::default()
                .with_app_id("platziverse-worker@b:2".into())
                .with_type("dead".into())
                .with_headers(headers),
        };
        properties(&message, "agent.message")
    }

    #[test]
    fn a_replay_speaks_for_the_first_publisher() {
        let app = |lane: Lane| replayed(&lane).app_id().as_ref().map(ShortString::to_string);
        let gateway = "platziverse-gateway@a:1";
        assert_eq!(app(Lane::dead(&LETTER).on_behalf_of(gateway)).as_deref(), Some(gateway));
        assert_eq!(app(Lane::dead(&LETTER)).as_deref(), Some("platziverse-worker@b:2"));
    }

    #[test]
    fn nothing_of_the_death_is_left() {
        let properties = replayed(&Lane::dead(&LETTER).on_behalf_of("a"));
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.keys().map(ShortString::as_str).collect::<Vec<_>>(), ["records"]);
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "agent.message");
    }
}

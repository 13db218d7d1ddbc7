//! Letters on their way back: several await their confirms together.

use std::collections::BTreeSet;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{Acker, BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use super::entry::{DeadEntry, is_of_death};
use super::{ORIGIN_APP, ORIGIN_TYPE};
use crate::connection::{SETUP_TIMEOUT, asked};
use crate::message::Message;
use crate::publisher::short;
use crate::topology::LIVE;
use crate::{BrokerError, Connection, Lane};

/// Letters that await their confirms together.
const LETTERS_MAX: usize = 64;
/// Bytes of them; a larger letter goes alone.
const BYTES_MAX: usize = 8 << 20;

/// An exchange and a routing key.
type Route = (String, String);

struct Letter {
    route: Route,
    message: Message,
    acker: Acker,
}

/// A letter that was published, or was to be.
struct Sent {
    letter: Letter,
    confirm: Result<PublisherConfirm, BrokerError>,
}

/// What RabbitMQ did with a letter that it did not confirm.
enum Unconfirmed {
    /// It closed the channel, perhaps at another one.
    Closed(BrokerError),
    /// It will not have it there.
    Unwanted(BrokerError),
    /// It has no room for it now, or is gone.
    Away(BrokerError),
}

/// What became of the letters of a [`Flight`].
#[derive(Default)]
pub(super) struct Landed {
    /// Those that RabbitMQ has confirmed elsewhere.
    pub(super) confirmed: Vec<Acker>,
    /// Why each that RabbitMQ will never have there stays.
    pub(super) unwanted: Vec<BrokerError>,
    /// Why it makes no sense to send more, if so.
    pub(super) failure: Option<BrokerError>,
}

/// Letters that are published and not confirmed yet.
pub(super) struct Flight<'a> {
    connection: &'a Connection,
    channel: Channel,
    letters: Vec<Sent>,
    bytes: usize,
}

impl<'a> Flight<'a> {
    pub(super) async fn start(connection: &'a Connection) -> Result<Self, BrokerError> {
        let channel = open(connection).await?;
        Ok(Self { connection, channel, letters: Vec::new(), bytes: 0 })
    }

    /// Whether no more may be sent before those on their way have landed.
    pub(super) fn is_full(&self) -> bool {
        self.letters.len() >= LETTERS_MAX || self.bytes >= BYTES_MAX
    }

    /// Publishes a letter where it came from.
    pub(super) async fn send(&mut self, entry: DeadEntry, message: Message, acker: Acker) {
        let route = (entry.origin_exchange, entry.origin_key);
        self.bytes += message.body.len();
        self.publish(Letter { route, message, acker }).await;
    }

    async fn publish(&mut self, letter: Letter) {
        let Letter { route, message, .. } = &letter;
        // Among listeners, nobody to hear it is no fault.
        let mandatory = route.0 != LIVE;
        let options = BasicPublishOptions { mandatory, immediate: false };
        let (to, under) = (short(&route.0), short(&route.1));
        let properties = properties(message, route);
        #[expect(clippy::disallowed_methods, reason = "in order, and its confirm is awaited")]
        let publishing = self.channel.basic_publish(to, under, options, &message.body, properties);
        let confirm = asked(&doing(route), publishing).await;
        self.letters.push(Sent { letter, confirm });
    }

    /// Waits until RabbitMQ has answered to every letter. If it closed the channel, each that it
    /// has not answered to is sent again alone, so that only the one it closed it at stays.
    pub(super) async fn land(&mut self) -> Landed {
        self.bytes = 0;
        let mut landed = Landed::default();
        let mut again = Vec::new();
        for (letter, unconfirmed) in self.answers(&mut landed).await {
            match unconfirmed {
                Unconfirmed::Closed(_) => again.push(letter),
                other => landed.note(other),
            }
        }
        for letter in again {
            if landed.failure.is_none() {
                self.send_alone(letter, &mut landed).await;
            }
        }
        landed
    }

    async fn send_alone(&mut self, letter: Letter, landed: &mut Landed) {
        if !self.channel.status().connected() {
            match open(self.connection).await {
                Ok(channel) => self.channel = channel,
                Err(error) => return landed.note(Unconfirmed::Away(error)),
            }
        }
        self.publish(letter).await;
        for (_, unconfirmed) in self.answers(landed).await {
            landed.note(unconfirmed);
        }
    }

    /// Waits for the answers; those letters that RabbitMQ did not confirm are not among `landed`.
    async fn answers(&mut self, landed: &mut Landed) -> Vec<(Letter, Unconfirmed)> {
        let patience = Instant::now() + SETUP_TIMEOUT;
        let (mut answered, mut returned) = (Vec::new(), BTreeSet::new());
        for Sent { letter, confirm } in self.letters.drain(..) {
            let answer = answer(confirm, &doing(&letter.route), patience).await;
            let unconfirmed = match answer {
                Ok(Confirmation::Ack(message)) => {
                    returned.extend(message.map(|message| route_of(&message.delivery)));
                    None
                }
                Ok(Confirmation::Nack(message)) => {
                    returned.extend(message.map(|message| route_of(&message.delivery)));
                    let answer = "refused it: a queue there is full, or has no leader";
                    Some(Unconfirmed::Away(refused(&letter.route, answer)))
                }
                Ok(Confirmation::NotRequested) => {
                    Some(Unconfirmed::Away(refused(&letter.route, "did not confirm it")))
                }
                Err(error) if error.closed_channel() => Some(Unconfirmed::Closed(error)),
                Err(error) => Some(Unconfirmed::Away(error)),
            };
            answered.push((letter, unconfirmed));
        }
        let mut left = Vec::new();
        for (letter, unconfirmed) in answered {
            // lapin may attach a return to another letter's confirm: what was returned is known by
            // its route, and what else took that route reached no queue either.
            let (to, under) = &letter.route;
            let is_returned = returned.contains(&(short(to).into(), short(under).into()));
            match unconfirmed {
                None if is_returned => {
                    let answer = "returned it: it reaches no queue there";
                    let unwanted = Unconfirmed::Unwanted(refused(&letter.route, answer));
                    left.push((letter, unwanted));
                }
                None => landed.confirmed.push(letter.acker),
                Some(unconfirmed) => left.push((letter, unconfirmed)),
            }
        }
        left
    }
}

impl Landed {
    fn note(&mut self, unconfirmed: Unconfirmed) {
        match unconfirmed {
            Unconfirmed::Closed(error) | Unconfirmed::Unwanted(error) => self.unwanted.push(error),
            Unconfirmed::Away(error) => {
                self.failure.get_or_insert(error);
            }
        }
    }
}

async fn open(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = connection.channel().await?;
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    asked("switching publisher confirms on", selecting).await?;
    Ok(channel)
}

/// What RabbitMQ answers to a letter before `patience` ends.
async fn answer(
    confirm: Result<PublisherConfirm, BrokerError>,
    doing: &str,
    patience: Instant,
) -> Result<Confirmation, BrokerError> {
    match timeout_at(patience, confirm?).await {
        Ok(answer) => answer.map_err(|source| BrokerError::operation(doing, source)),
        Err(_) => Err(BrokerError::Timeout { doing: doing.to_owned(), after: SETUP_TIMEOUT }),
    }
}

fn refused(route: &Route, answer: &'static str) -> BrokerError {
    BrokerError::Refused { doing: doing(route), answer }
}

fn doing((exchange, key): &Route) -> String {
    format!("publishing to {exchange} under {key:?}")
}

fn route_of(returned: &lapin::message::Delivery) -> Route {
    (returned.exchange.to_string(), returned.routing_key.to_string())
}

/// The properties that it was published with, as far as they are known; the app-id is the first
/// publisher's.
fn properties(message: &Message, (exchange, key): &Route) -> BasicProperties {
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
    match (message.header(ORIGIN_TYPE), message.kind()) {
        (Some(kind), _) => properties.with_type(short(&kind)),
        (None, Some(Lane::DEAD)) if exchange == LIVE => properties.with_type(short(Lane::MESSAGE)),
        (None, Some(Lane::DEAD)) => properties.with_type(short(key)),
        _ => properties,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeadLetter;
    use crate::topology::{TASKS, TELEMETRY};
    use lapin::types::{AMQPValue, ShortString};
    use platziverse_protocol::dead::{Reason, Stage};

    const LETTER: DeadLetter<'static> = DeadLetter {
        reason: Reason::DatabaseRefused,
        stage: Stage::Worker,
        error: "no",
        origin_exchange: TELEMETRY,
        origin_key: "agent.message.3",
    };

    /// What a worker publishes, replayed.
    fn replayed(lane: &Lane) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("records".into(), AMQPValue::LongLongInt(1));
        headers.insert("attempts".into(), AMQPValue::LongLongInt(2));
        for (name, value) in lane.headers() {
            headers.insert((*name).into(), value.into());
        }
        let message = Message {
            body: Vec::new(),
            exchange: "platziverse.dead".to_owned(),
            routing_key: "database_refused".to_owned(),
            redelivered: false,
            properties: BasicProperties::default()
                .with_app_id("platziverse-worker@b:2".into())
                .with_type(lane.kind().into())
                .with_content_type(lane.content_type().into())
                .with_headers(headers),
        };
        let entry = DeadEntry::of(&message);
        properties(&message, &(entry.origin_exchange, entry.origin_key))
    }

    #[test]
    fn the_type_is_that_of_the_first_publish() {
        let kind = |letter| {
            let properties = replayed(&Lane::dead(&letter));
            properties.kind().as_ref().map(ShortString::to_string).unwrap()
        };
        assert_eq!(kind(LETTER), "agent.message", "whatever the shard");
        let live = DeadLetter { origin_exchange: LIVE, origin_key: "plant.a", ..LETTER };
        assert_eq!(kind(live), Lane::live("plant.a").kind());
    }

    #[test]
    fn a_task_is_again_what_it_was() {
        let letter = DeadLetter { origin_exchange: TASKS, origin_key: "q", ..LETTER };
        let of_type = |kind| {
            let properties = replayed(&Lane::dead(&letter).of_task(kind));
            let text = |word: &Option<ShortString>| word.as_ref().map(ShortString::to_string);
            (text(properties.kind()).unwrap(), text(properties.content_type()).unwrap())
        };
        let json = || "application/json".to_owned();
        assert_eq!(of_type(Some("event")), ("event".to_owned(), json()));
        assert_eq!(of_type(None), (String::new(), json()));
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
        let lane = Lane::dead(&LETTER).on_behalf_of("a").of_task(Some("event"));
        let properties = replayed(&lane);
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.keys().map(ShortString::as_str).collect::<Vec<_>>(), ["records"]);
    }
}

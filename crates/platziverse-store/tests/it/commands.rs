use futures_util::future::join_all;
use platziverse_protocol::time::Timestamp;
use platziverse_store::Store;
use platziverse_store::commands::{
    Command, CommandState, EXPIRE_MAX, Filter, NewCommand, Step, UNDELIVERED_MAX, advance, begin,
    expire, list, show, undelivered, with_undelivered,
};
use serde_json::json;
use uuid::Uuid;

use crate::database::{client, one, with_database};
use crate::sightings::noon;

use CommandState::{Delivered, Failed, Queued, Sent, Succeeded, TimedOut};

/// For one target, asked for at `noon` and as many milliseconds as its number.
pub(crate) fn command(number: u128) -> NewCommand<'static> {
    NewCommand {
        id: Uuid::from_u128(number),
        name: "agent.command",
        target: Some("yyy"),
        payload: "{}",
        created_at: noon().plus_millis(i64::try_from(number).unwrap()),
        expires_at: None,
    }
}

/// News of a state, which come at a time of its own.
pub(crate) async fn tell(store: &Store, number: u128, to: CommandState) -> bool {
    let result = (to == Succeeded).then_some("[1]");
    let error = (to == Failed).then_some("no");
    let id = Uuid::from_u128(number);
    advance(store, id, &Step { result, error, ..Step::to(to, at(to)) }).await.unwrap()
}

fn at(state: CommandState) -> Timestamp {
    let place = CommandState::ALL.into_iter().position(|one| one == state).unwrap();
    noon().plus_millis(1_000 * i64::try_from(place).unwrap())
}

pub(crate) async fn shown(store: &Store, number: u128) -> Command {
    show(store, Uuid::from_u128(number)).await.unwrap().unwrap()
}

fn numbers(commands: &[Command]) -> Vec<u128> {
    commands.iter().map(|command| command.id.as_u128()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_as_it_was_told() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        assert!(show(&store, Uuid::from_u128(1)).await.unwrap().is_none());
        let new = NewCommand {
            payload: r#"{"b": 1.50, "a": "größer"}"#,
            expires_at: Some(noon().plus_millis(60_000)),
            ..command(1)
        };
        let begun = begin(&store, &new, 1).await.unwrap();
        assert_eq!((begun.state, begun.attempts), (Queued, 1));
        assert!(tell(&store, 1, Sent).await && tell(&store, 1, Succeeded).await);
        assert!(tell(&store, 1, Delivered).await, "confirmed after the answer");

        let (one, noon) = (shown(&store, 1).await, noon().as_millis());
        let json = json!({
            "id": "00000000-0000-0000-0000-000000000001", "name": "agent.command",
            "target": "yyy", "payload": {"a": "größer", "b": 1.5}, "state": "succeeded",
            "attempts": 1, "result": [1], "error": null, "created_at": noon + 1,
            "updated_at": one.updated_at, "sent_at": noon + 1_000, "delivered_at": noon + 2_000,
            "ended_at": noon + 3_000, "expires_at": noon + 60_000,
        });
        assert_eq!(serde_json::to_value(&one).unwrap(), json);
        assert_eq!(one.payload.get(), r#"{"a": "größer", "b": 1.50}"#);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beginning_again_answers_what_is_known() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        begin(&store, &command(1), 1).await.unwrap();
        tell(&store, 1, Sent).await;
        let other = NewCommand { name: "other", payload: "1", ..command(1) };
        for (attempt, attempts) in [(1, 1), (3, 3), (2, 3)] {
            let again = begin(&store, &other, attempt).await.unwrap();
            assert_eq!((again.state, again.attempts), (Sent, attempts));
            assert_eq!((again.name.as_str(), again.payload.get()), ("agent.command", "{}"));
        }
        tell(&store, 1, Succeeded).await;
        let ended = shown(&store, 1).await;
        let again = begin(&store, &other, 4).await.unwrap();
        assert_eq!((again.state, again.attempts), (Succeeded, 3));
        assert_eq!(again.updated_at, ended.updated_at);
        assert_eq!(one::<i64>(&config, "SELECT count(*) FROM commands").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_failed_is_begun_afresh() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        begin(&store, &command(1), 5).await.unwrap();
        assert!(tell(&store, 1, Failed).await);
        let again = begin(&store, &command(1), 1).await.unwrap();
        assert_eq!((again.state, again.attempts, again.ended_at), (Queued, 5, None));
        assert!(again.result.is_none() && again.error.is_none());
        assert!(tell(&store, 1, Succeeded).await);
        assert_eq!(shown(&store, 1).await.state, Succeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_its_target_refused_stays_so() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        begin(&store, &command(1), 1).await.unwrap();
        assert!(tell(&store, 1, Sent).await && tell(&store, 1, Failed).await);
        let ended = shown(&store, 1).await;
        let again = begin(&store, &command(1), 2).await.unwrap();
        assert_eq!((again.state, again.attempts, again.ended_at), (Failed, 1, ended.ended_at));
        assert_eq!((again.error.as_deref(), again.updated_at), (Some("no"), ended.updated_at));
    })
    .await;
}

/// What [`advance`] is to do.
#[derive(Debug, PartialEq)]
struct Model {
    state: CommandState,
    sent_at: Option<Timestamp>,
    delivered_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl Model {
    const NEW: Self = Self { state: Queued, sent_at: None, delivered_at: None, ended_at: None };

    fn of(command: &Command) -> Self {
        let Command { state, sent_at, delivered_at, ended_at, .. } = *command;
        Self { state, sent_at, delivered_at, ended_at }
    }

    /// Answers whether anything changed.
    fn advance(&mut self, to: CommandState) -> bool {
        let rank = |state: CommandState| match state {
            Queued => 0,
            Sent => 1,
            Delivered => 2,
            Succeeded | Failed | TimedOut => 3,
        };
        let moves = rank(to) > rank(self.state);
        if moves {
            self.state = to;
        }
        let time = match to {
            Queued => return false,
            Sent => &mut self.sent_at,
            Delivered => &mut self.delivered_at,
            Succeeded | Failed | TimedOut if !moves => return false,
            Succeeded | Failed | TimedOut => &mut self.ended_at,
        };
        let fills = time.is_none();
        *time = time.or(Some(at(to)));
        moves || fills
    }
}

/// All sequences of four pieces of news, each of them checked one by one.
#[tokio::test(flavor = "multi_thread")]
async fn every_history_ends_where_it_should() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let histories = (0..6usize.pow(4)).map(|number| {
            let digits = [1, 6, 36, 216].map(|place| number / place % 6);
            (1 + number as u128, digits.map(|digit| CommandState::ALL[digit]))
        });
        let play = async |(number, history): (u128, [CommandState; 4])| {
            begin(&store, &command(number), 1).await.unwrap();
            let mut model = Model::NEW;
            for to in history {
                assert_eq!(tell(&store, number, to).await, model.advance(to), "{to} {history:?}");
            }
            let command = shown(&store, number).await;
            assert_eq!(Model::of(&command), model, "{history:?}");
            assert_eq!(command.result.is_some(), command.state == Succeeded, "{history:?}");
            assert_eq!(command.error.is_some(), command.state == Failed, "{history:?}");
        };
        join_all(histories.map(play)).await;
        assert!(!tell(&store, 0, Sent).await, "one that is not there");
    })
    .await;
}

/// All orders of what is told of a command, the first half of it twice.
#[tokio::test(flavor = "multi_thread")]
async fn order_and_repetition_do_not_matter() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let ends = [Succeeded, Failed, TimedOut];
        for (number, (order, end)) in
            (0u128..).zip(orders.iter().flat_map(|order| ends.map(|end| (order, end))))
        {
            begin(&store, &command(number), 1).await.unwrap();
            let news = order.map(|place| [Sent, Delivered, end][place]);
            for to in news.into_iter().chain(news) {
                tell(&store, number, to).await;
            }
            let expected = Model {
                state: end,
                sent_at: Some(at(Sent)),
                delivered_at: Some(at(Delivered)),
                ended_at: Some(at(end)),
            };
            assert_eq!(Model::of(&shown(&store, number).await), expected, "{news:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jsonb_cannot_hold_is_data_trouble() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let bad = NewCommand { payload: "1e999999", ..command(1) };
        assert!(!begin(&store, &bad, 1).await.unwrap_err().is_transient());
        assert!(show(&store, bad.id).await.unwrap().is_none());

        begin(&store, &command(1), 1).await.unwrap();
        for (result, error) in [(Some(r#""\u0000""#), None), (None, Some("a\0b"))] {
            let step = Step { result, error, ..Step::to(Failed, noon()) };
            let told = advance(&store, bad.id, &step).await;
            assert!(!told.unwrap_err().is_transient());
        }
        assert!(tell(&store, 1, Failed).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_undelivered_commands_of_a_target_are_found() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        for number in [3, 1, 2, 4, 7] {
            begin(&store, &command(number), 1).await.unwrap();
        }
        begin(&store, &NewCommand { target: Some("xxx"), ..command(5) }, 1).await.unwrap();
        begin(&store, &NewCommand { target: None, ..command(6) }, 1).await.unwrap();
        for number in [1, 2, 3, 4, 6] {
            assert!(tell(&store, number, Sent).await);
        }
        tell(&store, 2, Failed).await;
        tell(&store, 3, Delivered).await;
        let found =
            async |target, after| numbers(&undelivered(&store, target, after).await.unwrap());
        assert_eq!(found("yyy", None).await, [1, 4], "7 is only queued");
        assert_eq!(found("yyy", Some(Uuid::from_u128(1))).await, [4]);
        assert_eq!(found("nobody", None).await, []);
        let with = with_undelivered(&store, &["xxx", "nobody", "yyy"]).await.unwrap();
        assert_eq!(with, ["yyy"]);

        let many = "INSERT INTO commands (id, name, target, payload, state, attempts, created_at, \
            updated_at) SELECT gen_random_uuid(), 'n', 'many', '1', 'sent', 1, now(), now() \
            FROM generate_series(1, 150)";
        client(&config).await.batch_execute(many).await.unwrap();
        let first = undelivered(&store, "many", None).await.unwrap();
        assert_eq!(first.len(), UNDELIVERED_MAX);
        let last = first.last().map(|command| command.id);
        let rest = numbers(&undelivered(&store, "many", last).await.unwrap());
        assert_eq!(rest.len(), 150 - UNDELIVERED_MAX);
        assert!(first.iter().all(|command| !rest.contains(&command.id.as_u128())));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_target_answers_a_command() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        begin(&store, &command(1), 1).await.unwrap();
        let id = Uuid::from_u128(1);
        let other = Step { target: Some("xxx"), ..Step::to(Succeeded, noon()) };
        assert!(!advance(&store, id, &other).await.unwrap());
        assert_eq!(shown(&store, 1).await.state, Queued);
        let own = Step { target: Some("yyy"), ..other };
        assert!(advance(&store, id, &own).await.unwrap());
        assert_eq!(shown(&store, 1).await.state, Succeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_expires_when_its_sender_says_or_else_by_default() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let said = noon().plus_millis(1_000);
        begin(&store, &NewCommand { expires_at: Some(said), ..command(1) }, 1).await.unwrap();
        begin(&store, &command(2), 1).await.unwrap();
        let default = noon().plus_millis(2_000);
        for number in [1, 2] {
            let step = Step { expires_at: Some(default), ..Step::to(Sent, noon()) };
            assert!(advance(&store, Uuid::from_u128(number), &step).await.unwrap());
        }
        assert_eq!(shown(&store, 1).await.expires_at, Some(said));
        assert_eq!(shown(&store, 2).await.expires_at, Some(default));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_begin_with_the_newest() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        for number in 1..=4 {
            begin(&store, &command(number), 1).await.unwrap();
        }
        begin(&store, &NewCommand { name: "log", target: None, ..command(5) }, 1).await.unwrap();
        tell(&store, 2, Failed).await;
        tell(&store, 5, Failed).await;
        let check = async |filter: Filter<'_>, limit, expected: &[u128]| {
            let found = numbers(&list(&store, &filter, limit).await.unwrap());
            assert_eq!(found, expected, "{filter:?}");
        };
        let all = Filter::default();
        check(all, 10, &[5, 4, 3, 2, 1]).await;
        check(all, 2, &[5, 4]).await;
        check(Filter { state: Some(Failed), ..all }, 10, &[5, 2]).await;
        check(Filter { target: Some("yyy"), ..all }, 3, &[4, 3, 2]).await;
        check(Filter { name: Some("log"), ..all }, 10, &[5]).await;
        let none = Filter { state: Some(Failed), target: Some("yyy"), name: Some("log") };
        check(none, 10, &[]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_time_out_once_their_time_has_come() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        for number in 1..=4 {
            let millis = 10 * i64::try_from(number).unwrap();
            let expires_at = (number < 4).then(|| noon().plus_millis(millis));
            begin(&store, &NewCommand { expires_at, ..command(number) }, 1).await.unwrap();
        }
        tell(&store, 1, Succeeded).await;
        let expired = async |millis| -> Vec<u128> {
            let ended = expire(&store, noon().plus_millis(millis)).await.unwrap();
            ended.iter().map(Uuid::as_u128).collect()
        };
        assert_eq!(expired(19).await, []);
        assert_eq!(expired(20).await, [2]);
        assert_eq!(expired(1_000_000).await, [3]);
        assert_eq!(expired(1_000_000).await, []);
        let two = shown(&store, 2).await;
        assert_eq!((two.state, two.ended_at), (TimedOut, Some(noon().plus_millis(20))));
        assert!(!tell(&store, 2, Succeeded).await, "too late");
        assert!(tell(&store, 2, Delivered).await);
        assert_eq!(shown(&store, 2).await.state, TimedOut);
        assert_eq!(shown(&store, 4).await.state, Queued);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_time_out_in_parts() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        let many = "INSERT INTO commands (id, name, payload, state, attempts, created_at, \
            updated_at, expires_at) SELECT gen_random_uuid(), 'n', '1', 'sent', 1, now(), now(), \
            '2026-03-01T12:00:00Z' FROM generate_series(1, 1500)";
        client(&config).await.batch_execute(many).await.unwrap();
        for expected in [EXPIRE_MAX, 500, 0] {
            assert_eq!(expire(&store, noon()).await.unwrap().len(), expected);
        }
    })
    .await;
}

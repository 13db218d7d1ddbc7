//! Records that PostgreSQL refuses and validation cannot foresee, and what no gateway sends.

use std::time::Duration;

use platziverse_testkit::{DeadLetter, Message, Version};
use serde_json::{Value, json};

use super::Fault;
use crate::stage::Stage;

/// Rules of an operator's that no validation knows: each refuses the messages of one kind.
const RULES: [&str; 6] = [
    "ALTER TABLE agents ADD CONSTRAINT no_poison CHECK (name <> 'poison-check')",
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
     $$ BEGIN RAISE EXCEPTION 'not this one'; END $$",
    "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON agents FOR EACH ROW \
     WHEN (NEW.name = 'poison-trigger') EXECUTE FUNCTION refuse()",
    "ALTER TABLE metrics ADD CONSTRAINT no_poison CHECK (type <> 'poison-metric')",
    "CREATE FUNCTION divide() RETURNS trigger LANGUAGE plpgsql AS \
     $$ BEGIN PERFORM 1 / 0; RETURN NEW; END $$",
    "CREATE TRIGGER divide BEFORE INSERT OR UPDATE ON agents FOR EACH ROW \
     WHEN (NEW.hostname = 'poison-division') EXECUTE FUNCTION divide()",
];
/// What the rules refuse: the field of the agent, or else the metric, that has the word.
const KINDS: [(&str, &str); 4] = [
    ("name", "poison-check"),
    ("name", "poison-trigger"),
    ("hostname", "poison-division"),
    ("", "poison-metric"),
];
/// How often each kind is sent.
const DOSES: u32 = 20;
/// What no gateway sends.
const GARBAGE: [&str; 4] = ["garbage", "{}", "{\"id\":1}\n\n{", "\u{0}\u{1}"];
const REFUSED: &str = "database_refused";
const MALFORMED: &str = "malformed_record";

pub(super) async fn begin(_: Fault, stage: &mut Stage) -> Result<(), String> {
    for rule in RULES {
        // A rule waits for writers, who may wait for it: PostgreSQL ends one of the two.
        let made = async |stage: &Stage| stage.world.database().try_sql(rule).await.map(drop);
        stage.until("the rule is made", Duration::from_secs(30), made).await?;
    }
    stage.dead_expected.extend([REFUSED, MALFORMED]);
    let client = stage.world.client(&stage.gateways[0], Version::V5).await;
    for dose in 0..DOSES {
        for (field, word) in KINDS {
            let message = Message::of(&agent(word, dose));
            let message = match field {
                "" => message.metric(word, dose),
                field => message.with_agent(field, word).metric("dose", dose),
            };
            client.report(&message).await;
        }
        for garbage in GARBAGE {
            let properties = json!({"delivery_mode": 2});
            let rabbitmq = stage.world.rabbitmq();
            rabbitmq.publish("platziverse.telemetry", "agent.message", properties, garbage).await;
        }
        stage.pass(Duration::from_millis(50)).await;
    }
    client.disconnect().await;
    Ok(())
}

/// Every bad message, and every line of garbage, must be a dead letter, each once and for the right
/// reason. That none of them has a row is seen when what is kept is read.
pub(super) async fn end(_: Fault, stage: &mut Stage) -> Result<(), String> {
    let within = Duration::from_secs(60);
    let buried = async |stage: &Stage| {
        let letters = stage.world.rabbitmq().try_dead_letters().await?;
        same("refused messages", refused(&letters), wanted_refused())?;
        same("lines of garbage", malformed(&letters), wanted_malformed())
    };
    stage.until("bad records are dead letters", within, buried).await
}

fn agent(word: &str, dose: u32) -> String {
    format!("{word}-{dose}")
}

fn wanted_refused() -> Vec<String> {
    let doses = |word| (0..DOSES).map(move |dose| agent(word, dose));
    KINDS.into_iter().flat_map(|(_, word)| doses(word)).collect()
}

fn wanted_malformed() -> Vec<String> {
    let lines = GARBAGE.iter().flat_map(|body| body.lines()).filter(|line| !line.is_empty());
    lines.flat_map(|line| std::iter::repeat_n(line.to_owned(), DOSES as usize)).collect()
}

/// The agents of the messages that PostgreSQL refused; what was announced of them is none.
fn refused(letters: &[DeadLetter]) -> Vec<String> {
    lines_of(letters, REFUSED).filter_map(message_of).collect()
}

fn malformed(letters: &[DeadLetter]) -> Vec<String> {
    lines_of(letters, MALFORMED).map(str::to_owned).collect()
}

fn lines_of<'a>(letters: &'a [DeadLetter], reason: &str) -> impl Iterator<Item = &'a str> {
    letters.iter().filter(move |letter| letter.reason == reason).flat_map(DeadLetter::lines)
}

fn message_of(line: &str) -> Option<String> {
    let record: Value = serde_json::from_str(line).ok()?;
    let agent = record["payload"]["agent"]["uuid"].as_str()?;
    (record["topic"] == "agent/message").then(|| agent.to_owned())
}

/// Both have the same, each as often.
fn same(what: &str, mut found: Vec<String>, mut wanted: Vec<String>) -> Result<(), String> {
    found.sort_unstable();
    wanted.sort_unstable();
    if found == wanted {
        return Ok(());
    }
    let lacking = wanted.iter().find(|one| !found.contains(one));
    let strange = found.iter().find(|one| !wanted.contains(one));
    Err(format!(
        "{} {what} and not {}, for example without {lacking:?} or with {strange:?}",
        found.len(),
        wanted.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_counted() {
        assert_eq!((wanted_refused().len(), wanted_malformed().len()), (80, 100));
    }

    #[test]
    fn only_messages_are_counted() {
        let line =
            |topic: &str| json!({"topic": topic, "payload": {"agent": {"uuid": "a"}}}).to_string();
        assert_eq!(message_of(&line("agent/message")), Some("a".to_owned()));
        assert_eq!(message_of(&line("agent/connected")), None);
        assert_eq!(message_of("garbage"), None);
    }

    #[test]
    fn each_as_often() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        assert!(same("x", list(&["a", "b"]), list(&["b", "a"])).is_ok());
        assert!(same("x", list(&["a", "a", "b"]), list(&["a", "b"])).is_err());
        assert!(same("x", list(&["a"]), list(&["a", "b"])).is_err());
        assert!(same("x", list(&["a", "c"]), list(&["a", "b"])).is_err());
    }
}

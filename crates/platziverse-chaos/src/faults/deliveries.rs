//! Deliveries that come twice, too often, or with what PostgreSQL refuses.

use std::time::Duration;

use platziverse_testkit::{DeadLetter, Message, Toxic, Version};
use serde_json::json;

use super::Fault;
use crate::kept;
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
/// How often each kind is sent.
const DOSES: u32 = 20;
/// What no gateway sends.
const GARBAGE: [&str; 4] = ["garbage", "{}", "{\"id\":1}\n\n{", "\u{0}\u{1}"];
/// How long acknowledgements are held back before the connection is cut.
const DEAF: Duration = Duration::from_secs(2);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::Poison => poison(stage).await,
        Fault::Redelivery => {
            for _ in 0..3 {
                repeat(stage).await;
            }
            Ok(())
        }
        Fault::DeliveryLimit => {
            stage.dead_expected.push("delivery_limit");
            // Nothing is stored meanwhile, so that what is given up is not stored already.
            let lock = "BEGIN; LOCK TABLE agents IN ACCESS EXCLUSIVE MODE";
            stage.held = Some(stage.world.database().hold(lock).await?);
            for _ in 0..4 {
                repeat(stage).await;
            }
            Ok(())
        }
        other => Err(format!("{other:?} is no fault of deliveries")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    if fault == Fault::Poison {
        return all_are_buried(stage).await;
    }
    stage.worker_amqp.set(Toxic::None);
    stage.held = None;
    match fault {
        Fault::Redelivery => came_twice(stage).await,
        _ => were_given_up(stage).await,
    }
}

/// A fault that does not bite proves nothing.
async fn came_twice(stage: &mut Stage) -> Result<(), String> {
    let within = Duration::from_secs(30);
    stage
        .until("records came twice", within, async |stage| {
            for worker in &stage.workers {
                let metrics = worker.try_metrics().await?;
                if metrics.try_get("platziverse_worker_records_duplicate_total")? > 0.0 {
                    return Ok(());
                }
            }
            Err("no worker has counted a duplicate".to_owned())
        })
        .await
}

async fn were_given_up(stage: &mut Stage) -> Result<(), String> {
    let within = Duration::from_secs(30);
    stage
        .until("deliveries reached their limit", within, async |stage| {
            let letters = stage.world.rabbitmq().try_dead_letters().await?;
            let given_up = |letter: &DeadLetter| kept::reason(letter) == "delivery_limit";
            match letters.iter().any(given_up) {
                true => Ok(()),
                false => Err(format!("none of {} dead letters is of that reason", letters.len())),
            }
        })
        .await
}

/// What workers hold is stored, but RabbitMQ never learns it, and delivers it again.
async fn repeat(stage: &mut Stage) {
    stage.worker_amqp.set(Toxic::Mute);
    stage.pass(DEAF).await;
    stage.worker_amqp.reset();
    stage.worker_amqp.set(Toxic::None);
    stage.pass(DEAF).await;
}

async fn poison(stage: &mut Stage) -> Result<(), String> {
    for rule in RULES {
        // A rule waits for writers, who may wait for it: PostgreSQL ends one of the two.
        let made = async |stage: &Stage| stage.world.database().try_sql(rule).await.map(drop);
        stage.until("the rule is made", Duration::from_secs(30), made).await?;
    }
    stage.dead_expected.extend(["database_refused", "malformed_record"]);
    let client = stage.world.client(&stage.gateways[0], Version::V5).await;
    let kinds = [
        ("name", "poison-check"),
        ("name", "poison-trigger"),
        ("hostname", "poison-division"),
        ("", "poison-metric"),
    ];
    for dose in 0..DOSES {
        for (field, word) in kinds {
            let message = Message::of(&format!("{word}-{dose}"));
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

/// Every bad record must be a dead letter, with the right reason.
async fn all_are_buried(stage: &mut Stage) -> Result<(), String> {
    // The lines of the garbage; of each bad agent its message at least, and its announcement.
    let lines = GARBAGE.iter().flat_map(|body| body.lines()).filter(|line| !line.is_empty());
    let garbage = lines.count() * DOSES as usize;
    let refused = 4 * DOSES as usize;
    let within = Duration::from_secs(60);
    let buried = async |stage: &Stage| {
        let letters = stage.world.rabbitmq().try_dead_letters().await?;
        let count = |reason: &str| letters.iter().filter(|letter| letter.reason == reason).count();
        let found = (count("malformed_record"), count("database_refused"));
        match found.0 >= garbage && found.1 >= refused {
            true => Ok(()),
            false => Err(format!("{found:?} of {garbage} malformed and {refused} refused are")),
        }
    };
    stage.until("bad records are dead letters", within, buried).await
}

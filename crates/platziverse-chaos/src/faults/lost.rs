//! A gateway that dies and does not come back, with agents that cannot go elsewhere: nobody but the
//! sweep can tell that they are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use platziverse_testkit::{Proxy, Toxic};
use tokio::time::Instant;

use super::{Fault, clients, rows};
use crate::character::Part;
use crate::ear::Ear;
use crate::fleet::{Fleet, Plan};
use crate::stage::Stage;
use crate::{kept, presence};

const STRANDED: Plan = Plan { agents: 10, rate: 20.0 };
/// The gateway that dies, and one that listens.
const DEAD: usize = 0;
const ALIVE: usize = 1;
/// Promise 3.
const PRESENCE: Duration = Duration::from_secs(15);

pub(super) async fn begin(_: Fault, stage: &mut Stage) -> Result<(), String> {
    let proxy = Proxy::start(stage.gateways[DEAD].mqtt()).await;
    stage.crowd.fleet = Some(Fleet::start("stranded", vec![proxy.address()], STRANDED));
    stage.crowd.proxies.push(proxy);
    clients::connected(stage, STRANDED.agents, 1).await?;
    rows::are_present(stage, "stranded-%", STRANDED.agents, PRESENCE).await?;
    let listening =
        async |stage: &Stage| match stage.ears.get(ALIVE).is_some_and(Ear::is_subscribed) {
            true => Ok(()),
            false => Err("it is not subscribed".to_owned()),
        };
    stage.until("the other gateway has a listener", PRESENCE, listening).await?;
    // In this order: a connection that ends before its gateway does would be told by it.
    stage.gateways[DEAD].kill();
    let killed = Instant::now();
    stage.crowd.proxies.iter().for_each(|proxy| proxy.set(Toxic::Refuse));
    are_swept(stage, killed).await
}

/// The rows say it, and the world was told.
async fn are_swept(stage: &mut Stage, killed: Instant) -> Result<(), String> {
    let ledgers = stage.crowd.fleet.as_ref().map(Fleet::ledgers).unwrap_or_default();
    let truth: BTreeMap<String, Part> =
        ledgers.iter().map(|ledger| (ledger.agent.to_string(), Part::BreaksOff)).collect();
    let rest = PRESENCE.saturating_sub(killed.elapsed());
    let swept = async |stage: &Stage| {
        let rows = kept::rows(&stage.world).await?;
        let mut wrong = presence::wrong_rows(&truth, &rows);
        wrong.extend(presence::wrong_beliefs(&truth, &rows, &stage.ears[ALIVE].said()));
        match wrong.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} are wrong; {first}", wrong.len())),
        }
    };
    stage.until("the agents of the dead gateway are gone", rest, swept).await
}

pub(super) async fn end(_: Fault, stage: &mut Stage) -> Result<(), String> {
    stage.gateways[DEAD].start_again()?;
    stage.crowd.proxies.iter().for_each(|proxy| proxy.set(Toxic::None));
    clients::disperse(stage, clients::ANSWERS).await
}

//! Which rounds are played, from a seed. Pure.

use fastrand::Rng;

use crate::faults::{Fault, Target};

/// The faults that one round plays at once.
pub type Round = Vec<Fault>;

/// The faults that are combined in one round.
const COMBINED_MIN: usize = 2;
const COMBINED_MAX: usize = 3;
/// Combinations in the short run.
const SHORT_ROUNDS: usize = 1;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Only these.
    pub only: Vec<Round>,
    /// Rounds, if a number is wanted.
    pub rounds: Option<usize>,
    /// The short run.
    pub short: bool,
    /// Where chance begins.
    pub seed: u64,
}

/// The rounds.
pub fn rounds(wish: &Wish) -> Vec<Round> {
    if !wish.only.is_empty() {
        let times = wish.rounds.unwrap_or(1);
        return std::iter::repeat_n(&wish.only, times).flatten().cloned().collect();
    }
    let chosen = Fault::ALL.iter().filter(|fault| !wish.short || fault.is_short());
    let alone = chosen.map(|fault| vec![*fault]);
    let combinations = wish.rounds.unwrap_or(if wish.short { SHORT_ROUNDS } else { 20 });
    let mut rng = Rng::with_seed(wish.seed);
    let combined: Vec<_> = (0..combinations).map(|_| combination(&mut rng)).collect();
    alone.chain(combined).collect()
}

/// The name of a round.
pub fn names(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join("+")
}

/// The round of these names, joined by `+`.
///
/// # Errors
///
/// A name that is none, or faults that cannot go together.
pub fn named(names: &str) -> Result<Round, String> {
    let named = |name| {
        Fault::named(name).ok_or_else(|| format!("there is no fault {name}; --list prints them"))
    };
    let mut round = names.split('+').map(named).collect::<Result<Round, _>>()?;
    if let Some(alone) = round.iter().find(|fault| round.len() > 1 && !fault.is_combinable()) {
        return Err(format!("{} goes alone", alone.name()));
    }
    for (index, fault) in round.iter().enumerate() {
        if let Some(other) = round[..index].iter().find(|other| other.target() == fault.target()) {
            return Err(format!("{} and {} injure the same part", other.name(), fault.name()));
        }
    }
    clients_first(&mut round);
    Ok(round)
}

/// Clients come before the gateways go that they connect to.
fn clients_first(round: &mut Round) {
    round.sort_by_key(|fault| fault.target() != Target::Clients);
}

/// Faults of different targets.
fn combination(rng: &mut Rng) -> Round {
    let wanted = rng.usize(COMBINED_MIN..=COMBINED_MAX);
    let mut all: Vec<Fault> =
        Fault::ALL.iter().copied().filter(|fault| fault.is_combinable()).collect();
    rng.shuffle(&mut all);
    let mut chosen = Round::with_capacity(wanted);
    for fault in all {
        if chosen.len() < wanted && chosen.iter().all(|other| other.target() != fault.target()) {
            chosen.push(fault);
        }
    }
    clients_first(&mut chosen);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(seed: u64) -> Wish {
        Wish { only: Vec::new(), rounds: Some(50), short: false, seed }
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(rounds(&wish(7)), rounds(&wish(7)));
        assert_ne!(rounds(&wish(7)), rounds(&wish(8)));
    }

    #[test]
    fn combinations_injure_different_parts() {
        for faults in rounds(&wish(1)).into_iter().skip(Fault::ALL.len()) {
            assert!(faults.len() >= COMBINED_MIN, "{faults:?}");
            for (index, fault) in faults.iter().enumerate() {
                assert!(fault.is_combinable());
                assert!(index == 0 || fault.target() != Target::Clients, "{faults:?}");
                assert!(faults[..index].iter().all(|other| other.target() != fault.target()));
            }
        }
    }

    #[test]
    fn chosen_faults_are_repeated() {
        let wish = Wish { only: vec![vec![Fault::WorkerKill]], rounds: Some(3), ..wish(1) };
        assert_eq!(rounds(&wish), vec![vec![Fault::WorkerKill]; 3]);
    }

    #[test]
    fn a_round_is_named_as_it_is_shown() {
        for round in rounds(&wish(1)) {
            assert_eq!(named(&names(&round)), Ok(round));
        }
        assert_eq!(
            named("worker-kill+slow-subscriber"),
            Ok(vec![Fault::SlowSubscriber, Fault::WorkerKill])
        );
        for refused in ["", "worker-kill+", "no", "drain+worker-kill", "worker-kill+worker-term"] {
            assert!(named(refused).is_err(), "{refused}");
        }
    }
}

//! What an agent is like, by its number. Pure.

use platziverse_testkit::{QoS, Version};

/// How an agent names its messages, and so whether it may send one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// With an id and a timestamp.
    IdAndTime,
    /// With an id alone.
    Id,
    /// Without either: sending it again would be another message, so it is sent once.
    None,
}

/// What an agent does in the roll call at a round's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It says goodbye.
    Leaves,
    /// Its connection breaks off.
    BreaksOff,
    /// It moves to another gateway and stays.
    Moves,
    /// It stays where it is.
    Stays,
}

impl Part {
    /// Whether the agent is connected after the roll call.
    pub fn is_present(self) -> bool {
        matches!(self, Self::Moves | Self::Stays)
    }
}

/// An agent's character.
#[derive(Clone, Copy, Debug)]
pub struct Character {
    /// What it does in the roll call.
    pub part: Part,
    /// The version of MQTT that it speaks.
    pub version: Version,
    /// The gateway that it tries first, counted on beyond the last one.
    pub gateway: usize,
    /// How it names its messages: most agents do as the manual says.
    pub identity: Identity,
    /// The level at which it reports.
    pub qos: QoS,
}

impl Character {
    /// The character of the agent with this number. Each trait has digits of its own, or a period
    /// without a common divisor, so that all of them meet.
    pub fn of(number: usize) -> Self {
        let part = match number % 4 {
            0 => Part::Leaves,
            1 => Part::BreaksOff,
            2 => Part::Moves,
            _ => Part::Stays,
        };
        let identity = match number % 5 {
            3 => Identity::Id,
            4 => Identity::None,
            _ => Identity::IdAndTime,
        };
        Self {
            part,
            version: Version::BOTH[number / 4 % 2],
            gateway: number / 8,
            identity,
            qos: if number % 3 == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::args::AGENTS;

    #[test]
    fn all_traits_meet_among_the_default_number_of_agents() {
        let crowd = || (0..AGENTS).map(Character::of);
        let count = |traits: &dyn Fn(Character) -> (usize, usize, usize)| {
            crowd().map(traits).collect::<BTreeSet<_>>().len()
        };
        let version = |one: &Character| usize::from(one.version == Version::V5);
        let exact = |one: &Character| usize::from(one.qos == QoS::ExactlyOnce);
        let (part, identity) =
            (|one: &Character| one.part as usize, |one: &Character| one.identity as usize);
        assert_eq!(count(&|one| (part(&one), version(&one), one.gateway % 2)), 16);
        assert_eq!(count(&|one| (part(&one), version(&one), identity(&one))), 24);
        assert_eq!(count(&|one| (part(&one), version(&one), exact(&one))), 16);
        assert_eq!(count(&|one| (one.gateway % 2, version(&one), identity(&one))), 12);
        assert_eq!(count(&|one| (one.gateway % 2, version(&one), exact(&one))), 8);
        assert_eq!(count(&|one| (0, exact(&one), identity(&one))), 6);
        assert_eq!(count(&|one| (0, part(&one), identity(&one))), 12);
    }

    #[test]
    fn most_agents_do_as_the_manual_says() {
        let named = |one: &Character| one.identity == Identity::IdAndTime;
        assert!((0..AGENTS).map(Character::of).filter(named).count() > AGENTS / 2);
    }
}

//! Presence at a round's end: the rows and what listeners believe, against the truth. Pure.

use std::collections::BTreeMap;

use crate::character::Part;
use crate::ear::{Said, Session};

/// An agent's row: its session, and whether it is connected.
pub type Rows = BTreeMap<String, (Session, bool)>;

/// What is wrong with the rows.
pub fn wrong_rows(truth: &BTreeMap<String, Part>, rows: &Rows) -> Vec<String> {
    let wrong = |(agent, part): (&String, &Part)| {
        let connected = rows.get(agent).map(|(_, connected)| *connected);
        (connected != Some(part.is_present())).then(|| {
            format!("agent {agent}, which {part:?}, has connected = {connected:?} in its row")
        })
    };
    truth.iter().filter_map(wrong).collect()
}

/// Rows that are connected although nobody of that name is.
pub fn ghosts(truth: &BTreeMap<String, Part>, rows: &Rows) -> Vec<String> {
    let ghost = |(agent, (session, connected)): (&String, &(Session, bool))| {
        (*connected && !truth.contains_key(agent))
            .then(|| format!("{agent} is a ghost: connected in its row, in session {session}"))
    };
    rows.iter().filter_map(ghost).collect()
}

/// What is wrong with what a listener believes that has heard the whole roll call.
///
/// Who stayed was not announced again, so a listener that was deaf before need not know of it; but
/// it must not have been told that this session is over, or of a later one.
pub fn wrong_beliefs(
    truth: &BTreeMap<String, Part>,
    rows: &Rows,
    said: &BTreeMap<String, Said>,
) -> Vec<String> {
    let wrong = |(agent, part): (&String, &Part)| {
        let (session, _) = rows.get(agent)?;
        let newest = said.get(agent).and_then(|said| said.newest.as_ref());
        let right = match (part, newest) {
            (Part::Stays, None) => true,
            (Part::Stays, Some((heard, ended))) => heard < session || heard == session && !ended,
            (_, None) => false,
            (Part::Moves, Some((heard, ended))) => heard == session && !ended,
            (Part::Leaves | Part::BreaksOff, Some((heard, ended))) => heard == session && *ended,
        };
        (!right).then(|| {
            format!(
                "of agent {agent}, which {part:?} in session {session}, listeners heard {newest:?}"
            )
        })
    };
    truth.iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one<T>(value: T) -> BTreeMap<String, T> {
        BTreeMap::from([("a".to_owned(), value)])
    }

    #[test]
    fn rows() {
        let check = |part: Part, row: Option<bool>, right: bool| {
            let rows = row.map_or_else(Rows::new, |row| one(("1".to_owned(), row)));
            assert_eq!(wrong_rows(&one(part), &rows).is_empty(), right, "{part:?} {row:?}");
        };
        check(Part::Leaves, Some(false), true);
        check(Part::Leaves, Some(true), false);
        check(Part::Stays, Some(true), true);
        check(Part::Moves, Some(false), false);
        check(Part::Moves, None, false);
    }

    #[test]
    fn who_is_connected_and_nobody_is_a_ghost() {
        let check = |agent: &str, connected: bool, count: usize| {
            let rows = Rows::from([(agent.to_owned(), ("1".to_owned(), connected))]);
            assert_eq!(ghosts(&one(Part::Leaves), &rows).len(), count, "{agent} {connected}");
        };
        check("a", true, 0);
        check("of-a-crowd", true, 1);
        check("of-a-crowd", false, 0);
    }

    #[test]
    fn beliefs() {
        let check = |part: Part, newest: Option<(&str, bool)>, right: bool| {
            let newest = newest.map(|(session, ended)| (session.to_owned(), ended));
            let rows = one(("2".to_owned(), part.is_present()));
            let wrong = wrong_beliefs(&one(part), &rows, &one(Said { newest }));
            assert_eq!(wrong.is_empty(), right, "{wrong:?}");
        };
        check(Part::Leaves, Some(("2", true)), true);
        check(Part::Leaves, Some(("2", false)), false);
        check(Part::BreaksOff, None, false);
        check(Part::Moves, Some(("2", false)), true);
        check(Part::Moves, Some(("1", true)), false);
        check(Part::Moves, Some(("2", true)), false);
        check(Part::Stays, None, true);
        check(Part::Stays, Some(("1", true)), true);
        check(Part::Stays, Some(("2", false)), true);
        check(Part::Stays, Some(("2", true)), false);
        check(Part::Stays, Some(("3", false)), false);
    }
}

//! The table that a run ends with.

use platziverse_testkit::aligned;
use serde::Serialize;

use crate::figure::{Figure, Goal, Subject};
use crate::machine::Machine;

const HEAD: [&str; 10] = [
    "scenario",
    "case",
    "figure",
    "platziverse",
    "rabbitmq plugin",
    "mosquitto",
    "pika",
    "× peer",
    "goal",
    "",
];
/// Columns of words.
const WORDS: usize = 3;

/// All that a run found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// The table, and what else is to be said.
    pub(crate) fn table(&self) -> String {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(self.figures.iter().map(row)).collect();
        let mut text = aligned(&rows, WORDS).join("\n");
        text.push_str(&format!(
            "\n\nMedians of {} rounds on {}\n",
            self.rounds,
            self.machine.shown()
        ));
        for failure in &self.failures {
            text.push_str(&format!("! {failure}\n"));
        }
        text
    }
}

fn row(figure: &Figure) -> Vec<String> {
    let shown = |subject| figure.median(subject).map(|value| figure.unit.shown(value));
    let times = figure.times_peer().map(|times| format!("{times:.1}"));
    let verdict = match figure.is_reached() {
        Some(true) => "reached",
        Some(false) => "missed",
        None => "",
    };
    vec![
        figure.scenario.to_owned(),
        figure.case.clone(),
        figure.what.to_owned(),
        shown(Subject::Platziverse).unwrap_or_default(),
        shown(Subject::Plugin).unwrap_or_default(),
        shown(Subject::Mosquitto).unwrap_or_default(),
        shown(Subject::Pika).unwrap_or_default(),
        times.unwrap_or_default(),
        figure.goal.map(|goal| wanted(figure, goal)).unwrap_or_default(),
        verdict.to_owned(),
    ]
}

fn wanted(figure: &Figure, goal: Goal) -> String {
    match goal {
        Goal::AtLeast(least) => format!("≥ {}", figure.unit.shown(least)),
        Goal::AtMost(most) => format!("≤ {}", figure.unit.shown(most)),
        Goal::TimesPlugin(times) => format!("{times:.0} × plugin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Sample, Unit, gather};

    #[test]
    fn a_line_says_what_was_reached() {
        let mut figures = Vec::new();
        let of = |subject, value| {
            Sample::of(subject, "20 in flight", "acknowledged", Unit::PerSecond, value)
                .with_goal(Goal::TimesPlugin(3.0))
        };
        gather(&mut figures, "edge", vec![of(Subject::Platziverse, 80_000.0)]);
        assert_eq!(row(&figures[0])[8..], ["3 × plugin", ""]);
        gather(&mut figures, "edge", vec![of(Subject::Plugin, 20_000.0)]);
        assert_eq!(row(&figures[0])[3..5], ["80,000/s", "20,000/s"]);
        assert_eq!(row(&figures[0])[7..], ["4.0", "3 × plugin", "reached"]);
    }
}

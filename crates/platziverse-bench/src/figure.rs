//! What is measured, and how several measurements become one figure. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Us.
    Platziverse,
    /// A plugin of RabbitMQ's own: for MQTT, into a quorum queue, for HTTP its management, or for STOMP
    /// over WebSockets.
    Plugin,
    /// Mosquitto, which stores nothing.
    Mosquitto,
    /// A consumer or publisher in Python, with pika.
    Pika,
}

/// In what a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// So many a second.
    PerSecond,
    /// Milliseconds of latency.
    Milliseconds,
    /// Microseconds of processor time.
    Microseconds,
    /// Kilobytes of memory, of 1,000 bytes.
    Kilobytes,
    /// Percent of one processor's time.
    Percent,
    /// One figure divided by another.
    Times,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
    /// So many times better than RabbitMQ's plugin.
    TimesPlugin(f64),
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Under which circumstances.
    pub case: String,
    /// What was measured.
    pub what: &'static str,
    /// In what.
    pub unit: Unit,
    /// Of whom.
    pub subject: Subject,
    /// How much.
    pub value: f64,
    /// How much it should be of us.
    pub goal: Option<Goal>,
}

/// What playing a scenario once came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Played {
    /// What was measured.
    pub samples: Vec<Sample>,
    /// What could not be, and why.
    pub failures: Vec<String>,
}

impl Played {
    /// Adds what one part came to: what fails does not take away the others.
    pub fn add(&mut self, part: Result<Vec<Sample>, String>) {
        match part {
            Ok(samples) => self.samples.extend(samples),
            Err(why) => self.failures.push(why),
        }
    }
}

impl From<Result<Vec<Sample>, String>> for Played {
    fn from(whole: Result<Vec<Sample>, String>) -> Self {
        let mut played = Self::default();
        played.add(whole);
        played
    }
}

/// Measurements of the same thing, of all subjects and rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Under which circumstances.
    pub case: String,
    /// What was measured.
    pub what: &'static str,
    /// In what.
    pub unit: Unit,
    /// One value for each round.
    pub values: BTreeMap<Subject, Vec<f64>>,
    /// How much it should be of us.
    pub goal: Option<Goal>,
}

impl Unit {
    /// Whether less is better.
    pub fn is_cost(self) -> bool {
        self != Self::PerSecond
    }

    /// A value for a person.
    pub fn shown(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", thousands(value)),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Microseconds => format!("{value:.1} µs"),
            Self::Kilobytes => format!("{value:.1} KB"),
            Self::Percent => format!("{value:.1} %"),
            Self::Times => format!("{value:.2}"),
        }
    }
}

impl Sample {
    /// A measurement of us.
    pub fn ours(case: &str, what: &'static str, unit: Unit, value: f64) -> Self {
        Self::of(Subject::Platziverse, case, what, unit, value)
    }

    /// A measurement of somebody.
    pub fn of(subject: Subject, case: &str, what: &'static str, unit: Unit, value: f64) -> Self {
        Self { case: case.to_owned(), what, unit, subject, value, goal: None }
    }

    /// The same, with a goal.
    pub fn with_goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }
}

impl Figure {
    /// The median of a subject's rounds.
    pub fn median(&self, subject: Subject) -> Option<f64> {
        let mut values = self.values.get(&subject)?.clone();
        values.sort_by(f64::total_cmp);
        let (low, high) =
            (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
        Some((low + high) / 2.0)
    }

    /// How many times better we are than `other`: more of what is good, less of what is not.
    pub fn times_better(&self, other: Subject) -> Option<f64> {
        let (ours, theirs) = (self.median(Subject::Platziverse)?, self.median(other)?);
        let (better, worse) = if self.unit.is_cost() { (theirs, ours) } else { (ours, theirs) };
        (worse > 0.0).then(|| better / worse)
    }

    /// How many times better we are than the peer, which does the same work.
    pub fn times_peer(&self) -> Option<f64> {
        [Subject::Plugin, Subject::Pika].into_iter().find_map(|peer| self.times_better(peer))
    }

    /// Whether the goal is reached; nothing without a goal, or without what it compares with.
    pub fn is_reached(&self) -> Option<bool> {
        let ours = self.median(Subject::Platziverse)?;
        match self.goal? {
            Goal::AtLeast(least) => Some(ours >= least),
            Goal::AtMost(most) => Some(ours <= most),
            Goal::TimesPlugin(times) => Some(self.times_better(Subject::Plugin)? >= times),
        }
    }
}

/// Puts the samples of one more round to the figures they belong to.
pub fn gather(figures: &mut Vec<Figure>, scenario: &'static str, samples: Vec<Sample>) {
    for sample in samples {
        let Sample { case, what, unit, subject, value, goal } = sample;
        let is_same = |figure: &&mut Figure| {
            (figure.scenario, &figure.case, figure.what) == (scenario, &case, what)
        };
        match figures.iter_mut().find(is_same) {
            Some(figure) => {
                figure.goal = figure.goal.or(goal);
                figure.values.entry(subject).or_default().push(value);
            }
            None => {
                let values = BTreeMap::from([(subject, vec![value])]);
                figures.push(Figure { scenario, case, what, unit, values, goal });
            }
        }
    }
}

/// A whole number with its thousands apart.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[(Subject, f64)], unit: Unit, goal: Goal) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (subject, value) in values {
            let sample = Sample::of(*subject, "case", "what", unit, *value).with_goal(goal);
            gather(&mut figures, "edge", vec![sample]);
        }
        figures
    }

    #[test]
    fn rounds_become_a_median() {
        let values = [5.0, 1.0, 3.0].map(|value| (Subject::Platziverse, value));
        let figures = figures(&values, Unit::PerSecond, Goal::AtLeast(3.0));
        assert_eq!((figures.len(), figures[0].median(Subject::Platziverse)), (1, Some(3.0)));
        assert_eq!(figures[0].median(Subject::Plugin), None);
        assert_eq!(figures[0].is_reached(), Some(true));
    }

    #[test]
    fn less_of_a_cost_is_better() {
        let values = [(Subject::Platziverse, 2.0), (Subject::Plugin, 8.0)];
        let cost = &figures(&values, Unit::Milliseconds, Goal::TimesPlugin(4.0))[0];
        assert_eq!(
            (cost.times_better(Subject::Plugin), cost.is_reached()),
            (Some(4.0), Some(true))
        );
        let rate = &figures(&values, Unit::PerSecond, Goal::TimesPlugin(2.0))[0];
        assert_eq!(
            (rate.times_better(Subject::Plugin), rate.is_reached()),
            (Some(0.25), Some(false))
        );
        assert_eq!(rate.times_better(Subject::Mosquitto), None);
    }

    #[test]
    fn the_peer_does_the_same_work() {
        let times = |subject| {
            let values = [(Subject::Platziverse, 6.0), (subject, 2.0)];
            figures(&values, Unit::PerSecond, Goal::AtLeast(5.0))[0].times_peer()
        };
        assert_eq!([Subject::Plugin, Subject::Pika].map(times), [Some(3.0); 2]);
        // It stores nothing.
        assert_eq!(times(Subject::Mosquitto), None);
    }

    #[test]
    fn thousands_are_apart() {
        let check = |value, want| assert_eq!(thousands(value), want);
        check(0.0, "0");
        check(999.4, "999");
        check(1_000.0, "1,000");
        check(1_234_567.0, "1,234,567");
    }
}

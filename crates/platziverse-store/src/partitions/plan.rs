//! Which partitions there are to be, and what has to be done for that. Pure: today is an argument.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{Days, NaiveDate, NaiveTime};

use super::Policy;

/// Days before today that get a partition: agents that were offline send what they kept.
const BACK_DAYS: u64 = 7;

/// One thing to do, independent of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The partition of a day, with the rows of that day.
    Make(NaiveDate),
    /// The partition of a day that is too old.
    Drop(NaiveDate),
    /// What is before a day and in the default partition.
    DeleteRows(NaiveDate),
    /// The times of messages before a day.
    DeleteTimes(NaiveDate),
}

impl Step {
    /// Whether it throws nothing away.
    pub(super) fn makes(&self) -> bool {
        matches!(self, Self::Make(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(day) => write!(f, "making {}", name(*day)),
            Self::Drop(day) => write!(f, "dropping {}", name(*day)),
            Self::DeleteRows(day) => write!(f, "deleting rows of metrics_default before {day}"),
            Self::DeleteTimes(day) => write!(f, "deleting rows of message_times before {day}"),
        }
    }
}

/// What is to be done, what is needed soonest first.
pub(super) fn steps(today: NaiveDate, policy: Policy, existing: &BTreeSet<NaiveDate>) -> Vec<Step> {
    let retention = Days::new(policy.retention_days.into());
    let keep_from = today.checked_sub_days(retention).unwrap_or(NaiveDate::MIN);
    let from = today.checked_sub_days(Days::new(BACK_DAYS)).unwrap_or(NaiveDate::MIN);
    let days = from.max(keep_from).iter_days();
    let last = today.checked_add_days(Days::new(policy.ahead_days.into()));
    let last = last.unwrap_or(NaiveDate::MAX);
    let missing = days.take_while(|day| *day <= last).filter(|day| !existing.contains(day));
    let too_old = existing.range(..keep_from).copied();
    let deleting = [Step::DeleteRows(keep_from), Step::DeleteTimes(keep_from)];
    missing.map(Step::Make).chain(too_old.map(Step::Drop)).chain(deleting).collect()
}

const NAME_FORMAT: &str = "metrics_%Y%m%d";

pub(super) fn name(day: NaiveDate) -> String {
    day.format(NAME_FORMAT).to_string()
}

/// The day of a partition; none for the default one, and for those that somebody else made.
pub(super) fn day(name: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(name, NAME_FORMAT).ok()
}

/// A day's first moment as an SQL literal.
pub(super) fn midnight(day: NaiveDate) -> String {
    format!("TIMESTAMPTZ '{}+00'", day.and_time(NaiveTime::MIN).format("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn names_and_days_match() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(day(name), expected.map(date), "{name}");
        };
        check("metrics_20260131", Some("2026-01-31"));
        check("metrics_20260231", None);
        check("metrics_default", None);
        check("metrics_2026", None);
        assert_eq!(name(date("2026-01-31")), "metrics_20260131");
        assert_eq!(midnight(date("2026-01-31")), "TIMESTAMPTZ '2026-01-31 00:00:00+00'");
    }

    #[test]
    fn plans_follow_the_policy() {
        let check =
            |ahead_days, retention_days, existing: &[&str], make: &[&str], drop: &[&str]| {
                let policy = Policy { ahead_days, retention_days };
                let existing = existing.iter().map(|text| date(text)).collect();
                let planned = steps(date("2026-03-01"), policy, &existing);
                let keep_from = date("2026-03-01") - Days::new(retention_days.into());
                let mut expected: Vec<_> = make.iter().map(|day| Step::Make(date(day))).collect();
                expected.extend(drop.iter().map(|day| Step::Drop(date(day))));
                expected.extend([Step::DeleteRows(keep_from), Step::DeleteTimes(keep_from)]);
                assert_eq!(planned, expected);
            };
        check(1, 1, &[], &["2026-02-28", "2026-03-01", "2026-03-02"], &[]);
        check(0, 1, &["2026-03-01"], &["2026-02-28"], &[]);
        check(
            0,
            1,
            &["2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01"],
            &[],
            &["2026-02-26", "2026-02-27"],
        );
        let week: Vec<_> = (22..=28).map(|day| format!("2026-02-{day}")).collect();
        let week: Vec<_> = week.iter().map(String::as_str).chain(["2026-03-01"]).collect();
        check(0, 30, &[], &week, &[]);
        check(0, 30, &["2026-01-30", "2026-01-29"], &week, &["2026-01-29"]);
    }
}

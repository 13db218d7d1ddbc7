//! The table that a run ends with.

use platziverse_testkit::aligned;

use crate::round::RoundReport;

const HEAD: [&str; 12] = [
    "fault",
    "attempted",
    "acknowledged",
    "stored",
    "lost",
    "duplicated",
    "unexpected",
    "recovered",
    "gateway MB",
    "worker MB",
    "mom MB",
    "aggregator MB",
];

/// The rounds as a table; a line of its own for each thing unexpected.
pub fn table(rounds: &[RoundReport]) -> String {
    let head = HEAD.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(rounds.iter().map(row)).collect();
    let mut lines = aligned(&rows, 1).into_iter();
    let mut text = lines.next().unwrap_or_default() + "\n";
    for (line, round) in lines.zip(rounds) {
        text.push_str(&format!("{line}\n"));
        if let Some(why) = &round.skipped {
            text.push_str(&format!("  - not played: {why}\n"));
        }
        for words in &round.tally.notes {
            text.push_str(&format!("  - {words}\n"));
        }
        for words in round.tally.examples.iter().chain(&round.tally.unexpected) {
            text.push_str(&format!("  ! {words}\n"));
        }
    }
    text
}

/// One round in one line.
pub fn summary(round: &RoundReport) -> String {
    let tally = &round.tally;
    if let Some(why) = &round.skipped {
        return format!("skipped {}: {why}", round.fault);
    }
    let verdict = if round.is_clean() { "ok" } else { "FAILED" };
    let recovered = recovered(round);
    format!(
        "{verdict:<6} {}: {} acknowledged, {} lost, {} duplicated, {} unexpected, recovered after {recovered} ({:.0} s)",
        round.fault,
        tally.acknowledged,
        tally.lost,
        tally.duplicated,
        tally.unexpected.len(),
        round.seconds,
    )
}

fn recovered(round: &RoundReport) -> String {
    match (round.recovered_after, &round.skipped) {
        (Some(seconds), _) => format!("{seconds:.1} s"),
        (None, Some(_)) => "skipped".to_owned(),
        (None, None) => "never".to_owned(),
    }
}

fn row(round: &RoundReport) -> Vec<String> {
    let tally = &round.tally;
    let megabytes = |bytes: u64| (bytes >> 20).to_string();
    vec![
        round.fault.clone(),
        tally.attempted.to_string(),
        tally.acknowledged.to_string(),
        tally.stored.to_string(),
        tally.lost.to_string(),
        tally.duplicated.to_string(),
        tally.unexpected.len().to_string(),
        recovered(round),
        megabytes(round.peak_memory.gateway),
        megabytes(round.peak_memory.worker),
        megabytes(round.peak_memory.mom),
        megabytes(round.peak_memory.aggregator),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Fault;

    #[test]
    fn what_is_skipped_is_said_and_fails_nothing() {
        let round = RoundReport::skipped(&[Fault::PostgresFull], "only root may");
        assert!(round.is_clean());
        assert_eq!(summary(&round), "skipped postgres-disk-full: only root may");
        let text = table(&[round]);
        assert!(text.contains("skipped") && text.contains("only root may"), "{text}");
    }

    #[test]
    fn trouble_has_a_line_of_its_own() {
        let round = RoundReport::impossible(&[Fault::None], "no servers".to_owned());
        assert!(summary(&round).starts_with("FAILED none"));
        assert!(table(&[round]).contains("  ! no servers\n"));
    }
}

//! Processor time of processes, from /proc.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// A second has so many clock ticks, on every Linux that there is (sysconf(_SC_CLK_TCK)).
const TICKS: f64 = 100.0;

/// What /proc says of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    process: u32,
    parent: u32,
    /// Clock ticks, those of children that have ended included.
    ticks: u64,
}

/// Processor time of these processes and all that came from them.
pub(crate) fn processor_time(roots: &[u32]) -> Duration {
    let all: Vec<Stat> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| stat(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect();
    Duration::from_secs_f64(ticks(&all, roots) as f64 / TICKS)
}

fn ticks(all: &[Stat], roots: &[u32]) -> u64 {
    let parents: HashMap<u32, u32> = all.iter().map(|stat| (stat.process, stat.parent)).collect();
    let belongs = |stat: &&Stat| {
        let line =
            std::iter::successors(Some(stat.process), |process| parents.get(process).copied());
        // The first process is its own ancestor's end; a cycle cannot be longer than all are.
        line.take(all.len() + 1).any(|process| roots.contains(&process))
    };
    all.iter().filter(belongs).map(|stat| stat.ticks).sum()
}

/// The name is in brackets and may have anything in it: what counts begins after the last one
/// (proc(5)).
fn stat(text: &str) -> Option<Stat> {
    let process = text.split_once(' ')?.0.parse().ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { process, parent, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(stat(text), Some(Stat { process: 7, parent: 1, ticks: 100 }));
        assert_eq!(stat("7 (a"), None);
    }

    #[test]
    fn children_count() {
        let one = |process, parent, ticks| Stat { process, parent, ticks };
        let all = [one(1, 0, 1), one(2, 1, 10), one(3, 2, 100), one(4, 1, 1_000)];
        assert_eq!((ticks(&all, &[2]), ticks(&all, &[2, 4]), ticks(&all, &[9])), (110, 1_110, 0));
    }
}

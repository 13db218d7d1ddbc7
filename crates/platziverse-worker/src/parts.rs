//! Halving a batch until what is wrong with it stands alone.

use std::ops::Range;

/// The parts of a batch that are still to be written, in its order.
pub(crate) struct Parts(Vec<Range<usize>>);

impl Parts {
    pub(crate) fn whole(records: usize) -> Self {
        let whole = 0..records;
        Self(vec![whole])
    }

    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        self.0.pop()
    }

    /// A part that could not be written whole.
    pub(crate) fn halve(&mut self, range: &Range<usize>) {
        let middle = range.start + range.len() / 2;
        // The first half is next.
        self.0.extend([middle..range.end, range.start..middle]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths that are tried, and what is found at the end, where `fits` says what can be
    /// written.
    fn play(records: usize, fits: impl Fn(&Range<usize>) -> bool) -> (Vec<usize>, Vec<usize>) {
        let (mut tried, mut written) = (Vec::new(), Vec::new());
        let mut parts = Parts::whole(records);
        while let Some(range) = parts.next() {
            tried.push(range.len());
            match fits(&range) {
                true => written.extend(range),
                false if range.len() > 1 => parts.halve(&range),
                false => {}
            }
        }
        (tried, written)
    }

    #[test]
    fn what_is_too_much_at_once_is_written_in_parts_and_in_order() {
        let (tried, written) = play(10, |range| range.len() <= 3);
        assert_eq!(written, (0..10).collect::<Vec<_>>());
        assert_eq!(tried, [10, 5, 2, 3, 5, 2, 3]);
    }

    #[test]
    fn a_bad_record_is_found_and_all_others_are_written() {
        let (tried, written) = play(1_000, |range| !range.contains(&617));
        assert_eq!(written.len(), 999);
        assert!(!written.contains(&617));
        assert!(tried.len() <= 21, "{tried:?}");
    }
}

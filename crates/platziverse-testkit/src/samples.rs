//! A page of metrics, read.

use std::collections::BTreeMap;

/// The samples of `/metrics` at one moment, by name with labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads OpenMetrics text.
    pub fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// One sample. Fails the test if there is none of that name.
    pub fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| {
            let names: Vec<_> = self.0.keys().collect();
            panic!("there is no metric {name}; there are {names:?}")
        })
    }

    /// The gateway's `publishes` or the worker's `records`: what came in, and the sum of the fates
    /// with what is in flight. They must be equal.
    pub fn balance(&self, book: &str, entry: &str, fates: &[&str]) -> (f64, f64) {
        let count = |word: &str| self.get(&format!("platziverse_{book}_{word}_total"));
        let in_flight = self.get(&format!("platziverse_{book}_in_flight"));
        (count(entry), in_flight + fates.iter().map(|fate| count(fate)).sum::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "# HELP a_b A.\n# TYPE a_b counter\na_b_total 5\n\
                    x{reason=\"not good\"} 2\nplatziverse_g_p_received_total 3\n\
                    platziverse_g_p_kept_total 2\nplatziverse_g_p_in_flight 1\n# EOF\n";
        let samples = Samples::parse(page);
        assert_eq!(samples.get("a_b_total"), 5.0);
        assert_eq!(samples.get("x{reason=\"not good\"}"), 2.0);
        assert_eq!(samples.balance("g_p", "received", &["kept"]), (3.0, 3.0));
    }
}

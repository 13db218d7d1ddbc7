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
        self.try_get(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// One sample, or that there is none of that name.
    pub fn try_get(&self, name: &str) -> Result<f64, String> {
        self.0.get(name).copied().ok_or_else(|| {
            let names: Vec<_> = self.0.keys().collect();
            format!("there is no metric {name}; there are {names:?}")
        })
    }

    /// The sum of a metric over all its labels; 0 if there is none of that name.
    pub fn sum(&self, name: &str) -> f64 {
        let of_it = |(sample, _): &(&String, &f64)| sample.split('{').next() == Some(name);
        self.0.iter().filter(of_it).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "# HELP a_b A.\n# TYPE a_b counter\na_b_total 5\n\
                    x{reason=\"not good\"} 2\n# EOF\n";
        let samples = Samples::parse(page);
        assert_eq!(samples.get("a_b_total"), 5.0);
        assert_eq!(samples.get("x{reason=\"not good\"}"), 2.0);
        assert_eq!((samples.sum("x"), samples.sum("a_b")), (2.0, 0.0));
        assert!(samples.try_get("a_b").is_err_and(|error| error.contains("a_b_total")));
    }
}

//! What a person sees on a terminal when a service starts.

use std::io::IsTerminal;

use platziverse_config::LogFormat;

use crate::Service;

impl Service {
    /// Shows a person what starts, a line for each fact; false where no person looks, and a line of
    /// the log is to say the same.
    pub fn show_banner(&self, facts: &[(&str, String)]) -> bool {
        let is_shown =
            std::io::stderr().is_terminal() && self.settings.log.format != LogFormat::Json;
        if is_shown {
            eprint!("{}", banner(self.name, facts));
        }
        is_shown
    }
}

fn banner(name: &str, facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(fact, _)| fact.len()).max().unwrap_or_default();
    let lines = facts.iter().map(|(fact, value)| format!("  {fact:width$}  {value}\n"));
    format!("\nplatziverse-{name} {}\n{}\n", env!("CARGO_PKG_VERSION"), lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_aligned() {
        let facts = [("roles", "ingest, tasks".to_owned()), ("prefetch", "100".to_owned())];
        let version = env!("CARGO_PKG_VERSION");
        let want = format!(
            "\nplatziverse-worker {version}\n  roles     ingest, tasks\n  prefetch  100\n\n"
        );
        assert_eq!(banner("worker", &facts), want);
    }
}

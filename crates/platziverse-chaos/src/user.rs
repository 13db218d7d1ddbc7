//! Who runs this.

/// Whether this is root, who alone may mount a small file system.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status) == Some(0)
}

/// The second number of the line is the one that counts (proc(5)).
fn effective(status: &str) -> Option<u32> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    numbers.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"), Some(0));
        assert_eq!(effective("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective(""), None);
    }
}

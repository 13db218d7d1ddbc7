//! Memory of processes, from /proc.

/// Memory in use by a process (VmRSS), in bytes; none if it has ended and was not waited for.
///
/// # Errors
///
/// There is no such process.
pub fn memory(process: u32) -> Result<u64, String> {
    status(process, "VmRSS:")
}

/// The most memory that it has used so far (VmHWM), in bytes.
pub(crate) fn peak(process: u32) -> Result<u64, String> {
    status(process, "VmHWM:")
}

fn status(process: u32, key: &str) -> Result<u64, String> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    Ok(1024 * kilobytes.unwrap_or(0_u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory() {
        let own = std::process::id();
        let (now, most) = (memory(own).unwrap(), peak(own).unwrap());
        assert!(now > 100_000 && most >= now / 2, "{now} of {most}");
        assert!(memory(u32::MAX).is_err());
    }
}

//! How many files this process may have open.

/// Fewer than this are few for any service.
const FEW_FILES: u64 = 1_000;
/// What is open beside connections.
const OTHER_FILES: u64 = 512;

/// Asks for as many open files as so many connections need; many systems allow 1,024 unless asked for
/// more. If they are fewer, it is a warning if they are few, or if somebody `wanted` so many
/// connections; `setting` says where.
pub fn raise_file_limit(connections: usize, wanted: bool, setting: &str) {
    let needed = (connections as u64).saturating_add(OTHER_FILES);
    let allowed = match rlimit::increase_nofile_limit(needed) {
        Ok(allowed) if allowed < needed => allowed,
        Ok(_) => return,
        Err(error) => {
            return tracing::warn!("the limit of open files could not be raised: {error}");
        }
    };
    let text = format!(
        "only {allowed} open files are allowed, which is less than {connections} connections \
         ({setting}) need: raise the limit (ulimit -n)"
    );
    if wanted || allowed < FEW_FILES {
        tracing::warn!("{text}");
    } else {
        tracing::info!("{text}");
    }
}

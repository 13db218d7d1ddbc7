//! Names of what a test makes outside of its process. They carry the time, so that what a killed
//! test left behind can be told from what a running one uses.

use std::time::Duration;

use uuid::Uuid;

const PREFIX: &str = "platziverse_test_";
const LOGS: &str = "_logs";

/// How old something must be to be taken for left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);

/// A new name, good for a vhost and for a database.
pub(crate) fn fresh() -> String {
    format!("{PREFIX}{}", Uuid::now_v7().simple())
}

/// Whether `name` is one of ours, made more than an hour ago.
pub(crate) fn is_left_behind(name: &str) -> bool {
    let Some(made) = name.strip_prefix(PREFIX).and_then(seconds) else { return false };
    let now = seconds(&Uuid::now_v7().simple().to_string()).unwrap_or(0);
    now.saturating_sub(made) > LEFT_BEHIND.as_secs()
}

/// A new folder's name for the logs of what is called `name`.
pub(crate) fn of_logs(name: &str) -> String {
    format!("{name}{LOGS}")
}

/// Removes the logs of tests that failed more than an hour ago.
pub(crate) fn sweep_logs() {
    let folders = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for folder in folders {
        let name = folder.file_name().to_string_lossy().into_owned();
        if name.strip_suffix(LOGS).is_some_and(is_left_behind) {
            // Another run may be sweeping as well.
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

fn seconds(id: &str) -> Option<u64> {
    let time = Uuid::try_parse(id).ok()?.get_timestamp()?;
    Some(time.to_unix().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_names_of_ours_are_left_behind() {
        assert!(!is_left_behind(&fresh()));
        assert!(!is_left_behind("/"));
        assert!(!is_left_behind("platziverse"));
        assert!(!is_left_behind("platziverse_test_something"));
        assert!(is_left_behind("platziverse_test_01700000000070008000000000000000"));
    }
}

//! What a delivery asks for. Decided here, carried out by `runner`.

use std::time::Duration;

use platziverse_protocol::dead::Reason;
use platziverse_protocol::task::{Task, TaskKind};
use uuid::Uuid;

/// What is to be done with a delivery.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A handler is to handle it.
    Handle(Uuid, Task),
    /// Nobody has named it yet.
    Name(Task),
    /// An event that the settings say to drop.
    Omit,
    /// It is no task.
    Reject(Reason, String),
}

/// Judges a delivery by its body and its message id, which counts if the body has none.
pub(crate) fn judge(body: &[u8], message_id: Option<&str>, omit: &[String]) -> Verdict {
    let task = match Task::parse(body) {
        Ok(task) => task,
        Err(error) => return Verdict::Reject(error.reason(), error.to_string()),
    };
    if task.kind == TaskKind::Event && omit.contains(&task.name) {
        return Verdict::Omit;
    }
    let id = task.id.or_else(|| message_id.and_then(|id| Uuid::try_parse(id).ok()));
    match id {
        Some(id) => Verdict::Handle(id, task),
        None => Verdict::Name(task),
    }
}

/// How long a task waits after its `attempt`th failure, from 1: as long as `delays` says, and when
/// they are used up as long as the last one.
pub(crate) fn delay(attempt: u32, delays: &[Duration]) -> Option<Duration> {
    let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    delays.get(place).or(delays.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01990000-0000-7000-8000-000000000001";
    const OTHER: &str = "01990000-0000-7000-8000-000000000002";

    #[test]
    fn names() {
        let check = |body: &str, message_id: Option<&str>, want: Option<&str>| {
            let got = match judge(body.as_bytes(), message_id, &[]) {
                Verdict::Handle(id, _) => Some(id.to_string()),
                Verdict::Name(_) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(got.as_deref(), want, "{body} {message_id:?}");
        };
        let named = format!(r#"{{"kind":"event","name":"x","id":"{ID}"}}"#);
        let unnamed = r#"{"kind":"event","name":"x"}"#;
        check(&named, Some(OTHER), Some(ID));
        check(&named, None, Some(ID));
        check(unnamed, Some(OTHER), Some(OTHER));
        check(unnamed, Some("17"), None);
        check(unnamed, None, None);
    }

    #[test]
    fn omitted_and_rejected() {
        let omit = ["noise".to_owned()];
        let judge = |body: &str| judge(body.as_bytes(), None, &omit);
        assert!(matches!(judge(r#"{"kind":"event","name":"noise"}"#), Verdict::Omit));
        assert!(matches!(judge(r#"{"kind":"command","name":"noise"}"#), Verdict::Name(_)));
        assert!(matches!(judge("{"), Verdict::Reject(Reason::InvalidJson, _)));
    }

    #[test]
    fn delays() {
        let ladder = [1, 10, 60].map(Duration::from_secs);
        let waits: Vec<_> = (1..=5).filter_map(|n| delay(n, &ladder)).collect();
        assert_eq!(waits, [1, 10, 60, 60, 60].map(Duration::from_secs));
        assert_eq!(delay(1, &[]), None);
    }
}

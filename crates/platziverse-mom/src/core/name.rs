//! Names of topics and queues.

use crate::core::refusal::{Code, Refusal};

/// Bytes of a name; with what stands around it, it must fit into the name of a queue in RabbitMQ.
pub const NAME_BYTES_MAX: usize = 128;

/// Whether something can have this name.
pub(super) fn check(name: &str) -> Result<(), Refusal> {
    let wrong = |what: &str| Err(Refusal::new(Code::InvalidName, format!("the name {what}")));
    if name.is_empty() {
        return wrong("is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return wrong(&format!(
            "has {} bytes; at most {NAME_BYTES_MAX} are allowed, in UTF-8",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return wrong("contains a control character");
    }
    if name.trim() != name {
        return wrong("begins or ends with white space");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_may_be() {
        for name in [
            "a",
            "weather",
            "a b",
            "a/b",
            "à la carte ☂",
            ".",
            "#",
            "%2F",
            "x".repeat(128).as_str(),
        ] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
        for (name, why) in [
            ("", "is empty"),
            (" a", "white space"),
            ("a\u{a0}", "white space"),
            ("a\nb", "control"),
            ("a\0", "control"),
            ("a\u{85}b", "control"),
            ("é".repeat(65).as_str(), "has 130 bytes; at most 128"),
        ] {
            let refusal = check(name).unwrap_err();
            assert_eq!(refusal.code, Code::InvalidName);
            assert!(refusal.detail.contains(why), "{name:?}: {}", refusal.detail);
        }
    }
}

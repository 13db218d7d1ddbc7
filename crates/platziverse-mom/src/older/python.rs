//! Lists as Python shows them.

use std::fmt::Write as _;

/// `['a', 'b']`.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<_> = texts.into_iter().map(text).collect();
    format!("[{}]", texts.join(", "))
}

/// A text in quotes, as Python's `repr` has it.
fn text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            letter if letter == quote => shown.extend(['\\', letter]),
            letter if is_printable(letter) => shown.push(letter),
            letter => escape(letter, &mut shown),
        }
    }
    shown.push(quote);
    shown
}

/// Whether Python shows a letter as it is. The standard library here judges by the same tables.
fn is_printable(letter: char) -> bool {
    // At the start of a text, it also escapes what would join the quote.
    let text = String::from_iter(['x', letter]);
    matches!(letter, '\'' | '"') || text.escape_debug().nth(1) == Some(letter)
}

fn escape(letter: char, shown: &mut String) {
    let number = u32::from(letter);
    // A `String` takes everything.
    let _ = match number {
        0..=0xff => write!(shown, "\\x{number:02x}"),
        0x100..=0xffff => write!(shown, "\\u{number:04x}"),
        _ => write!(shown, "\\U{number:08x}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_pythons() {
        assert_eq!(list([]), "[]");
        assert_eq!(list(["a"]), "['a']");
        assert_eq!(
            list(["weather", "à la carte ☂", "日本"]),
            "['weather', 'à la carte ☂', '日本']"
        );
        // Each as `repr` of Python 3.11 shows it.
        for (name, shown) in [
            ("it's", r#""it's""#),
            ("say \"x\"", r#"'say "x"'"#),
            ("it's \"x\"", r#"'it\'s "x"'"#),
            ("a\\b", r"'a\\b'"),
            ("a, b", "'a, b'"),
            ("e\u{301}", "'e\u{301}'"),
            ("a\u{a0}b", r"'a\xa0b'"),
            ("a\u{200b}b", r"'a\u200bb'"),
            ("a\u{e000}b", r"'a\ue000b'"),
            ("a\u{e0001}b", r"'a\U000e0001b'"),
            ("👩\u{200d}🚀", r"'👩\u200d🚀'"),
            ("a\tb\nc\rd\u{1b}", r"'a\tb\nc\rd\x1b'"),
        ] {
            assert_eq!(list([name]), format!("[{shown}]"));
        }
    }
}

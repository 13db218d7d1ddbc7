//! What is done to an input.
//!
//! Positions and lengths are shares of the input, so that a mutation means something whatever was
//! done before it, and so that the smaller ones, which are what is left of a failure, lie further to
//! the front.

use std::ops::Range;

use proptest::prelude::*;

use crate::corpus::Input;

/// Lengths that are taken out, doubled or copied are mostly short.
const SPANS: [usize; 8] = [1, 2, 3, 5, 8, 20, 100, 1_000];

/// How often something is repeated: past the limits of names (255), lists (1,000) and texts (4,096).
const TIMES: [usize; 12] = [2, 2, 2, 3, 3, 3, 17, 17, 130, 130, 1_001, 4_100];

/// Numbers and bytes next to which programs err.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "127",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "1e308",
    "-0.0",
];
const BYTES: [u8; 12] = [0x00, 0x01, 0x7F, 0x80, 0xFF, 0xC0, b'\n', b'\r', b'"', b'\\', b'{', b'/'];

/// One change, made by [`Material::mutated`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutation {
    kind: u8,
    at: u16,
    span: u8,
    what: u16,
}

/// Any mutation.
fn any_mutation() -> impl Strategy<Value = Mutation> {
    (0..14_u8, any::<u16>(), any::<u8>(), any::<u16>())
        .prop_map(|(kind, at, span, what)| Mutation { kind, at, span, what })
}

/// A seed by its number, and up to eight mutations of it; none is the seed itself.
pub(crate) fn any_plan(seeds: usize) -> impl Strategy<Value = (usize, Vec<Mutation>)> {
    (0..seeds, prop::collection::vec(any_mutation(), 0..=8))
}

/// What mutations draw from, and how far they may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Material<'a> {
    /// The corpus.
    pub(crate) seeds: &'a [Input],
    /// Words of the target's language.
    pub(crate) words: &'a [&'a str],
    /// No input grows beyond this, in bytes.
    pub(crate) bytes_max: usize,
}

impl Material<'_> {
    /// Carries a plan out.
    pub(crate) fn mutated(self, plan: &(usize, Vec<Mutation>)) -> Input {
        let mut input = self.seeds[plan.0].clone();
        for mutation in &plan.1 {
            mutation.apply(&mut input.bytes, self);
        }
        input
    }
}

impl Mutation {
    fn apply(self, bytes: &mut Vec<u8>, material: Material<'_>) {
        let Material { seeds, words, bytes_max } = material;
        let at = share(self.at, bytes.len() + 1);
        let end = bytes.len().min(at + SPANS[usize::from(self.span) % SPANS.len()]);
        let what = usize::from(self.what);
        match self.kind {
            0 => put(bytes, at..end.min(at + 1), &[BYTES[what % BYTES.len()]]),
            1 => flip(bytes, at, what),
            2 => put(bytes, at..at, &[BYTES[what % BYTES.len()]]),
            3 => put(bytes, at..end, &[]),
            4 => bytes.truncate(at),
            5 => put(bytes, at..at, pick(words, what)),
            6 => put(bytes, at..end, pick(words, what)),
            7 => number(bytes, at, NUMBERS[what % NUMBERS.len()].as_bytes()),
            8 => repeat(bytes, at..end, TIMES[what % TIMES.len()], bytes_max),
            9 => put(bytes, at..at, piece(seeds, self.span, self.what)),
            10 => put(bytes, at..end, piece(seeds, self.span, self.what)),
            11 => quoted(bytes, at, pick(words, what)),
            12 => put(bytes, at..end.min(at + 1), &[self.what.to_be_bytes()[1]]),
            _ => bytes[at..end].reverse(),
        }
        bytes.truncate(bytes_max);
    }
}

/// That share of `whole`, less than it.
fn share(part: u16, whole: usize) -> usize {
    whole * usize::from(part) / (usize::from(u16::MAX) + 1)
}

fn pick<'a>(words: &[&'a str], which: usize) -> &'a [u8] {
    words.get(which % words.len().max(1)).map_or(&[], |word| word.as_bytes())
}

fn put(bytes: &mut Vec<u8>, place: Range<usize>, new: &[u8]) {
    bytes.splice(place, new.iter().copied());
}

fn flip(bytes: &mut [u8], at: usize, bit: usize) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Doubles what is there, or more.
fn repeat(bytes: &mut Vec<u8>, place: Range<usize>, times: usize, bytes_max: usize) {
    let piece = bytes[place.clone()].to_vec();
    let times = times.min(bytes_max / piece.len().max(1));
    put(bytes, place, &piece.repeat(times));
}

/// A part of any seed: half a document, or two in one.
fn piece(seeds: &[Input], length: u8, which: u16) -> &[u8] {
    let [seed, from] = which.to_be_bytes().map(usize::from);
    let seed = &seeds[seed % seeds.len()].bytes;
    let from = seed.len() * from / 256;
    &seed[from..seed.len().min(from + 4 * usize::from(length))]
}

/// Puts another number in place of the next one.
fn number(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = bytes[at..].iter().position(digit).map(|after| at + after) else { return };
    let end = bytes[start..].iter().position(|byte| !digit(byte));
    put(bytes, start..end.map_or(bytes.len(), |after| start + after), new);
}

/// Puts a word in place of what the next quotation marks enclose.
fn quoted(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let next = |from: usize, bytes: &[u8]| {
        bytes[from..].iter().position(|byte| *byte == b'"').map(|after| from + after)
    };
    let Some(start) = next(at, bytes).map(|mark| mark + 1) else { return };
    let Some(end) = next(start, bytes) else { return };
    put(bytes, start..end, new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        Input { name: String::new(), bytes: bytes.to_vec() }
    }

    #[test]
    fn each_kind_changes_what_it_says() {
        let seeds = [input(br#"{"a": 12}"#)];
        let changed = |kind, at, span, what| {
            let mut bytes = seeds[0].bytes.clone();
            let material = Material { seeds: &seeds, words: &["word"], bytes_max: 100 };
            Mutation { kind, at, span, what }.apply(&mut bytes, material);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        assert_eq!(changed(3, 0, 1, 0), "a\": 12}");
        assert_eq!(changed(4, u16::MAX / 2, 0, 0), "{\"a\"");
        assert_eq!(changed(5, 0, 0, 0), "word{\"a\": 12}");
        assert_eq!(changed(7, 0, 0, 4), "{\"a\": 255}");
        assert_eq!(changed(8, 0, 0, 3), "{{{\"a\": 12}");
        assert_eq!(changed(11, 0, 0, 0), "{\"word\": 12}");
    }

    proptest! {
        #[test]
        fn nothing_is_out_of_bounds(
            bytes in prop::collection::vec(any::<u8>(), 0..20),
            mutations in prop::collection::vec(any_mutation(), 0..8),
        ) {
            let seeds = [input(&bytes), input(b"")];
            let material = Material { seeds: &seeds, words: &["", "word"], bytes_max: 100 };
            prop_assert!(material.mutated(&(0, mutations)).bytes.len() <= 100);
        }
    }
}

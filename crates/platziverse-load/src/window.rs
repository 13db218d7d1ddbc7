//! Publishes that await their answers. Pure.

use std::collections::VecDeque;

/// Publishes that await their answers, each by a packet identifier of its own.
#[derive(Debug)]
pub(crate) struct Window<T> {
    /// In the order of their packet identifiers; nothing for one that was answered before others.
    open: VecDeque<Option<T>>,
    /// The packet identifier of the first.
    first: u16,
}

impl<T> Window<T> {
    pub(crate) fn new() -> Self {
        Self { open: VecDeque::new(), first: 1 }
    }

    /// How many packet identifiers are taken.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many have no answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.open.iter().flatten().count() as u64
    }

    /// Its packet identifier. There must be fewer than 65,535.
    pub(crate) fn push(&mut self, publish: T) -> u16 {
        self.open.push_back(Some(publish));
        packet(self.first, self.open.len() - 1)
    }

    /// Takes out the one that was answered; nothing if none awaits that answer.
    pub(crate) fn answered(&mut self, packet: u16) -> Option<T> {
        let publish = self.open.get_mut(distance(self.first, packet))?.take();
        while let Some(None) = self.open.front() {
            self.open.pop_front();
            self.first = self::packet(self.first, 1);
        }
        publish
    }
}

/// Packet identifiers go from 1 to 65,535, and round (MQTT-2.3.1-1).
fn packet(first: u16, distance: usize) -> u16 {
    let index = (usize::from(first) - 1 + distance) % usize::from(u16::MAX);
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}

/// How far `packet` is from `first`.
fn distance(first: u16, packet: u16) -> usize {
    let round = usize::from(u16::MAX);
    (usize::from(packet) + round - usize::from(first)) % round
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_identifiers_go_round() {
        assert_eq!([packet(1, 0), packet(65_535, 1), packet(65_000, 600)], [1, 1, 65]);
        for first in [1, 2, 65_535] {
            for far in [0, 1, 9_999] {
                assert_eq!(distance(first, packet(first, far)), far);
            }
        }
    }

    #[test]
    fn answers_may_come_in_any_order_but_once() {
        let mut window = Window::new();
        assert_eq!(['a', 'b', 'c'].map(|publish| window.push(publish)), [1, 2, 3]);
        assert_eq!(
            [2, 2, 9, 0].map(|packet| window.answered(packet)),
            [Some('b'), None, None, None]
        );
        assert_eq!((window.len(), window.unanswered()), (3, 2));
        assert_eq!([1, 3].map(|packet| window.answered(packet)), [Some('a'), Some('c')]);
        assert!(window.is_empty());
        assert_eq!(window.push('d'), 4);
    }
}

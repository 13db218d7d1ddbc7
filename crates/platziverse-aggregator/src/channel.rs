//! Channels: what clients choose from, and where each begins and ends in RabbitMQ.

use std::fmt;

/// Channels that there can be.
pub const CHANNELS_MAX: usize = 64;

/// A channel: its place among all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u8);

impl Channel {
    /// Its place among all channels.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Some of the channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelSet(u64);

impl ChannelSet {
    /// Adds one; whether it was not there before.
    pub fn insert(&mut self, channel: Channel) -> bool {
        let before = self.0;
        self.0 |= 1 << channel.0;
        self.0 != before
    }

    /// Takes one away; whether it was there before.
    pub fn remove(&mut self, channel: Channel) -> bool {
        let before = self.0;
        self.0 &= !(1 << channel.0);
        self.0 != before
    }

    /// Whether it is there.
    pub fn contains(self, channel: Channel) -> bool {
        self.0 & (1 << channel.0) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        (0..u8::try_from(CHANNELS_MAX).unwrap_or(u8::MAX))
            .map(Channel)
            .filter(move |channel| self.contains(*channel))
    }
}

impl FromIterator<Channel> for ChannelSet {
    fn from_iter<I: IntoIterator<Item = Channel>>(channels: I) -> Self {
        let mut set = Self::default();
        for channel in channels {
            set.insert(channel);
        }
        set
    }
}

/// All channels, as they are configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    names: Vec<String>,
    sources: Vec<String>,
}

impl Channels {
    /// The channels of these names, [`CHANNELS_MAX`] at most.
    pub fn new(names: &[String]) -> Self {
        let names: Vec<String> = names.iter().take(CHANNELS_MAX).cloned().collect();
        let sources = names.iter().map(|name| format!("OUT_{}", name.to_uppercase())).collect();
        Self { names, sources }
    }

    /// The channel of a name.
    pub fn find(&self, name: &str) -> Option<Channel> {
        position(&self.names, name)
    }

    /// The channel that a source belongs to.
    pub fn of_source(&self, source: &str) -> Option<Channel> {
        position(&self.sources, source)
    }

    /// The name of a channel.
    pub fn name(&self, channel: Channel) -> &str {
        self.names.get(channel.index()).map_or("", String::as_str)
    }

    /// Where a channel's clients get from what is sent to them: a stream of RabbitMQ.
    pub fn source(&self, channel: Channel) -> &str {
        self.sources.get(channel.index()).map_or("", String::as_str)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Channel> {
        (0..self.names.len()).filter_map(|place| u8::try_from(place).ok().map(Channel))
    }
}

fn position(names: &[String], name: &str) -> Option<Channel> {
    let place = names.iter().position(|known| known == name)?;
    u8::try_from(place).ok().map(Channel)
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_places() {
        let channels = Channels::new(&["voice", "chat", "tickets"].map(str::to_owned));
        let chat = channels.find("chat").unwrap();
        assert_eq!((channels.name(chat), channels.source(chat)), ("chat", "OUT_CHAT"));
        assert_eq!(channels.of_source("OUT_CHAT"), Some(chat));
        assert_eq!((channels.find("Chat"), channels.of_source("chat")), (None, None));
        assert_eq!(channels.iter().count(), 3);
        assert_eq!(channels.to_string(), "voice, chat, tickets");
    }

    #[test]
    fn sets_hold_each_once() {
        let channels = Channels::new(&["a", "b", "c"].map(str::to_owned));
        let [a, b, c] = ["a", "b", "c"].map(|name| channels.find(name).unwrap());
        let mut set: ChannelSet = [a, c].into_iter().collect();
        assert!(!set.insert(a) && set.insert(b) && set.remove(c) && !set.remove(c));
        assert_eq!(set.iter().collect::<Vec<_>>(), [a, b]);
        assert!(!set.is_empty() && set.contains(b) && !set.contains(c));
    }
}

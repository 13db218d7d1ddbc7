//! The channels that there are.

use crate::KitError;

/// The channels that there are.
#[derive(Debug)]
pub(crate) struct Channels(pub(crate) Vec<String>);

impl Channels {
    /// The name of a channel that there is.
    pub(crate) fn check<'a>(&self, channel: &'a str) -> Result<&'a str, KitError> {
        if self.0.iter().any(|known| known == channel) {
            return Ok(channel);
        }
        Err(KitError::UnknownChannel { channel: channel.to_owned(), known: self.0.join(", ") })
    }
}

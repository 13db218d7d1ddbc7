//! From a channel's stream to those who take it.

use platziverse_broker::aggregator::{Outbound, Target};
use platziverse_broker::{LogItem, LogReader};

use crate::channel::Channel;
use crate::core::Core;
use crate::frame;

/// Distributes what a channel's stream brings, until the process is to end.
pub(crate) async fn channel(core: &Core, channel: Channel, mut reader: LogReader) {
    let (name, Some(hub)) = (core.channels.name(channel), core.hub(channel)) else { return };
    while let Some(item) = reader.next().await {
        match item {
            LogItem::Message(offset, message) => match Outbound::read(name, message) {
                Some(Outbound { target: Target::Marker(id), .. }) => {
                    hub.skip(offset + 1);
                    core.markers.note(id);
                }
                Some(outbound) => {
                    if let Some(entry) = frame::entry(&core.channels, channel, offset, outbound) {
                        hub.distribute(entry);
                    } else {
                        core.metrics.unreadable.inc();
                        hub.skip(offset + 1);
                    }
                }
                None => hub.skip(offset + 1),
            },
            LogItem::Lost(next) => hub.lost(next),
            LogItem::Restarted => hub.restart(),
        }
    }
}

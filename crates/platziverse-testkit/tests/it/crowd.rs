//! Many clients that offer more than a gateway may hold.

use platziverse_testkit::{PATIENCE, Process, RawClient, Version};
use tokio::task::JoinSet;

const CLIENTS: u16 = 50;
const MESSAGES: u16 = 40;
const MESSAGE_BYTES: usize = 100_000;

/// What all of them offer together.
pub(crate) const CROWD_BYTES: u64 = CLIENTS as u64 * MESSAGES as u64 * MESSAGE_BYTES as u64;

/// Connected clients that have sent nothing yet.
pub(crate) struct Crowd(Vec<RawClient>);

/// Clients that send as much as is taken, and read their acknowledgements.
pub(crate) struct Offer(JoinSet<()>);

impl Crowd {
    pub(crate) async fn connect(gateway: &Process) -> Self {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let id = format!("crowd-{number}");
            clients.push(RawClient::connect(gateway.mqtt(), Version::V3, &id, 0).await);
        }
        Self(clients)
    }

    /// Offers messages on a topic that is not stored: this is about the gateway's memory alone.
    /// How long an outage holds them up, only the test knows.
    pub(crate) fn offer(self) -> Offer {
        let mut tasks = JoinSet::new();
        for mut client in self.0 {
            tasks.spawn(async move {
                let payload = vec![b'x'; MESSAGE_BYTES];
                for packet in 1..=MESSAGES {
                    let topic = "crowd/message";
                    let packet = RawClient::publish_packet(Version::V3, topic, packet, &payload);
                    client.send_untimed(&packet).await.expect("sent");
                }
                for packet in 1..=MESSAGES {
                    let answer = client.packet_untimed().await.expect("a packet");
                    assert_eq!(answer, (0x40, packet.to_be_bytes().to_vec()), "PUBACK");
                }
            });
        }
        Offer(tasks)
    }
}

impl Offer {
    /// Waits until each message is acknowledged.
    pub(crate) async fn assert_acknowledged(self) {
        let all = tokio::time::timeout(PATIENCE * 2, self.0.join_all()).await;
        assert!(all.is_ok(), "not every client of the crowd got its acknowledgements");
    }
}

//! Why a conversation ends, and how the client is told.

use std::time::Duration;

/// Why a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The client has said goodbye, or is not there any more.
    Gone,
    /// A packet is too long (RFC 6455, 7.4.1: 1009).
    TooLarge,
    /// Too many packets were none.
    BadPackets,
    /// The time of the client's token is over.
    Expired,
    /// The client reads too slowly.
    TooSlow,
    /// The client goes on with the session over another socket.
    TakenOver,
    /// The client has to come back to be told what it missed, or RabbitMQ does not say it now (1013:
    /// try again later).
    NotNow,
    /// The process ends; the client is to connect again after this time, to another one.
    Drain(Duration),
}

impl Close {
    /// Names it in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::TooLarge => "too_large",
            Self::BadPackets => "bad_packets",
            Self::Expired => "expired",
            Self::TooSlow => "too_slow",
            Self::TakenOver => "taken_over",
            Self::NotNow => "not_now",
            Self::Drain(_) => "drain",
        }
    }

    /// The code of the WebSocket's close, and the reason beside it; nothing if nobody listens.
    pub(super) fn told(self) -> Option<(u16, String)> {
        let told = |code, reason: &str| Some((code, reason.to_owned()));
        match self {
            Self::Gone => None,
            Self::TooLarge => told(1009, "the packet is too long"),
            Self::NotNow => told(1013, "come back to go on with what you have missed"),
            Self::BadPackets => told(4000, "too many packets are none"),
            Self::Expired => {
                told(4001, "the time of your token is over: come back with another one")
            }
            Self::TooSlow => told(4008, "you read too slowly: come back and go on"),
            Self::TakenOver => told(4009, "this session goes on over another socket"),
            Self::Drain(wait) => {
                let wait = wait.as_millis();
                Some((4012, format!("{{\"reconnect_after_ms\":{wait}}}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_in_a_close_frame() {
        let wait = Duration::from_secs(3);
        for close in [
            Close::TooLarge,
            Close::BadPackets,
            Close::Expired,
            Close::TooSlow,
            Close::TakenOver,
            Close::NotNow,
            Close::Drain(wait),
        ] {
            let (code, reason) = close.told().unwrap();
            // RFC 6455, 5.5: a control frame has 125 bytes.
            assert!(reason.len() <= 123 && code >= 1000, "{close:?}");
        }
        assert_eq!(Close::Gone.told(), None);
        assert_eq!(Close::Drain(wait).told().unwrap().1, r#"{"reconnect_after_ms":3000}"#);
    }
}

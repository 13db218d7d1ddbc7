//! Reason codes, and what 3.1.1 has in their place.

use std::fmt;

use super::Text;

/// A reason code (MQTT 5, section 2.4). Not each one is allowed in each packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(u8);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal;)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// What the specification calls it, in lower case.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "unknown reason",
                }
            }
        }
    };
}

reasons! {
    /// Success, normal disconnection, or QoS 0 granted.
    SUCCESS = 0x00 "success";
    /// QoS 1 granted.
    GRANTED_QOS_1 = 0x01 "granted QoS 1";
    /// A goodbye after which the will is published all the same.
    DISCONNECT_WITH_WILL = 0x04 "disconnect with will message";
    /// Stored, though nobody has subscribed.
    NO_MATCHING_SUBSCRIBERS = 0x10 "no matching subscribers";
    /// There was nothing to unsubscribe.
    NO_SUBSCRIPTION_EXISTED = 0x11 "no subscription existed";
    /// No better reason fits.
    UNSPECIFIED_ERROR = 0x80 "unspecified error";
    /// The bytes are not a valid packet.
    MALFORMED_PACKET = 0x81 "malformed packet";
    /// A valid packet where the protocol does not allow it.
    PROTOCOL_ERROR = 0x82 "protocol error";
    /// Valid, but not accepted by this server.
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83 "implementation specific error";
    /// Neither 3.1.1 nor 5.
    UNSUPPORTED_PROTOCOL_VERSION = 0x84 "unsupported protocol version";
    /// The client identifier is not allowed.
    CLIENT_IDENTIFIER_NOT_VALID = 0x85 "client identifier not valid";
    /// Wrong credentials.
    BAD_USERNAME_OR_PASSWORD = 0x86 "bad user name or password";
    /// The client may not do this.
    NOT_AUTHORIZED = 0x87 "not authorized";
    /// The server takes nobody.
    SERVER_UNAVAILABLE = 0x88 "server unavailable";
    /// The server has too much to do.
    SERVER_BUSY = 0x89 "server busy";
    /// The server goes down.
    SERVER_SHUTTING_DOWN = 0x8B "server shutting down";
    /// Enhanced authentication is not there.
    BAD_AUTHENTICATION_METHOD = 0x8C "bad authentication method";
    /// Nothing was heard for one and a half times the keep-alive.
    KEEP_ALIVE_TIMEOUT = 0x8D "keep alive timeout";
    /// Another connection has the same client identifier.
    SESSION_TAKEN_OVER = 0x8E "session taken over";
    /// The filter is not accepted.
    TOPIC_FILTER_INVALID = 0x8F "topic filter invalid";
    /// The topic name is not accepted.
    TOPIC_NAME_INVALID = 0x90 "topic name invalid";
    /// The packet identifier is being used.
    PACKET_IDENTIFIER_IN_USE = 0x91 "packet identifier in use";
    /// The packet identifier is not known.
    PACKET_IDENTIFIER_NOT_FOUND = 0x92 "packet identifier not found";
    /// More unacknowledged publishes than the Receive Maximum.
    RECEIVE_MAXIMUM_EXCEEDED = 0x93 "receive maximum exceeded";
    /// 0, or more than the Topic Alias Maximum.
    TOPIC_ALIAS_INVALID = 0x94 "topic alias invalid";
    /// Larger than the Maximum Packet Size.
    PACKET_TOO_LARGE = 0x95 "packet too large";
    /// A limit is reached.
    QUOTA_EXCEEDED = 0x97 "quota exceeded";
    /// An operator has ended it.
    ADMINISTRATIVE_ACTION = 0x98 "administrative action";
    /// The payload is not what its topic asks for.
    PAYLOAD_FORMAT_INVALID = 0x99 "payload format invalid";
    /// Retained messages are not there.
    RETAIN_NOT_SUPPORTED = 0x9A "retain not supported";
    /// Shared subscriptions are not there.
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E "shared subscriptions not supported";
}

impl Reason {
    /// The reason with this code.
    pub const fn from_code(code: u8) -> Self {
        Self(code)
    }

    /// The code, as it is sent in MQTT 5.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Whether it is a failure: 0x80 or greater.
    pub const fn is_failure(self) -> bool {
        self.0 >= 0x80
    }

    /// The CONNACK return code of MQTT 3.1.1, section 3.2.2.3; `None` where the connection is
    /// closed without an answer.
    pub fn connack_v3(self) -> Option<u8> {
        match self {
            Self::SUCCESS => Some(0),
            Self::UNSUPPORTED_PROTOCOL_VERSION => Some(1),
            Self::CLIENT_IDENTIFIER_NOT_VALID => Some(2),
            Self::SERVER_UNAVAILABLE
            | Self::SERVER_BUSY
            | Self::SERVER_SHUTTING_DOWN
            | Self::QUOTA_EXCEEDED
            | Self::UNSPECIFIED_ERROR => Some(3),
            Self::BAD_USERNAME_OR_PASSWORD => Some(4),
            Self::NOT_AUTHORIZED | Self::RETAIN_NOT_SUPPORTED => Some(5),
            _ => None,
        }
    }

    /// The SUBACK return code of MQTT 3.1.1, section 3.9.3: the granted QoS, or 0x80.
    pub fn suback_v3(self) -> u8 {
        if self.is_failure() { 0x80 } else { self.0 }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.0, self.name())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A reason, and the Reason String that says more to a person (MQTT 5, section 3.1.2.11.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The code.
    pub reason: Reason,
    /// The words; left out where the client does not want them or cannot take them.
    pub text: Option<Text>,
}

impl Told {
    /// A reason with words.
    pub fn new(reason: Reason, text: impl Into<Text>) -> Self {
        Self { reason, text: Some(text.into()) }
    }
}

impl From<Reason> for Told {
    fn from(reason: Reason) -> Self {
        Self { reason, text: None }
    }
}

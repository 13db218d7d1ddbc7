//! Refusals as gRPC shows them.

use platziverse_rpc::refusal;
use tonic::Status;

use crate::core::{Code, Refusal};

impl From<Refusal> for Status {
    fn from(Refusal { code, detail, retry_after }: Refusal) -> Self {
        refusal(status(code), code.as_str(), detail, retry_after)
    }
}

/// The kind of status that goes with a code, as `google.rpc.Code` describes them.
fn status(code: Code) -> tonic::Code {
    match code {
        Code::UnknownKey => tonic::Code::Unauthenticated,
        Code::InvalidName | Code::InvalidRequest | Code::TooLarge => tonic::Code::InvalidArgument,
        Code::UnknownTopic | Code::UnknownQueue | Code::Empty | Code::NotFound => {
            tonic::Code::NotFound
        }
        Code::AlreadyExists | Code::AlreadySubscribed => tonic::Code::AlreadyExists,
        Code::NotCreator | Code::NotSubscribed | Code::RegistrationClosed => {
            tonic::Code::PermissionDenied
        }
        Code::LeaseGone | Code::HasObjects => tonic::Code::FailedPrecondition,
        Code::TooManySubscribers | Code::TooManyRequests | Code::QueueFull => {
            tonic::Code::ResourceExhausted
        }
        Code::RequestTimeout => tonic::Code::DeadlineExceeded,
        Code::MethodNotAllowed => tonic::Code::Unimplemented,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::BeingDeleted => tonic::Code::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use platziverse_rpc::code_of;

    use super::*;

    #[test]
    fn codes_and_waits_are_shown() {
        for code in Code::ALL {
            let shown = Status::from(Refusal::new(*code, "why"));
            assert_eq!(code_of(&shown).unwrap().0, code.as_str());
            assert_eq!(shown.message(), "why");
            assert_ne!(shown.code(), tonic::Code::Ok);
        }
        let wait = Duration::from_millis(250);
        let shown = Status::from(Refusal::too_many("slower", wait));
        assert_eq!(code_of(&shown).unwrap().1, Some(wait));
    }

    #[test]
    fn callers_without_codes_know_what_to_try_again() {
        for (code, wanted) in [
            (Code::Unavailable, tonic::Code::Unavailable),
            (Code::UnknownKey, tonic::Code::Unauthenticated),
            (Code::UnknownQueue, tonic::Code::NotFound),
            (Code::TooManyRequests, tonic::Code::ResourceExhausted),
            (Code::TooLarge, tonic::Code::InvalidArgument),
        ] {
            assert_eq!(status(code), wanted, "{code}");
        }
    }
}

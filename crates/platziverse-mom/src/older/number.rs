//! How failures are told: by two numbers.

use crate::core::Code;

/// That all went well.
pub(super) const DONE: i32 = 200;

/// What a failure is called. Consumers ask again as long as they are told 400, and take everything
/// else for an answer; so 400 is also what may do a little later.
pub(super) const fn number(code: Code) -> i32 {
    match code {
        Code::NotSubscribed
        | Code::AlreadySubscribed
        | Code::Empty
        | Code::TooManyRequests
        | Code::QueueFull
        | Code::RequestTimeout
        | Code::Unavailable => 400,
        Code::UnknownKey
        | Code::InvalidName
        | Code::UnknownTopic
        | Code::UnknownQueue
        | Code::AlreadyExists
        | Code::NotCreator
        | Code::TooManySubscribers
        | Code::LeaseGone
        | Code::TooLarge
        | Code::InvalidRequest
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::RegistrationClosed
        | Code::HasObjects
        | Code::BeingDeleted => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_number() {
        let table = [
            (Code::UnknownKey, 500),
            (Code::UnknownTopic, 500),
            (Code::UnknownQueue, 500),
            (Code::AlreadyExists, 500),
            (Code::BeingDeleted, 500),
            (Code::NotCreator, 500),
            (Code::NotSubscribed, 400),
            (Code::AlreadySubscribed, 400),
            (Code::Empty, 400),
            // A field or the key is missing, or something is not as it must be.
            (Code::InvalidRequest, 500),
            (Code::InvalidName, 500),
            (Code::TooLarge, 500),
            (Code::TooManySubscribers, 500),
            (Code::RegistrationClosed, 500),
            // Later it may do.
            (Code::Unavailable, 400),
            (Code::TooManyRequests, 400),
            (Code::RequestTimeout, 400),
            (Code::QueueFull, 400),
            // The older wire asks for nothing that ends like this.
            (Code::LeaseGone, 500),
            (Code::NotFound, 500),
            (Code::MethodNotAllowed, 500),
            (Code::HasObjects, 500),
        ];
        for (code, wanted) in table {
            assert_eq!(number(code), wanted, "{code}");
        }
        for code in Code::ALL {
            assert!(table.iter().any(|(known, _)| known == code), "{code} is not in the table");
        }
    }
}

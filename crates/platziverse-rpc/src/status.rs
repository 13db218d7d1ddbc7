//! Errors as they are on the wire: a status whose details carry a stable code.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Whose codes they are, in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "platziverse";

/// A status that carries a stable code and, if the caller is to wait, for how long.
pub fn refusal(
    status: Code,
    code: &str,
    detail: impl Into<String>,
    retry_after: Option<Duration>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(code, DOMAIN, HashMap::new());
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(status, detail, details)
}

/// The stable code that a status carries, and how long to wait before the next try.
///
/// A status that comes from elsewhere, such as a lost connection, carries none.
pub fn code_of(status: &Status) -> Option<(String, Option<Duration>)> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
    let retry_after = details.retry_info().and_then(|info| info.retry_delay);
    Some((info.reason.clone(), retry_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_travel_in_the_details() {
        let wait = Some(Duration::from_millis(1500));
        let status = refusal(Code::ResourceExhausted, "too_many_requests", "slower", wait);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "slower");
        assert_eq!(code_of(&status), Some(("too_many_requests".to_owned(), wait)));
        let status = refusal(Code::NotFound, "unknown_queue", "none", None);
        assert_eq!(code_of(&status), Some(("unknown_queue".to_owned(), None)));
        assert_eq!(code_of(&Status::unavailable("gone")), None);
    }
}

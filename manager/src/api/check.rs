//! Checks that several questions share: what a session says about itself, and its text.

use chorus_protocol::{MAX_UNPLANNED_BYTES, Reason, ServiceError, request};
use chorus_text::TextError;

/// The longest inbox, in bytes: a prefix, the client library's own id, and the session.
const MAX_INBOX_BYTES: usize = 256;

/// Checks the subject at which workers shall find a session: it is published to, so it holds no wildcard and no gap.
///
/// # Errors
/// INVALID_REQUEST/malformed naming `inbox`.
pub(crate) fn check_inbox(inbox: &str) -> Result<(), ServiceError> {
    let wrong = |why: &str| {
        let message =
            format!("inbox {:?} is not a subject: {why}", inbox.chars().take(64).collect::<String>());
        Err(ServiceError::field(Reason::Malformed, "inbox", message))
    };
    if inbox.len() > MAX_INBOX_BYTES {
        return wrong("it is longer than 256 bytes");
    }
    if inbox.split('.').any(str::is_empty) {
        return wrong("a token of it is empty");
    }
    if inbox.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>')) {
        return wrong("it holds white space, a control character or a wildcard");
    }
    // A session's inbox is never a subject of the fleet: workers must not be made to speak there.
    if inbox.starts_with("tts.") || inbox.starts_with('$') {
        return wrong("it belongs to the fleet or to the broker");
    }
    Ok(())
}

/// Checks a text's size and characters; it may be empty.
///
/// # Errors
/// INVALID_REQUEST: too_large, or malformed where it holds control characters.
pub(crate) fn check_text(field: &str, text: &str) -> Result<(), ServiceError> {
    request::check_text(text).map_err(|error| error.with("field", field))?;
    chorus_text::check_text(text).map_err(|error| {
        let (TextError::Nul { position_bytes } | TextError::Control { position_bytes, .. }) = error;
        ServiceError::field(Reason::Malformed, field, error.to_string()).with("positionBytes", position_bytes)
    })
}

/// Checks the text of an advance.
///
/// # Errors
/// As [`check_text`]; too_large over [`MAX_UNPLANNED_BYTES`].
pub(crate) fn check_unplanned(text: &str) -> Result<(), ServiceError> {
    if text.len() > MAX_UNPLANNED_BYTES {
        let message =
            format!("text is {} bytes; at most {MAX_UNPLANNED_BYTES} are planned at a time", text.len());
        return Err(
            ServiceError::field(Reason::TooLarge, "text", message).with("maxBytes", MAX_UNPLANNED_BYTES)
        );
    }
    check_text("text", text)
}

/// Checks a list's length.
///
/// # Errors
/// INVALID_REQUEST/too_large naming the field.
pub(crate) fn check_count(field: &str, count: usize, max: usize) -> Result<(), ServiceError> {
    if count <= max {
        return Ok(());
    }
    let message = format!("{field} has {count} entries; at most {max} are taken at a time");
    Err(ServiceError::field(Reason::TooLarge, field, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inboxes_are_plain_subjects() {
        assert!(check_inbox("_INBOX.abc.0123").is_ok());
        let long = "a".repeat(300);
        for bad in
            ["", "a..b", "a.*", ">", "a b", "a\nb", "tts.jobs.x.high", "$JS.API.x", ".a", long.as_str()]
        {
            let error = check_inbox(bad).unwrap_err();
            assert_eq!(error.details.unwrap()["field"], "inbox", "{bad:?}");
        }
    }

    #[test]
    fn text_faults_name_their_field_and_place() {
        let details = |r: Result<(), ServiceError>| r.unwrap_err().details.unwrap();
        assert_eq!(details(check_text("text", "a\u{1b}b"))["positionBytes"], 1);
        assert_eq!(details(check_text("retries.text", "a\0"))["field"], "retries.text");
        assert_eq!(details(check_unplanned(&"a".repeat(MAX_UNPLANNED_BYTES + 1)))["reason"], "too_large");
        assert!(check_unplanned("").is_ok());
        assert!(check_count("seqs", 3, 2).is_err());
    }
}

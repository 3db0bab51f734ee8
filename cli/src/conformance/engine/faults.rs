//! What an engine must survive.

use chorus_protocol::pipe::MAX_FRAME_BYTES;
use serde_json::{Value, json};

use super::lab::Lab;
use crate::conformance::common::{self, oversized_frame};
use crate::conformance::message::Dialect;
use crate::conformance::report::{Checked, Trouble, not_applicable};

/// Longer than any line of ours: an engine may answer it or refuse it.
const LONG_LINE_BYTES: usize = 2 * 1024 * 1024;

/// A method that is none.
pub(super) async fn unknown_method(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    common::unknown_method(lab.talk().await?, within).await
}

/// Bytes that are no message.
pub(super) async fn malformed(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    common::survives_garbage(lab.talk().await?, within).await
}

/// A message beyond the limit. After a frame the boundary is lost, so an engine may end; after a line it goes on.
pub(super) async fn oversized(lab: &mut Lab) -> Checked {
    let (within, end) = (lab.patience.answer, lab.patience.end);
    if lab.talk().await?.dialect == Dialect::Frames {
        let mut talk = lab.take_talk().await?;
        let checked = oversized_frame(&mut talk, MAX_FRAME_BYTES, end).await;
        talk.wire.stop().await;
        return checked;
    }
    let talk = lab.talk().await?;
    let long = Value::String("x".repeat(LONG_LINE_BYTES));
    let line = talk.ask(json!({"method": "ping", "padding": long}));
    let ping = talk.ask(json!({"method": "ping"}));
    talk.gather(&[line, ping], within).await?;
    Ok(None)
}

/// There is nothing to cancel where that was not declared.
pub(super) fn declared(lab: &Lab) -> Result<(), Trouble> {
    let declares = lab.hello.as_ref().is_some_and(|hello| hello.capabilities.cancel);
    if declares { Ok(()) } else { Err(not_applicable("capabilities.cancel is not declared")) }
}

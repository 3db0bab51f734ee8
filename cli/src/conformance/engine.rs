//! The rules of an engine, and the order in which they are tried.

mod faults;
mod greeting;
mod lab;
mod speech;
mod under_worker;

use serde_json::json;

use super::Patience;
use super::common;
use super::message::Dialect;
use super::report::{Checked, Report, Rule, not_applicable, rule};
use super::wire::Program;
use crate::args::EngineCheckArgs;
use crate::error::CliError;
use crate::ui::Spinner;
use lab::Lab;

const PIPE: &str = "The engine pipe";
const RULES: &str = "Rules of an engine";
const ENVELOPE: &str = "The envelope (2.0 and 2.1)";
const BARE: &str = "Version 1.0";

static HANDSHAKE: Rule = rule("handshake", "it says which version it speaks, and what it can do", PIPE);
static VERSION_REFUSED: Rule = rule("version-refused", "a range that it does not speak is refused", RULES);
static LOAD: Rule = rule("load", "a model is loaded, and its rate told", PIPE);
static SYNTHESIS: Rule = rule("synthesis", "a text becomes whole, audible audio", PIPE);
static LIVENESS: Rule = rule("liveness", "it answers pings while it speaks", PIPE);
static PING: Rule = rule("ping", "a ping is answered", PIPE);
static STATUS: Rule = rule("status", "status is answered", BARE);
static UNKNOWN_FIELDS: Rule = rule("unknown-fields", "fields that it does not know are ignored", ENVELOPE);
static UNKNOWN_METHOD: Rule = rule("unknown-method", "a method that is none is answered by an error", RULES);
static MALFORMED: Rule = rule("malformed", "what is no message is survived", RULES);
static OVERSIZED: Rule = rule("oversized", "what is too large is refused or survived", RULES);
static IN_FLIGHT: Rule = rule("in-flight", "several requests are each answered by their own answer", PIPE);
static CANCEL: Rule = rule("cancel", "a request that is given up ends soon", RULES);
static UNLOAD: Rule =
    rule("unload", "a model that is unloaded speaks no more until it is loaded again", RULES);
static SHUTDOWN: Rule = rule("shutdown", "shutdown ends the process", RULES);
static END_OF_INPUT: Rule = rule("end-of-input", "the end of its input ends the process", PIPE);
static CORRELATION: Rule = rule("correlation", "every answer names its request, once", ENVELOPE);
static FRAMING: Rule = rule("framing", "every message is one whole frame, or one whole line", PIPE);
static CLEAN_OUTPUT: Rule = rule("clean-output", "there is nothing but messages between messages", RULES);
static UNDER_A_WORKER: Rule = rule("under-a-worker", "a worker's own client is served", PIPE);

/// All of them, in order.
#[cfg(test)]
pub(super) static ALL: [&Rule; 20] = [
    &HANDSHAKE,
    &VERSION_REFUSED,
    &LOAD,
    &SYNTHESIS,
    &LIVENESS,
    &PING,
    &STATUS,
    &UNKNOWN_FIELDS,
    &UNKNOWN_METHOD,
    &MALFORMED,
    &OVERSIZED,
    &IN_FLIGHT,
    &CANCEL,
    &UNLOAD,
    &SHUTDOWN,
    &END_OF_INPUT,
    &CORRELATION,
    &FRAMING,
    &CLEAN_OUTPUT,
    &UNDER_A_WORKER,
];

/// Tries every rule.
pub(super) async fn check(
    args: &EngineCheckArgs,
    program: Program,
    patience: Patience,
    spinner: &Spinner,
) -> Result<Report, CliError> {
    let mut lab = Lab::new(args, program, patience)?;
    tries! { lab, spinner;
        HANDSHAKE: Lab::handshake;
        VERSION_REFUSED: greeting::version_refused;
        LOAD: Lab::load;
        SYNTHESIS: speech::synthesis;
        LIVENESS: speech::liveness;
        PING: ping;
        STATUS: status;
        UNKNOWN_FIELDS: speech::unknown_fields;
        UNKNOWN_METHOD: faults::unknown_method;
        MALFORMED: faults::malformed;
        OVERSIZED: faults::oversized;
        IN_FLIGHT: speech::in_flight;
        CANCEL: speech::cancel;
        UNLOAD: speech::unload;
        SHUTDOWN: shutdown;
        END_OF_INPUT: end_of_input;
        CORRELATION: correlation;
        FRAMING: framing;
        CLEAN_OUTPUT: clean_output;
        UNDER_A_WORKER: under_worker::check;
    }
    Ok(lab.finish().await)
}

async fn ping(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    common::answered(lab.talk().await?, "ping", within).await
}

async fn status(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    let talk = lab.talk().await?;
    if talk.dialect != Dialect::Bare {
        return Err(not_applicable("status is asked of engines of 1.0 only"));
    }
    common::answered(talk, "status", within).await
}

async fn shutdown(lab: &mut Lab) -> Checked {
    let (within, expected) = (lab.patience.end, "an orderly end of the process after shutdown");
    let mut talk = lab.take_talk().await?;
    let _answered_or_not = talk.ask(json!({"method": "shutdown"}));
    let ended = common::wait(&mut talk, within, expected).await;
    talk.wire.stop().await;
    ended
}

async fn end_of_input(lab: &mut Lab) -> Checked {
    let (within, expected) = (lab.patience.end, "the end of the process when its input has ended");
    let mut talk = lab.take_talk().await?;
    talk.wire.close();
    let ended = common::wait(&mut talk, within, expected).await;
    talk.wire.stop().await;
    ended
}

async fn correlation(lab: &mut Lab) -> Checked {
    lab.conversed()?;
    if lab.dialect == Some(Dialect::Bare) {
        return Err(not_applicable("1.0 has no ids"));
    }
    common::nothing_odd(&lab.seen.look().correlation, "answers that name their request in correlationId")
}

async fn framing(lab: &mut Lab) -> Checked {
    common::nothing_odd(&lab.seen.look().framing, "messages that are whole")
}

/// In lines a worker skips what is no answer, so it is told and no fault; in frames it would end the engine.
async fn clean_output(lab: &mut Lab) -> Checked {
    lab.conversed()?;
    let noise = lab.seen.look().noise.clone();
    if lab.dialect == Some(Dialect::Frames) {
        return common::nothing_odd(&noise, "frames that are messages");
    }
    Ok(noise.first().map(|first| format!("a worker skips what it prints, such as: {first}")))
}

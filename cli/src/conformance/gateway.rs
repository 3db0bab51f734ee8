//! The rules of a gateway, and the order in which they are tried: once in each version that it speaks.

mod files;
mod fleet;
mod greeting;
mod lab;
mod requests;
mod streams;

use serde_json::json;

use super::Patience;
use super::common;
use super::message::Dialect;
use super::report::{Checked, Report, Rule, not_applicable, rule, unmet};
use super::wire::{Heard, Program};
use crate::args::GatewayCheckArgs;
use crate::error::CliError;
use crate::ui::Spinner;
use lab::Lab;

const STDIO: &str = "stdio: a parent and its gateway";
const RULES: &str = "Rules of a gateway";
const ENVELOPE: &str = "The envelope (2.0 and 2.1)";
const ERRORS: &str = "Errors";

static HELLO: Rule = rule("hello", "the highest version that both sides speak is agreed on", ENVELOPE);
static VERSION_REFUSED: Rule = rule("version-refused", "a range that it does not speak is refused", RULES);
static SYNTHESIS: Rule = rule("synthesis", "a text becomes audible audio", STDIO);
static PING: Rule = rule("ping", "a ping is answered", STDIO);
static STATUS: Rule = rule("status", "status is answered", STDIO);
static UNKNOWN_FIELDS: Rule = rule("unknown-fields", "fields that it does not know are ignored", ENVELOPE);
static UNKNOWN_METHOD: Rule = rule("unknown-method", "a method that is none is answered by an error", RULES);
static TYPED_ERRORS: Rule =
    rule("typed-errors", "an error says what is wrong, by its code and field", ERRORS);
static MALFORMED: Rule = rule("malformed", "what is no message is survived", RULES);
static OVERSIZED: Rule = rule("oversized", "what is too large is refused", RULES);
static IN_FLIGHT: Rule =
    rule("in-flight", "many requests at once are each answered by their own answer", STDIO);
static OUTPUT_PATH: Rule = rule("output-path", "outputPath holds the audio when the answer comes", RULES);
static OUTPUT_ATOMIC: Rule = rule("output-atomic", "a file appears whole or not at all", RULES);
static OUTPUT_REFUSED: Rule = rule("output-refused", "a path that cannot be a file is refused", RULES);
static OUTPUT_CONFINED: Rule = rule("output-confined", "no path leads out of the gateway's folder", RULES);
static STREAM: Rule = rule("stream", "a stream is pieces in order, the last one marked, and a result", STDIO);
static STREAM_WINDOW: Rule = rule("stream-window", "no more pieces come than were granted", RULES);
static STREAM_UNREAD: Rule = rule("stream-unread", "a parent that reads late loses nothing", RULES);
static CANCEL: Rule = rule("cancel", "a request that is given up ends soon, as cancelled", RULES);
static ID_REUSED: Rule = rule("id-reused", "the id of a request under way is refused", RULES);
static METRICS: Rule = rule("metrics", "metrics are answered, and count what was spoken", STDIO);
static LOAD_MODEL: Rule =
    rule("load-model", "a model is loaded by its name, and how it stands is told", RULES);
static UNLOAD_MODEL: Rule =
    rule("unload-model", "a model that is unloaded can be loaded again and speaks", RULES);
static SUBSCRIBE: Rule =
    rule("subscribe", "news come to who asked for them, of the kinds that were asked for", RULES);
static SHUTDOWN: Rule = rule("shutdown", "shutdown is answered and ends the process", RULES);
static END_OF_INPUT: Rule = rule("end-of-input", "what was asked is answered when the input ends", RULES);
static CORRELATION: Rule = rule("correlation", "every answer names its request, once", ENVELOPE);
static FRAMING: Rule = rule("framing", "every message is one whole line, or one whole frame", STDIO);
static CLEAN_OUTPUT: Rule = rule("clean-output", "standard output holds nothing but messages", RULES);

/// All of them, in order.
#[cfg(test)]
pub(super) static ALL: [&Rule; 29] = [
    &HELLO,
    &VERSION_REFUSED,
    &SYNTHESIS,
    &PING,
    &STATUS,
    &UNKNOWN_FIELDS,
    &UNKNOWN_METHOD,
    &TYPED_ERRORS,
    &MALFORMED,
    &OVERSIZED,
    &IN_FLIGHT,
    &OUTPUT_PATH,
    &OUTPUT_ATOMIC,
    &OUTPUT_REFUSED,
    &OUTPUT_CONFINED,
    &STREAM,
    &STREAM_WINDOW,
    &STREAM_UNREAD,
    &CANCEL,
    &ID_REUSED,
    &METRICS,
    &LOAD_MODEL,
    &UNLOAD_MODEL,
    &SUBSCRIBE,
    &SHUTDOWN,
    &END_OF_INPUT,
    &CORRELATION,
    &FRAMING,
    &CLEAN_OUTPUT,
];

/// Tries every rule.
pub(super) async fn check(
    args: &GatewayCheckArgs,
    program: Program,
    patience: Patience,
    spinner: &Spinner,
) -> Result<Report, CliError> {
    let mut lab = Lab::new(args, program, patience)?;
    tries! { lab, spinner;
        HELLO: greeting::hello;
        VERSION_REFUSED: greeting::version_refused;
    }
    for dialect in lab.dialects.clone() {
        lab.turn_to(dialect).await;
        tries! { lab, spinner;
            SYNTHESIS: requests::synthesis;
            PING: ping;
            STATUS: status;
            UNKNOWN_FIELDS: requests::unknown_fields;
            UNKNOWN_METHOD: unknown_method;
            TYPED_ERRORS: requests::typed_errors;
            MALFORMED: malformed;
            OVERSIZED: requests::oversized;
            IN_FLIGHT: requests::in_flight;
            OUTPUT_PATH: files::output_path;
            OUTPUT_ATOMIC: files::output_atomic;
            OUTPUT_REFUSED: files::output_refused;
            OUTPUT_CONFINED: files::output_confined;
            STREAM: streams::stream;
            STREAM_WINDOW: streams::window;
            STREAM_UNREAD: streams::unread;
            CANCEL: streams::cancel;
            ID_REUSED: streams::id_reused;
            METRICS: fleet::metrics;
            LOAD_MODEL: fleet::load_model;
            UNLOAD_MODEL: fleet::unload_model;
            SUBSCRIBE: fleet::subscribe;
            SHUTDOWN: shutdown;
            END_OF_INPUT: end_of_input;
        }
    }
    lab.turn_away().await;
    tries! { lab, spinner;
        CORRELATION: correlation;
        FRAMING: framing;
        CLEAN_OUTPUT: clean_output;
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
    if talk.dialect == Dialect::Bare {
        return common::answered(talk, "status", within).await;
    }
    fleet::status(talk, within).await
}

async fn malformed(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    common::survives_garbage(lab.talk().await?, within).await
}

async fn unknown_method(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    common::unknown_method(lab.talk().await?, within).await
}

async fn shutdown(lab: &mut Lab) -> Checked {
    let within = lab.patience.end;
    let mut talk = lab.take_talk().await?;
    let asked = talk.ask(json!({"method": "shutdown"}));
    let ended = async {
        talk.gather(std::slice::from_ref(&asked), within).await?;
        common::wait(&mut talk, within, "an orderly end of the process after shutdown").await
    };
    let ended = ended.await;
    talk.wire.stop().await;
    ended
}

async fn end_of_input(lab: &mut Lab) -> Checked {
    let (answer, end) = (lab.patience.answer, lab.patience.end);
    let request = lab.request("The last words.");
    let mut talk = lab.take_talk().await?;
    let _its_only_request = talk.ask(request);
    talk.wire.close();
    let (heard, exit) = talk.wire.ended(answer + end).await;
    // It is the only one that was asked for; whether it names its request is for another check.
    let was_answered = heard.iter().any(|one| matches!(one, Heard::Message(message) if !message.failed()));
    talk.aftermath(heard);
    talk.wire.stop().await;
    match exit {
        _ if !was_answered => Err(unmet("an answer to what was asked before the input ended", "none")),
        None => Err(unmet("the end of the process when its input has ended", "it still ran and was killed")),
        Some(exit) if !exit.success() => Err(unmet("exit code 0", exit.to_string())),
        Some(_) => Ok(None),
    }
}

async fn correlation(lab: &mut Lab) -> Checked {
    lab.conversed()?;
    if lab.dialects == [Dialect::Bare] {
        return Err(not_applicable("1.0 has no ids"));
    }
    common::nothing_odd(&lab.seen.look().correlation, "answers that name their request in correlationId")
}

async fn framing(lab: &mut Lab) -> Checked {
    common::nothing_odd(&lab.seen.look().framing, "messages that are whole")
}

async fn clean_output(lab: &mut Lab) -> Checked {
    lab.conversed()?;
    common::nothing_odd(&lab.seen.look().noise, "nothing but messages on standard output")
}

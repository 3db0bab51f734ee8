//! What to do about failures of the broker and of the fleet: one line each.

use chorus_bus::BusErrorKind;
use chorus_protocol::{Reason, ServiceError};
use serde_json::Value;

pub(super) fn bus_hint(kind: BusErrorKind) -> &'static str {
    match kind {
        BusErrorKind::Unreachable | BusErrorKind::Disconnected | BusErrorKind::Timeout => {
            "check that a nats-server runs at this address; without --nats, chorus starts one itself"
        }
        BusErrorKind::Unauthorized => {
            "set CHORUS_NATS_TOKEN, CHORUS_NATS_USER and CHORUS_NATS_PASSWORD, or CHORUS_NATS_CREDS_FILE"
        }
        BusErrorKind::NoJetStream => "start that server with `nats-server -js`",
        BusErrorKind::OldServer => {
            "install nats-server 2.11 or newer, or let chorus start its own (no --nats)"
        }
        BusErrorKind::Config => "an address looks like nats://127.0.0.1:4222",
        BusErrorKind::Cancelled
        | BusErrorKind::TooLarge
        | BusErrorKind::NotFound
        | BusErrorKind::Malformed
        | BusErrorKind::Refused => "CHORUS_LOG=debug shows what was asked and answered",
    }
}

pub(super) fn service_hint(error: &ServiceError) -> String {
    let known = error.details.as_ref().and_then(|details| details.get("known")).and_then(Value::as_array);
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        let names: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
        return format!("there are: {}", names.join(", "));
    }
    let hint = match error.reason() {
        Some(Reason::TooLarge) => "send the text in pieces of 256 KiB at most",
        Some(Reason::Unspeakable) => "give a text with words that this voice can say",
        Some(Reason::UnknownModel) => "`chorus models list` shows what can be asked for",
        Some(Reason::UnknownJob) => "`chorus jobs list` shows what is remembered",
        Some(Reason::NotDone) => "`chorus jobs status ID` shows how far it is",
        Some(Reason::IdReused) => "choose another --id, or leave it out",
        Some(Reason::NoManager) => "start a fleet with `chorus up`, or a manager with `chorus manager`",
        Some(Reason::NoWorker) => "start a worker with `chorus worker`; `chorus status` shows who is there",
        Some(Reason::NoBroker) => "check that the nats-server runs; `chorus status` shows whether it answers",
        Some(Reason::LoadFailed | Reason::EngineStart | Reason::EngineCrashed) => {
            "`chorus doctor` checks the engine; CHORUS_LOG=debug shows what it printed"
        }
        _ if error.retryable => "try again in a moment; `chorus status` shows how the fleet is",
        _ => "change the request as the message says",
    };
    hint.to_owned()
}

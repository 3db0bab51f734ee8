//! What each reason means to a client and to a breaker, named one by one: a change of any is a change of the protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use chorus_protocol::ErrorCode::*;
use chorus_protocol::job::OutcomeKind::{self, *};
use chorus_protocol::{ErrorCode, Reason, ServiceError};

/// The reason, its word, its code, whether the same request may succeed later, and whose fault it is when a worker says it.
const TABLE: &[(Reason, &str, ErrorCode, bool, OutcomeKind)] = &[
    (Reason::Malformed, "malformed", InvalidRequest, false, ClientFault),
    (Reason::Unspeakable, "unspeakable", InvalidRequest, false, ClientFault),
    (Reason::TooLarge, "too_large", InvalidRequest, false, ClientFault),
    (Reason::UnsupportedOption, "unsupported_option", InvalidRequest, false, ClientFault),
    (Reason::Version, "version", InvalidRequest, false, ClientFault),
    (Reason::UnknownMethod, "unknown_method", InvalidRequest, false, ClientFault),
    (Reason::IdReused, "id_reused", InvalidRequest, false, ClientFault),
    (Reason::UnknownRequest, "unknown_request", InvalidRequest, false, ClientFault),
    (Reason::UnknownJob, "unknown_job", InvalidRequest, false, ClientFault),
    (Reason::UnknownModel, "unknown_model", ModelNotFound, false, ClientFault),
    (Reason::QueueFull, "queue_full", ResourceExhausted, true, BackPressure),
    (Reason::WouldBeLate, "would_be_late", ResourceExhausted, true, BackPressure),
    (Reason::BreakerOpen, "breaker_open", ResourceExhausted, true, BackPressure),
    (Reason::NoWorker, "no_worker", ResourceExhausted, true, BackPressure),
    (Reason::NoManager, "no_manager", ResourceExhausted, true, BackPressure),
    (Reason::NoBroker, "no_broker", ResourceExhausted, true, BackPressure),
    (Reason::NotDone, "not_done", ResourceExhausted, true, BackPressure),
    (Reason::RateLimited, "rate_limited", ResourceExhausted, true, BackPressure),
    (Reason::FirstAudio, "first_audio", Timeout, true, WorkerFault),
    (Reason::AttemptTimeout, "attempt", Timeout, true, WorkerFault),
    (Reason::Stalled, "stalled", Timeout, true, WorkerFault),
    (Reason::EngineCrashed, "engine_crashed", SynthesisFailed, true, WorkerFault),
    (Reason::WorkerLost, "worker_lost", SynthesisFailed, true, WorkerFault),
    (Reason::EngineError, "engine_error", SynthesisFailed, true, WorkerFault),
    (Reason::EngineProtocol, "engine_protocol", SynthesisFailed, true, WorkerFault),
    (Reason::BadAudio, "bad_audio", SynthesisFailed, true, WorkerFault),
    (Reason::Poison, "poison", SynthesisFailed, false, WorkerFault),
    (Reason::Cancelled, "cancelled", SynthesisFailed, false, ClientFault),
    (Reason::Output, "output", SynthesisFailed, false, WorkerFault),
    (Reason::LoadFailed, "load_failed", InitializationFailed, false, WorkerFault),
    (Reason::EngineStart, "engine_start", InitializationFailed, true, WorkerFault),
];

#[test]
fn every_reason_is_in_the_table_and_is_as_it_says() {
    let named: Vec<Reason> = TABLE.iter().map(|row| row.0).collect();
    assert_eq!(named, Reason::ALL, "each reason once, in its order");
    for &(reason, word, code, retryable, outcome) in TABLE {
        let error = ServiceError::new(reason, "why");
        assert_eq!((reason.as_str(), error.reason()), (word, Some(reason)));
        assert_eq!((error.code, error.retryable), (code, retryable), "{reason:?}");
        assert_eq!(OutcomeKind::of(&error), outcome, "{reason:?}");
    }
}

/// An error of another maker may name no reason, or one that is not known here: its code says whose fault it is.
#[test]
fn without_a_known_reason_the_code_decides() {
    let codes = [
        (InvalidRequest, ClientFault),
        (ModelNotFound, ClientFault),
        (ResourceExhausted, BackPressure),
        (Timeout, WorkerFault),
        (SynthesisFailed, WorkerFault),
        (InitializationFailed, WorkerFault),
    ];
    for (code, outcome) in codes {
        let unnamed = ServiceError { code, message: "why".into(), retryable: false, details: None };
        assert_eq!(OutcomeKind::of(&unnamed), outcome, "{code:?}");
        assert_eq!(OutcomeKind::of(&unnamed.with("reason", "of_tomorrow")), outcome, "{code:?}");
    }
}

//! The W3C trace context: which trace a message belongs to, and which span sent it.
//!
//! A request without a `traceparent` gets [`TraceContext::root`]; each hop sends on [`TraceContext::child`].
//! The ids are OpenTelemetry's own types, so an exporter can take them as they are. Parsing is strict,
//! allocates nothing and takes tens of nanoseconds. Format:
//! <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// Length of a version 00 `traceparent` in bytes.
const TRACEPARENT_BYTES: usize = 55;

/// The identity of a span, as it travels between processes. Never holds the invalid all-zero ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
}

impl TraceContext {
    /// The first span of a new trace, sampled.
    pub fn root() -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace_id: ids.new_trace_id(), span_id: ids.new_span_id(), flags: TraceFlags::SAMPLED }
    }

    /// A new span in the same trace.
    pub fn child(&self) -> Self {
        Self { span_id: RandomIdGenerator::default().new_span_id(), ..*self }
    }

    /// Continues the trace named by `traceparent` with a child span, or begins a new one when there is none
    /// or it is malformed.
    pub fn continue_from(traceparent: Option<&str>) -> Self {
        traceparent.and_then(Self::parse).map_or_else(Self::root, |parent| parent.child())
    }

    /// Reads a `traceparent`; `None` when it is malformed. Versions above 00 are read as far as 00 goes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let fixed = bytes.get(..TRACEPARENT_BYTES)?;
        if fixed[2] != b'-' || fixed[35] != b'-' || fixed[52] != b'-' {
            return None;
        }
        let [version] = lower_hex::<1>(&fixed[..2])?;
        let well_ended = match (version, bytes.get(TRACEPARENT_BYTES)) {
            (0xff, _) => false,
            (0, after) => after.is_none(),
            (_, after) => after.is_none_or(|&byte| byte == b'-'),
        };
        let trace_id = TraceId::from_bytes(lower_hex(&fixed[3..35])?);
        let span_id = SpanId::from_bytes(lower_hex(&fixed[36..52])?);
        let [flags] = lower_hex::<1>(&fixed[53..])?;
        let valid = well_ended && trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
        valid.then(|| Self { trace_id, span_id, flags: TraceFlags::new(flags) & TraceFlags::SAMPLED })
    }

    /// The `traceparent` to send.
    pub fn traceparent(&self) -> String {
        let mut text = Vec::with_capacity(TRACEPARENT_BYTES);
        text.extend_from_slice(b"00-");
        push_hex(&mut text, &self.trace_id.to_bytes());
        text.push(b'-');
        push_hex(&mut text, &self.span_id.to_bytes());
        text.push(b'-');
        push_hex(&mut text, &[self.flags.to_u8()]);
        String::from_utf8(text).expect("hex digits and dashes are ASCII")
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The span.
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }

    /// The same identity as OpenTelemetry's API takes it, as a remote parent.
    pub fn span_context(&self) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, self.flags, true, TraceState::NONE)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.traceparent())
    }
}

impl FromStr for TraceContext {
    type Err = MalformedTraceparent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or(MalformedTraceparent)
    }
}

/// A `traceparent` that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct MalformedTraceparent;

fn lower_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::Context;
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_standard_goes_round() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        assert!(context.is_sampled());
        let child = context.child();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child.span_id(), context.span_id());
        assert_eq!(TraceContext::continue_from(Some(EXAMPLE)).trace_id(), context.trace_id());
        assert_ne!(TraceContext::continue_from(Some("?")).trace_id(), context.trace_id());
    }

    #[test]
    fn agrees_with_the_propagator_of_opentelemetry() {
        let context = TraceContext::root();
        let mut carrier = HashMap::new();
        let remote = Context::new().with_remote_span_context(context.span_context());
        TraceContextPropagator::new().inject_context(&remote, &mut carrier);
        assert_eq!(carrier["traceparent"], context.traceparent());
        let read = TraceContextPropagator::new().extract(&carrier);
        assert_eq!(read.span().span_context().span_id(), context.span_id());
    }

    #[test]
    fn malformed_input_is_none() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
        let future = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more";
        assert_eq!(TraceContext::parse(future).unwrap().traceparent(), EXAMPLE);
    }

    proptest! {
        #[test]
        fn never_panics_and_what_parses_goes_round(text in "[0-9a-f-]{50,60}|.{0,80}") {
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert_eq!(TraceContext::parse(&context.traceparent()), Some(context));
            }
        }
    }
}

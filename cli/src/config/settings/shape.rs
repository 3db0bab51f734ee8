//! What a setting's text may be: checked before it is taken, and told by the JSON Schema.

use serde_json::{Value, json};

/// The shape of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Any text but an empty one.
    Text,
    /// A path; a relative one is relative to the working directory.
    Path,
    /// One or more addresses of a broker, with commas between them.
    Url,
    /// True or false.
    Truth,
    /// A whole number from the first to the second.
    Whole(u64, u64),
    /// A number from the first to the second.
    Number(f64, f64),
    /// A number over the first, up to the second.
    Over(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl Shape {
    /// Checks a text.
    pub(super) fn check(self, given: &str) -> Result<(), String> {
        let demand = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        match self {
            Self::Text | Self::Path => demand(!given.is_empty(), "is empty".into()),
            Self::Url => demand(
                given.split(',').all(|url| is_address(url.trim())),
                "is not a broker's address; one looks like nats://127.0.0.1:4222".into(),
            ),
            Self::Truth => {
                demand(matches!(given, "true" | "false"), format!("{given:?} is neither true nor false"))
            }
            Self::Whole(least, most) => demand(
                given.parse().is_ok_and(|number: u64| (least..=most).contains(&number)),
                format!("{given:?} is not a whole number from {least} {}", up_to(most)),
            ),
            Self::Number(least, most) => demand(
                given.parse().is_ok_and(|number: f64| (least..=most).contains(&number)),
                format!("{given:?} is not a number from {least} to {most}"),
            ),
            Self::Over(least, most) => demand(
                given.parse().is_ok_and(|number: f64| number > least && number <= most),
                format!("{given:?} is not a number over {least}, up to {most}"),
            ),
            Self::OneOf(words) => {
                demand(words.contains(&given), format!("{given:?} is none of {}", words.join(", ")))
            }
        }
    }

    /// Its JSON Schema.
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Text | Self::Path | Self::Url => json!({"type": "string", "minLength": 1}),
            Self::Truth => json!({"type": "boolean"}),
            Self::Whole(least, u64::MAX) => json!({"type": "integer", "minimum": least}),
            Self::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::Number(least, most) => json!({"type": "number", "minimum": least, "maximum": most}),
            Self::Over(least, most) => {
                json!({"type": "number", "exclusiveMinimum": least, "maximum": most})
            }
            Self::OneOf(words) => json!({"enum": words}),
        }
    }

    /// A shown value as JSON and TOML have it: numbers and truths bare, all else as text.
    pub(in crate::config) fn value(self, shown: &str) -> Value {
        match self {
            Self::Truth | Self::Whole(..) | Self::Number(..) | Self::Over(..) => {
                serde_json::from_str(shown).unwrap_or_else(|_| shown.into())
            }
            Self::Text | Self::Path | Self::Url | Self::OneOf(_) => shown.into(),
        }
    }
}

fn up_to(most: u64) -> String {
    if most == u64::MAX { "up".to_owned() } else { format!("to {most}") }
}

fn is_address(url: &str) -> bool {
    let rest = ["nats://", "tls://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.is_empty()) || (!url.is_empty() && !url.contains("://"))
}

//! Why an SSML document was refused, and where.

use thiserror::Error;

use crate::TextError;

/// A fault and its place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}, at byte {position_bytes} of the document")]
pub struct SsmlError {
    /// What is wrong.
    pub kind: SsmlErrorKind,
    /// Offset of the fault, or of the piece of markup that holds it, in bytes.
    pub position_bytes: usize,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SsmlErrorKind {
    /// It is too long.
    #[error("the document is longer than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// It is no well-formed XML; the reader's words.
    #[error("malformed XML: {0}")]
    Malformed(String),
    /// It ends before `</speak>`, or has no `speak` at all.
    #[error("the document ends before </speak>")]
    Incomplete,
    /// Elements are nested too deeply.
    #[error("elements are nested more than {max_depth} deep")]
    TooDeep {
        /// The limit.
        max_depth: usize,
    },
    /// Rests add up to too much.
    #[error("a pause is longer than {max_pause_ms} ms")]
    PauseTooLong {
        /// The limit.
        max_pause_ms: u32,
    },
    /// An element that is not understood.
    #[error("the element <{0}> is not supported")]
    UnknownElement(String),
    /// An attribute that is not understood where it stands, or one too many.
    #[error("the attribute {0:?} is not supported here")]
    UnknownAttribute(String),
    /// A value that is not understood or out of range.
    #[error("{value:?} is no valid {attribute}")]
    InvalidValue {
        /// The attribute.
        attribute: String,
        /// Its value.
        value: String,
    },
    /// Something stands where it may not.
    #[error("{0} is not allowed here")]
    Misplaced(String),
    /// An entity beyond `lt`, `gt`, `amp`, `apos`, `quot`.
    #[error("the entity &{0}; is not known")]
    UnknownEntity(String),
    /// A document type, which is never read.
    #[error("a document type is not allowed")]
    Doctype,
    /// A processing instruction, which is never followed.
    #[error("a processing instruction is not allowed")]
    ProcessingInstruction,
    /// A character that no text may hold.
    #[error("{0}")]
    Text(#[source] TextError),
}

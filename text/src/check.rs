//! Refusal of text that is not text: NUL bytes and other control characters.
//!
//! A request is checked once, where it enters the fleet. The error names the character and its place, so
//! that a client can find it. The segmenter itself turns any control character that reaches it into a
//! space, so unchecked text is safe too, only less well explained.

use thiserror::Error;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// The text holds a NUL character, which ends strings in many engines.
    #[error("the text holds a NUL character at byte {position_bytes}")]
    Nul {
        /// Offset of the character, in bytes of UTF-8 from the start.
        position_bytes: usize,
    },
    /// The text holds a control character that has no meaning in speech.
    #[error("the text holds the control character U+{:04X} at byte {position_bytes}", *.character as u32)]
    Control {
        /// The character.
        character: char,
        /// Offset of the character, in bytes of UTF-8 from the start.
        position_bytes: usize,
    },
}

impl TextError {
    /// Offset of the character at fault, in bytes.
    pub fn position_bytes(self) -> usize {
        match self {
            Self::Nul { position_bytes } | Self::Control { position_bytes, .. } => position_bytes,
        }
    }
}

/// Accepts text that may be spoken; tabs, line ends and form feeds are welcome, as are the C1 controls
/// (U+0080 to U+009F), which wrongly decoded books are full of and which the segmenter drops.
///
/// # Errors
/// [`TextError::Nul`] or [`TextError::Control`], for the first character at fault.
pub fn check_text(text: &str) -> Result<(), TextError> {
    let fault = text.char_indices().find(|&(_, character)| is_refused(character));
    match fault {
        None => Ok(()),
        Some((position_bytes, '\0')) => Err(TextError::Nul { position_bytes }),
        Some((position_bytes, character)) => Err(TextError::Control { character, position_bytes }),
    }
}

fn is_refused(character: char) -> bool {
    character.is_ascii_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_passes() {
        assert_eq!(check_text("Hello,\tworld.\r\nA new page:\u{c} été, 你好\u{85}"), Ok(()));
        assert_eq!(check_text(""), Ok(()));
    }

    #[test]
    fn the_first_fault_is_named_with_its_place() {
        assert_eq!(check_text("é\0"), Err(TextError::Nul { position_bytes: 2 }));
        let fault = check_text("ab\u{1b}[31m\0").unwrap_err();
        assert_eq!(fault, TextError::Control { character: '\u{1b}', position_bytes: 2 });
        assert_eq!(fault.to_string(), "the text holds the control character U+001B at byte 2");
        assert!(check_text("\u{7f}").is_err());
    }
}

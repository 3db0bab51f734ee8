//! The text to speak: an argument, a file, or stdin; read within the limit, and only as UTF-8.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use chorus_client::TextInput;
use chorus_protocol::{MAX_TEXT_BYTES, Reason, ServiceError};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::CliError;

/// What is read at a time of a text that comes in pieces.
const READ_BYTES: usize = 8 * 1024;

/// A text that is read as it is spoken.
pub type Source = Box<dyn AsyncRead + Send + Unpin>;

/// Where the text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextSource {
    /// It stands on the command line.
    Argument(OsString),
    /// `-`.
    Stdin,
    /// `--file`.
    File(PathBuf),
}

impl TextSource {
    /// From what the command line holds.
    pub fn new(argument: Option<OsString>, file: Option<PathBuf>) -> Result<Self, CliError> {
        match (argument, file) {
            (Some(dash), None) if dash == "-" => Ok(Self::Stdin),
            (Some(text), None) => Ok(Self::Argument(text)),
            (None, Some(path)) => Ok(Self::File(path)),
            (None, None) => Err(CliError::Usage("nothing to say: give a text, `-`, or --file".into())),
            (Some(_), Some(_)) => Err(CliError::Usage("give a text or --file, not both".into())),
        }
    }

    /// A text that may be longer than one message: opened, to be handed on with [`write_on`], and what it is called. `None` for
    /// one that is not, which is read and checked as a whole before anything else happens.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> Result<Option<(Source, String)>, CliError> {
        match self {
            Self::Argument(_) => Ok(None),
            Self::Stdin => {
                let stdin = chorus_runtime::stdio::stdin().map_err(CliError::io("cannot read stdin"))?;
                Ok(Some((Box::new(stdin), "stdin".to_owned())))
            }
            Self::File(path) => {
                let place = path.display().to_string();
                let unread = |source| CliError::Input { place: place.clone(), source };
                let file = File::open(path).map_err(unread)?;
                let about = file.metadata().map_err(unread)?;
                let fits = about.is_file() && about.len() <= MAX_TEXT_BYTES as u64;
                if fits { Ok(None) } else { Ok(Some((Box::new(tokio::fs::File::from_std(file)), place))) }
            }
        }
    }

    /// The text. Never more than the limit and one byte is read.
    pub fn read(self) -> Result<String, CliError> {
        let (place, bytes) = match self {
            Self::Argument(text) => ("the text".to_owned(), text.into_encoded_bytes()),
            Self::Stdin => ("stdin".to_owned(), bounded(std::io::stdin().lock(), "stdin")?),
            Self::File(path) => {
                let place = path.display().to_string();
                let file =
                    File::open(&path).map_err(|source| CliError::Input { place: place.clone(), source })?;
                let bytes = bounded(file, &place)?;
                (place, bytes)
            }
        };
        decode(&place, bytes)
    }
}

/// Hands on text as it comes from `place`, until it ends or nobody reads any more.
///
/// # Errors
/// When it cannot be read, or is no UTF-8: at the first byte that is none.
pub async fn write_on(
    mut source: impl AsyncRead + Unpin,
    place: &str,
    input: TextInput,
) -> Result<(), CliError> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let mut before = 0;
    loop {
        let read = source.read_buf(&mut bytes).await;
        let read = read.map_err(|source| CliError::Input { place: place.to_owned(), source })?;
        let valid = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            // A character may be cut in two, but not by the end.
            Err(error) if error.error_len().is_none() && read > 0 => error.valid_up_to(),
            Err(error) => {
                return Err(CliError::NotUtf8 {
                    place: place.to_owned(),
                    offset: before + error.valid_up_to(),
                });
            }
        };
        if read == 0 {
            return Ok(());
        }
        let rest = bytes.split_off(valid);
        let text = String::from_utf8(std::mem::replace(&mut bytes, rest));
        let text = text.map_err(|_| CliError::NotUtf8 { place: place.to_owned(), offset: before })?;
        before += text.len();
        if !text.is_empty() && !input.push(text).await {
            return Ok(());
        }
    }
}

fn bounded(source: impl Read, place: &str) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = source.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| CliError::Input { place: place.to_owned(), source })?;
    Ok(bytes)
}

fn decode(place: &str, bytes: Vec<u8>) -> Result<String, CliError> {
    if bytes.len() > MAX_TEXT_BYTES {
        let message = format!("{place} is longer than the {MAX_TEXT_BYTES} bytes that one request may have");
        let error = ServiceError::field(Reason::TooLarge, "text", message).with("maxBytes", MAX_TEXT_BYTES);
        return Err(CliError::Service(error));
    }
    String::from_utf8(bytes).map_err(|error| CliError::NotUtf8 {
        place: place.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_is_needed() {
        assert_eq!(TextSource::new(Some("-".into()), None).unwrap(), TextSource::Stdin);
        assert_eq!(TextSource::new(Some("a".into()), None).unwrap(), TextSource::Argument("a".into()));
        assert!(matches!(TextSource::new(None, None), Err(CliError::Usage(_))));
        assert!(matches!(TextSource::new(Some("a".into()), Some("b".into())), Err(CliError::Usage(_))));
    }

    #[test]
    fn bad_bytes_are_named_by_their_offset_and_long_texts_are_refused() {
        match decode("stdin", b"abc\xff".to_vec()) {
            Err(CliError::NotUtf8 { offset: 3, .. }) => {}
            other => panic!("{other:?}"),
        }
        match decode("x", vec![b'a'; MAX_TEXT_BYTES + 1]) {
            Err(CliError::Service(error)) => assert_eq!(error.reason(), Some(Reason::TooLarge)),
            other => panic!("{other:?}"),
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "grüß Gott").unwrap();
        assert_eq!(TextSource::File(path).read().unwrap(), "grüß Gott");
        assert!(matches!(TextSource::File("missing".into()).read(), Err(CliError::Input { .. })));
    }
}

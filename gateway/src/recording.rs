//! Speech on its way to a file or into a reply.
//!
//! Samples are kept in memory up to [`MEMORY_BYTES`] and beyond that in an unnamed temporary file, so that many long texts
//! at once do not fill the memory. At the end they are encoded with their length known. A file appears whole or not at all:
//! a draft beside it takes its name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use chorus_audio::encode::{Encoder, EncoderConfig, encoder};
use chorus_audio::pcm;
use chorus_protocol::{AudioFormat, Reason, ServiceError};
use tempfile::{NamedTempFile, SpooledTempFile};

/// Samples of one recording that are kept in memory, in bytes: 24 s at 22,050 Hz.
const MEMORY_BYTES: usize = 1 << 20;
/// Samples are encoded in blocks of so many bytes.
const BLOCK_BYTES: usize = 64 << 10;

/// See the module.
pub struct Recording {
    spool: SpooledTempFile,
    sample_rate: Option<u32>,
    bytes: u64,
}

impl Default for Recording {
    fn default() -> Self {
        Self { spool: tempfile::spooled_tempfile(MEMORY_BYTES), sample_rate: None, bytes: 0 }
    }
}

impl Recording {
    /// Takes s16le mono samples. Blocks as long as a disk does.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push(&mut self, pcm: &[u8], sample_rate: u32) -> Result<(), ServiceError> {
        self.sample_rate = Some(sample_rate);
        self.bytes += pcm.len() as u64;
        self.spool.write_all(pcm).map_err(|error| failed("the audio cannot be kept", &error))
    }

    /// Samples per second; 0 when none came.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate.unwrap_or_default()
    }

    /// As a file that appears whole or not at all.
    ///
    /// # Errors
    /// SYNTHESIS_FAILED/output.
    pub fn into_file(self, place: &Path, format: AudioFormat) -> Result<(), ServiceError> {
        let unwritten = |error: io::Error| failed(&format!("{} cannot be written", place.display()), &error);
        let mut draft = draft_beside(place).map_err(unwritten)?;
        self.encode(format, |bytes| draft.write_all(bytes).map_err(unwritten))?;
        give_name(draft, place).map_err(unwritten)
    }

    /// As a new file in the system's temporary folder; who asked for it removes it. Its path.
    ///
    /// # Errors
    /// SYNTHESIS_FAILED/output.
    pub fn into_temporary_file(self, format: AudioFormat) -> Result<std::path::PathBuf, ServiceError> {
        let unwritten = |error: io::Error| failed("a temporary file cannot be written", &error);
        let suffix = format!(".{}", format.name());
        let mut file =
            tempfile::Builder::new().prefix("chorus-").suffix(&suffix).tempfile().map_err(unwritten)?;
        self.encode(format, |bytes| file.write_all(bytes).map_err(unwritten))?;
        file.keep().map(|(_, path)| path).map_err(|kept| unwritten(kept.error))
    }

    /// As bytes, `max_bytes` at most.
    ///
    /// # Errors
    /// INVALID_REQUEST/too_large beyond them, SYNTHESIS_FAILED/output.
    pub fn into_bytes(self, format: AudioFormat, max_bytes: usize) -> Result<Vec<u8>, ServiceError> {
        let mut audio = Vec::new();
        self.encode(format, |bytes| {
            if audio.len() + bytes.len() > max_bytes {
                let message = format!(
                    "the audio is larger than {max_bytes} bytes: ask for it as a file (outputPath) or as a stream"
                );
                return Err(ServiceError::field(Reason::TooLarge, "text", message).with("maxBytes", max_bytes));
            }
            audio.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(audio)
    }

    fn encode(
        mut self,
        format: AudioFormat,
        mut write: impl FnMut(&[u8]) -> Result<(), ServiceError>,
    ) -> Result<(), ServiceError> {
        let Some(sample_rate) = self.sample_rate else {
            return Err(ServiceError::new(Reason::Output, "no audio came"));
        };
        let total_samples = Some(self.bytes / pcm::SAMPLE_BYTES as u64);
        let mut encoder = new_encoder(format, EncoderConfig { sample_rate, total_samples })?;
        let unread = |error: io::Error| failed("the audio cannot be read back", &error);
        self.spool.seek(SeekFrom::Start(0)).map_err(unread)?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = read_block(&mut self.spool, &mut block).map_err(unread)?;
            if read == 0 {
                break;
            }
            write(&push(&mut *encoder, &block[..read])?)?;
        }
        write(&finish(&mut *encoder)?)
    }
}

/// An encoder, or the error of a request that asked for it.
pub(crate) fn new_encoder(
    format: AudioFormat,
    config: EncoderConfig,
) -> Result<Box<dyn Encoder>, ServiceError> {
    encoder(format, &config).map_err(|error| ServiceError::new(Reason::Output, error.to_string()))
}

/// Encodes s16le samples.
pub(crate) fn push(encoder: &mut dyn Encoder, pcm_bytes: &[u8]) -> Result<Vec<u8>, ServiceError> {
    let samples =
        pcm::from_bytes(pcm_bytes).ok_or_else(|| ServiceError::new(Reason::Output, "half a sample came"))?;
    encoder.push(&samples).map_err(|error| ServiceError::new(Reason::Output, error.to_string()))
}

/// The last bytes of an encoder.
pub(crate) fn finish(encoder: &mut dyn Encoder) -> Result<Vec<u8>, ServiceError> {
    encoder.finish().map_err(|error| ServiceError::new(Reason::Output, error.to_string()))
}

fn failed(what: &str, error: &io::Error) -> ServiceError {
    ServiceError::new(Reason::Output, format!("{what}: {error}"))
}

fn folder(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn draft_beside(place: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".chorus-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(folder(place))
}

fn give_name(draft: NamedTempFile, place: &Path) -> io::Result<()> {
    draft.as_file().sync_all()?;
    draft.persist(place).map_err(|refused| refused.error)?;
    // The name itself reaches the disk with its folder; a file system that cannot do that has done what it can.
    let _best_effort = File::open(folder(place)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// As much as fits, so that no sample is cut in two but at the end.
fn read_block(source: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(samples: usize) -> Recording {
        let mut recording = Recording::default();
        for _ in 0..samples {
            recording.push(&[1, 0], 16_000).unwrap();
        }
        recording
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.wav");
        drop(recorded(3));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        recorded(3).into_file(&place, AudioFormat::Wav).unwrap();
        let written = std::fs::read(&place).unwrap();
        assert_eq!((&written[..4], &written[written.len() - 6..]), (&b"RIFF"[..], &[1, 0, 1, 0, 1, 0][..]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        let nothing = Recording::default().into_file(&place, AudioFormat::Wav).unwrap_err();
        assert_eq!(nothing.reason(), Some(Reason::Output));
        assert_eq!(std::fs::read(&place).unwrap(), written, "what was there is still there");
    }

    #[test]
    fn bytes_are_bounded() {
        let wav = recorded(50).into_bytes(AudioFormat::Wav, 1000).unwrap();
        assert_eq!(&wav[..4], b"RIFF");
        let error = recorded(600).into_bytes(AudioFormat::Wav, 1000).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TooLarge));
    }

    #[test]
    fn long_audio_survives_the_way_over_the_disk() {
        let mut recording = Recording::default();
        let block: Vec<u8> = (0..MEMORY_BYTES as u32 / 2).flat_map(|i| (i as i16).to_le_bytes()).collect();
        for _ in 0..3 {
            recording.push(&block, 22_050).unwrap();
        }
        let pcm = recording.into_bytes(AudioFormat::Pcm, usize::MAX).unwrap();
        assert_eq!(pcm, block.repeat(3));
    }
}

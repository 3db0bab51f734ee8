//! Where the audio goes: a file that appears whole or not at all, or stdout as a stream.
//!
//! [`Target`] is decided before anything is spoken, so that a path that cannot be written costs no speech. A [`FileWriter`]
//! keeps samples in memory, and beyond [`MEMORY_BYTES`] in an unnamed temporary file; at the end it encodes them with their
//! length known into a draft beside the target, which then takes the target's name. Whoever drops it leaves nothing behind.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chorus_audio::encode::{AudioFormat, Encoder, EncoderConfig, encoder, is_built};
use chorus_audio::pcm;
use chorus_gateway::place::Root;
use chorus_protocol::{Reason, ServiceError};
use tempfile::{NamedTempFile, SpooledTempFile};

use crate::error::CliError;

/// Samples kept in memory, in bytes: 25 minutes at 22,050 Hz.
const MEMORY_BYTES: usize = 64 << 20;
/// Samples are encoded in blocks of so many bytes.
const BLOCK_BYTES: usize = 64 << 10;
/// The file's name when none is given, without its extension.
const DEFAULT_NAME: &str = "speech";

/// Where audio goes, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A file; `None` is stdout.
    pub path: Option<PathBuf>,
    /// How it is written.
    pub format: AudioFormat,
}

impl Target {
    /// From `-o` and `--format`: the format given, else the one that the file's extension names, else wav.
    ///
    /// # Errors
    /// An unknown format, an extension that is none, or a folder that is not there.
    pub fn new(output: Option<PathBuf>, format: Option<&str>) -> Result<Self, CliError> {
        let named = format.map(named_format).transpose()?;
        let path = match output {
            Some(path) if path.as_os_str() == "-" => {
                return Ok(Self { path: None, format: built(named.unwrap_or(AudioFormat::Wav))? });
            }
            Some(path) => path,
            None => PathBuf::from(DEFAULT_NAME).with_extension(named.unwrap_or(AudioFormat::Wav).name()),
        };
        let format = match (named, path.extension()) {
            (Some(format), _) => format,
            (None, None) => AudioFormat::Wav,
            (None, Some(extension)) => named_format(&extension.to_string_lossy())?,
        };
        check_place(&path)?;
        Ok(Self { path: Some(path), format: built(format)? })
    }

    /// The same, if its file lies in this folder, whatever links and `..` its path has.
    ///
    /// # Errors
    /// INVALID_REQUEST naming `outputPath` when it does not; `Output` when there is no such folder.
    pub fn within(self, root: &Path) -> Result<Self, CliError> {
        let Some(path) = &self.path else { return Ok(self) };
        let root = Root::new(root).map_err(|source| CliError::Output { path: root.to_owned(), source })?;
        let place = root.place(&path.to_string_lossy())?;
        Ok(Self { path: Some(place), ..self })
    }
}

fn named_format(name: &str) -> Result<AudioFormat, CliError> {
    name.parse()
        .map_err(|unknown: chorus_protocol::audio::UnknownFormat| CliError::Usage(unknown.to_string()))
}

fn built(format: AudioFormat) -> Result<AudioFormat, CliError> {
    if is_built(format) {
        return Ok(format);
    }
    Err(CliError::Usage(format!("this build of chorus has no encoder for {format}")))
}

fn check_place(path: &Path) -> Result<(), CliError> {
    let refused = |kind| CliError::Output { path: path.to_owned(), source: std::io::Error::from(kind) };
    if path.is_dir() {
        return Err(refused(std::io::ErrorKind::IsADirectory));
    }
    let folder = folder(path);
    let about = folder.metadata().map_err(|source| CliError::Output { path: path.to_owned(), source })?;
    if about.is_dir() { Ok(()) } else { Err(refused(std::io::ErrorKind::NotADirectory)) }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Takes samples as they come.
pub enum Writer {
    /// Into a file.
    File(Box<FileWriter>),
    /// To stdout, as soon as they are encoded.
    Stdout(Option<Box<dyn Encoder>>, AudioFormat),
}

impl Writer {
    /// For this target.
    pub fn new(target: &Target) -> Self {
        match &target.path {
            Some(path) => Self::File(Box::new(FileWriter::new(path.clone(), target.format))),
            None => Self::Stdout(None, target.format),
        }
    }

    /// Takes s16le mono samples. Blocks for as long as a disk or a pipe does.
    pub fn push(&mut self, pcm_bytes: &[u8], sample_rate: u32) -> Result<(), CliError> {
        match self {
            Self::File(file) => file.push(pcm_bytes, sample_rate),
            Self::Stdout(encoding, format) => {
                let encoder = match encoding {
                    Some(encoder) => encoder,
                    None => encoding.insert(new_encoder(*format, sample_rate, None)?),
                };
                let encoded = encoder.push(&samples(pcm_bytes)?).map_err(not_encoded)?;
                to_stdout(&encoded)
            }
        }
    }

    /// Ends it: the file gets its name, the stream its last bytes.
    pub fn finish(self) -> Result<(), CliError> {
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout(encoder, _) => match encoder {
                Some(mut encoder) => to_stdout(&encoder.finish().map_err(not_encoded)?),
                None => Err(nothing_spoken()),
            },
        }
    }
}

/// A file on its way.
pub struct FileWriter {
    path: PathBuf,
    format: AudioFormat,
    spool: SpooledTempFile,
    sample_rate: Option<u32>,
    bytes: u64,
}

impl FileWriter {
    fn new(path: PathBuf, format: AudioFormat) -> Self {
        let spool = tempfile::spooled_tempfile(MEMORY_BYTES);
        Self { path, format, spool, sample_rate: None, bytes: 0 }
    }

    fn push(&mut self, pcm_bytes: &[u8], sample_rate: u32) -> Result<(), CliError> {
        self.sample_rate = Some(sample_rate);
        self.bytes += pcm_bytes.len() as u64;
        self.spool.write_all(pcm_bytes).map_err(CliError::io("cannot keep the audio in a temporary file"))
    }

    fn finish(mut self) -> Result<(), CliError> {
        let Some(sample_rate) = self.sample_rate else { return Err(nothing_spoken()) };
        let total_samples = self.bytes / pcm::SAMPLE_BYTES as u64;
        let mut encoder = new_encoder(self.format, sample_rate, Some(total_samples))?;
        let path = self.path.clone();
        let failed = |source| CliError::Output { path: path.clone(), source };
        let mut draft = draft_beside(&path).map_err(failed)?;
        self.spool.seek(SeekFrom::Start(0)).map_err(CliError::io("cannot read the audio back"))?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = read_block(&mut self.spool, &mut block)?;
            if read == 0 {
                break;
            }
            let encoded = encoder.push(&samples(&block[..read])?).map_err(not_encoded)?;
            draft.write_all(&encoded).map_err(failed)?;
        }
        draft.write_all(&encoder.finish().map_err(not_encoded)?).map_err(failed)?;
        give_name(draft, &path).map_err(failed)
    }
}

/// Writes a file that appears whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let writing = draft_beside(path).and_then(|mut draft| {
        draft.write_all(bytes)?;
        give_name(draft, path)
    });
    writing.map_err(|source| CliError::Output { path: path.to_owned(), source })
}

fn draft_beside(path: &Path) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".chorus-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(folder(path))
}

fn give_name(draft: NamedTempFile, path: &Path) -> std::io::Result<()> {
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|refused| refused.error)?;
    // The name itself reaches the disk with its folder; a file system that cannot do that has done what it can.
    let _best_effort = File::open(folder(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// As much as fits, so that no sample is cut in two but at the end.
fn read_block(source: &mut impl Read, block: &mut [u8]) -> Result<usize, CliError> {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..]).map_err(CliError::io("cannot read the audio back"))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn new_encoder(
    format: AudioFormat,
    sample_rate: u32,
    total_samples: Option<u64>,
) -> Result<Box<dyn Encoder>, CliError> {
    encoder(format, &EncoderConfig { sample_rate, total_samples }).map_err(not_encoded)
}

fn samples(pcm_bytes: &[u8]) -> Result<Vec<i16>, CliError> {
    pcm::from_bytes(pcm_bytes).ok_or_else(|| ServiceError::new(Reason::Output, "half a sample came").into())
}

fn not_encoded(error: chorus_audio::encode::EncodeError) -> CliError {
    ServiceError::new(Reason::Output, error.to_string()).into()
}

fn nothing_spoken() -> CliError {
    ServiceError::new(Reason::Output, "no audio came").into()
}

/// Writes bytes to stdout.
pub fn to_stdout(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|source| CliError::Output { path: PathBuf::from("stdout"), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(output: Option<&str>, format: Option<&str>) -> Result<Target, CliError> {
        Target::new(output.map(PathBuf::from), format)
    }

    #[test]
    fn the_extension_names_the_format_unless_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let format = |name: &str, given| target(Some(&file(name)), given).map(|target| target.format);
        assert_eq!(format("a.mp3", None).unwrap(), AudioFormat::Mp3);
        assert_eq!(format("a.FLAC", None).unwrap(), AudioFormat::Flac);
        assert_eq!(format("a.mp3", Some("wav")).unwrap(), AudioFormat::Wav);
        assert_eq!(format("a", None).unwrap(), AudioFormat::Wav);
        assert!(matches!(format("a.txt", None), Err(CliError::Usage(_))));
        assert!(matches!(format("a", Some("aiff")), Err(CliError::Usage(_))));
    }

    #[test]
    fn stdout_and_the_default_file() {
        assert_eq!(target(Some("-"), None).unwrap(), Target { path: None, format: AudioFormat::Wav });
        assert_eq!(target(Some("-"), Some("pcm")).unwrap().format, AudioFormat::Pcm);
        assert_eq!(target(None, None).unwrap().path.unwrap(), Path::new("speech.wav"));
        assert_eq!(target(None, Some("mp3")).unwrap().path.unwrap(), Path::new("speech.mp3"));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/a.wav");
        assert!(matches!(Target::new(Some(missing), None), Err(CliError::Output { .. })));
        assert!(matches!(Target::new(Some(folder.path().into()), None), Err(CliError::Output { .. })));
    }

    #[test]
    fn a_file_lies_in_the_folder_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        let root = folder.path().join("in");
        let within = |path: &Path| Target::new(Some(path.to_owned()), None)?.within(&root);
        let inside = within(&root.join("../in/a.mp3")).unwrap();
        assert_eq!(inside.path.unwrap(), root.canonicalize().unwrap().join("a.mp3"));
        assert_eq!(inside.format, AudioFormat::Mp3);
        std::os::unix::fs::symlink(folder.path(), root.join("out")).unwrap();
        for outside in [folder.path().join("a.wav"), root.join("../a.wav"), root.join("out/a.wav")] {
            assert!(matches!(within(&outside), Err(CliError::Service(_))), "{}", outside.display());
        }
        let stdout = target(Some("-"), None).unwrap();
        assert_eq!(stdout.clone().within(&root).unwrap(), stdout);
        assert!(matches!(
            target(None, None).unwrap().within(&root.join("none")),
            Err(CliError::Output { .. })
        ));
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let target = Target::new(Some(path.clone()), None).unwrap();
        let mut dropped = Writer::new(&target);
        dropped.push(&[1, 0], 16_000).unwrap();
        drop(dropped);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut writer = Writer::new(&target);
        writer.push(&[1, 0, 2, 0], 16_000).unwrap();
        writer.push(&[3, 0], 16_000).unwrap();
        writer.finish().unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(&written[..4], b"RIFF");
        assert_eq!(&written[written.len() - 6..], [1, 0, 2, 0, 3, 0]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        let silent = Writer::new(&target).finish();
        assert!(matches!(silent, Err(CliError::Service(_))));
    }
}

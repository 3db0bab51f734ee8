//! A small part of SSML, read strictly.
//!
//! A document becomes spans: stretches of plain text that share a voice and a prosody, each with the rest
//! after it. Every span then goes through the [`Segmenter`](crate::Segmenter) on its own, and its rest
//! replaces that of its last segment. Understood are `speak`, `p`, `s`, `break` (time or strength),
//! `prosody` (rate, pitch, volume) and `voice` (name). Anything else is refused: an element or a value
//! that is silently dropped is a wrong reading that nobody notices.
//!
//! Documents come from strangers. Size, depth and pauses are bounded, there is no DTD and no entity
//! beyond XML's own five, and the reader (`quick-xml`) works in one pass without recursion, so a hostile
//! document is an error with its place, never a hang.

mod error;
mod values;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

pub use error::{SsmlError, SsmlErrorKind};

use crate::check_text;
use values::{pause_of_strength, pause_of_time, pitch, rate, volume};

/// Attributes that one element may have; ours need three at most, a root with namespaces a few more.
const MOST_ATTRIBUTES: usize = 16;

/// Limits and rests of an SSML document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsmlConfig {
    /// Longest document, in bytes.
    pub max_bytes: usize,
    /// Deepest nesting; `speak` itself is at depth 1.
    pub max_depth: usize,
    /// Longest rest after one span, in milliseconds.
    pub max_pause_ms: u32,
    /// Rest after a sentence that has no `break` after it, in milliseconds.
    pub sentence_pause_ms: u32,
    /// Rest after a paragraph that has no `break` after it, in milliseconds.
    pub paragraph_pause_ms: u32,
}

impl Default for SsmlConfig {
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024,
            max_depth: 10,
            max_pause_ms: 60_000,
            sentence_pause_ms: 300,
            paragraph_pause_ms: 600,
        }
    }
}

/// How something is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prosody {
    /// Speed, 0.25 to 4; 1 is the voice's own.
    pub rate: f32,
    /// Shift of pitch in semitones, -12 to 12.
    pub pitch: f32,
    /// Gain as a factor, 0 to 4; 1 is the voice's own loudness.
    pub volume: f32,
}

impl Default for Prosody {
    fn default() -> Self {
        Self { rate: 1.0, pitch: 0.0, volume: 1.0 }
    }
}

/// Text that is said in one way.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What is said, with every gap a single space. Empty only in the first span of a document that
    /// begins with a rest.
    pub text: String,
    /// How it is said.
    pub prosody: Prosody,
    /// The voice that was asked for.
    pub voice: Option<String>,
    /// Rest after it, in milliseconds.
    pub pause_after_ms: u32,
}

/// Reads an SSML document into spans.
///
/// # Errors
/// [`SsmlError`] with the place of the fault: malformed XML, a limit passed, something that is not
/// understood, or text that [`check_text`] refuses.
pub fn parse_ssml(document: &str, config: &SsmlConfig) -> Result<Vec<Span>, SsmlError> {
    if document.len() > config.max_bytes {
        let kind = SsmlErrorKind::TooLarge { max_bytes: config.max_bytes };
        return Err(SsmlError { kind, position_bytes: config.max_bytes });
    }
    if let Err(fault) = check_text(document) {
        return Err(SsmlError { position_bytes: fault.position_bytes(), kind: SsmlErrorKind::Text(fault) });
    }
    let mut reader = Reader::from_str(document);
    let mut builder = Builder::new(config);
    loop {
        let position_bytes = reader.buffer_position() as usize;
        let at = |kind| SsmlError { kind, position_bytes };
        let event = reader.read_event().map_err(|error| SsmlError {
            kind: SsmlErrorKind::Malformed(error.to_string()),
            position_bytes: reader.error_position() as usize,
        })?;
        if matches!(event, Event::Eof) {
            return builder.finish().map_err(at);
        }
        builder.take(event).map_err(at)?;
    }
}

/// An element that is open.
struct Open {
    kind: Element,
    prosody: Prosody,
    voice: Option<String>,
    /// What a `break` says, in milliseconds.
    time_ms: Option<u32>,
    strength_ms: Option<u32>,
}

impl Open {
    /// Takes one attribute; the prosody so far is that of the element around.
    fn set(&mut self, name: &str, value: &str) -> Result<(), SsmlErrorKind> {
        let wrong = || SsmlErrorKind::InvalidValue { attribute: name.to_owned(), value: value.to_owned() };
        match (self.kind, name) {
            (Element::Speak, "version" | "xml:lang" | "xsi:schemaLocation") => {}
            (Element::Speak, name) if name.starts_with("xmlns") => {}
            (Element::Break, "time") => self.time_ms = Some(pause_of_time(value).ok_or_else(wrong)?),
            (Element::Break, "strength") => {
                self.strength_ms = Some(pause_of_strength(value).ok_or_else(wrong)?)
            }
            (Element::Prosody, "rate") => {
                self.prosody.rate = rate(value, self.prosody.rate).ok_or_else(wrong)?
            }
            (Element::Prosody, "pitch") => {
                self.prosody.pitch = pitch(value, self.prosody.pitch).ok_or_else(wrong)?
            }
            (Element::Prosody, "volume") => {
                self.prosody.volume = volume(value, self.prosody.volume).ok_or_else(wrong)?;
            }
            (Element::Voice, "name") if !value.trim().is_empty() => {
                self.voice = Some(value.trim().to_owned())
            }
            (Element::Voice, "name") => return Err(wrong()),
            _ => return Err(SsmlErrorKind::UnknownAttribute(name.to_owned())),
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Speak,
    Paragraph,
    Sentence,
    Break,
    Prosody,
    Voice,
}

impl Element {
    fn named(name: &str) -> Result<Self, SsmlErrorKind> {
        match name {
            "speak" => Ok(Self::Speak),
            "p" => Ok(Self::Paragraph),
            "s" => Ok(Self::Sentence),
            "break" => Ok(Self::Break),
            "prosody" => Ok(Self::Prosody),
            "voice" => Ok(Self::Voice),
            other => Err(SsmlErrorKind::UnknownElement(other.to_owned())),
        }
    }
}

/// Builds spans from XML events.
struct Builder<'c> {
    config: &'c SsmlConfig,
    open: Vec<Open>,
    spans: Vec<Span>,
    /// Text of the span under way.
    text: String,
    /// The sum of the breaks since the last text.
    breaks_ms: Option<u32>,
    is_over: bool,
}

impl<'c> Builder<'c> {
    fn new(config: &'c SsmlConfig) -> Self {
        Self {
            config,
            open: Vec::new(),
            spans: Vec::new(),
            text: String::new(),
            breaks_ms: None,
            is_over: false,
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), SsmlErrorKind> {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::Empty(tag) => self.start(&tag).and_then(|()| self.end()),
            Event::End(_) => self.end(),
            Event::Text(text) => self.say(&text.xml10_content()),
            Event::CData(text) => self.say(&text.xml10_content()),
            Event::GeneralRef(reference) => self.refer(&reference),
            Event::Comment(_) | Event::Decl(_) | Event::Eof => Ok(()),
            Event::DocType(_) => Err(SsmlErrorKind::Doctype),
            Event::PI(_) => Err(SsmlErrorKind::ProcessingInstruction),
        }
    }

    fn start(&mut self, tag: &BytesStart<'_>) -> Result<(), SsmlErrorKind> {
        let kind = Element::named(tag.name().as_ref())?;
        let is_root = kind == Element::Speak;
        if is_root != self.open.is_empty() || self.is_over {
            return Err(SsmlErrorKind::Misplaced(tag.name().as_ref().to_owned()));
        }
        if self.open.len() >= self.config.max_depth {
            return Err(SsmlErrorKind::TooDeep { max_depth: self.config.max_depth });
        }
        let (prosody, voice) = self.manner();
        let mut opened = Open { kind, prosody, voice, time_ms: None, strength_ms: None };
        for (count, attribute) in tag.attributes().enumerate() {
            let attribute = attribute.map_err(|error| SsmlErrorKind::Malformed(error.to_string()))?;
            let name = attribute.key.as_ref();
            if count >= MOST_ATTRIBUTES {
                return Err(SsmlErrorKind::UnknownAttribute(name.to_owned()));
            }
            let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0);
            let value = value.map_err(|error| SsmlErrorKind::Malformed(error.to_string()))?;
            opened.set(name, &value)?;
        }
        if kind == Element::Break {
            // As the standard has it: a time goes before a strength, and neither means "medium".
            self.rest(opened.time_ms.or(opened.strength_ms).or(pause_of_strength("medium")).unwrap_or(0))?;
        } else if !is_root {
            self.close_span(None);
        }
        self.open.push(opened);
        Ok(())
    }

    fn end(&mut self) -> Result<(), SsmlErrorKind> {
        match self.open.last().map(|open| open.kind) {
            Some(Element::Paragraph) => self.close_span(Some(self.config.paragraph_pause_ms)),
            Some(Element::Sentence) => self.close_span(Some(self.config.sentence_pause_ms)),
            Some(Element::Break) => {}
            Some(Element::Prosody | Element::Voice | Element::Speak) => self.close_span(None),
            None => return Err(SsmlErrorKind::Malformed("an end tag without its start".to_owned())),
        }
        self.open.pop();
        self.is_over = self.open.is_empty();
        Ok(())
    }

    fn say(&mut self, text: &str) -> Result<(), SsmlErrorKind> {
        let blank = text.chars().all(char::is_whitespace);
        match self.open.last() {
            None if blank => return Ok(()),
            None => return Err(SsmlErrorKind::Misplaced("text".to_owned())),
            Some(open) if open.kind == Element::Break && !blank => {
                return Err(SsmlErrorKind::Misplaced("text".to_owned()));
            }
            Some(_) => {}
        }
        if !blank && self.breaks_ms.is_some() {
            self.close_span(None);
        }
        self.text.push_str(text);
        Ok(())
    }

    fn refer(&mut self, reference: &quick_xml::events::BytesRef<'_>) -> Result<(), SsmlErrorKind> {
        let malformed = |error: quick_xml::Error| SsmlErrorKind::Malformed(error.to_string());
        if let Some(character) = reference.resolve_char_ref().map_err(malformed)? {
            let mut buffer = [0; 4];
            let text = character.encode_utf8(&mut buffer);
            check_text(text).map_err(SsmlErrorKind::Text)?;
            return self.say(text);
        }
        let name = reference.xml10_content();
        match quick_xml::escape::resolve_xml_entity(&name) {
            Some(text) => self.say(text),
            None => Err(SsmlErrorKind::UnknownEntity(name.into_owned())),
        }
    }

    /// The prosody and voice of the element under way.
    fn manner(&self) -> (Prosody, Option<String>) {
        self.open.last().map_or((Prosody::default(), None), |open| (open.prosody, open.voice.clone()))
    }

    /// A `break`: adds to the rest after the text so far.
    fn rest(&mut self, pause_ms: u32) -> Result<(), SsmlErrorKind> {
        let sum = self.breaks_ms.unwrap_or(0).saturating_add(pause_ms);
        let in_hand = if self.text.trim().is_empty() {
            self.spans.last().map_or(0, |span| span.pause_after_ms)
        } else {
            0
        };
        if sum.saturating_add(in_hand) > self.config.max_pause_ms {
            return Err(SsmlErrorKind::PauseTooLong { max_pause_ms: self.config.max_pause_ms });
        }
        self.breaks_ms = Some(sum);
        Ok(())
    }

    /// Ends the span under way. Its rest is the breaks after it; without any, that of the paragraph or
    /// sentence that ends here; without that, a sentence's rest if it ends as one.
    fn close_span(&mut self, boundary_ms: Option<u32>) {
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.text.clear();
        let breaks_ms = self.breaks_ms.take();
        if !text.is_empty() {
            let (prosody, voice) = self.manner();
            let by_text = if ends_sentence(&text) { self.config.sentence_pause_ms } else { 0 };
            let pause_after_ms = breaks_ms.or(boundary_ms).unwrap_or(by_text);
            self.spans.push(Span { text, prosody, voice, pause_after_ms });
        } else if let Some(last) = self.spans.last_mut() {
            // Nothing was said since: the boundary or the break belongs to what was said before it.
            let more = last.pause_after_ms.saturating_add(breaks_ms.unwrap_or(0));
            last.pause_after_ms = more.max(boundary_ms.unwrap_or(0)).min(self.config.max_pause_ms);
        } else if let Some(pause_after_ms) = breaks_ms {
            let (prosody, voice) = self.manner();
            self.spans.push(Span { text, prosody, voice, pause_after_ms });
        }
    }

    fn finish(self) -> Result<Vec<Span>, SsmlErrorKind> {
        if self.is_over { Ok(self.spans) } else { Err(SsmlErrorKind::Incomplete) }
    }
}

fn ends_sentence(text: &str) -> bool {
    let unquoted = text.trim_end_matches(['"', '\'', ')', ']', '”', '’', '»', '」', '』', '）']);
    unquoted.ends_with(['.', '!', '?', '…', ':', '。', '！', '？', '।', '؟'])
}

#[cfg(test)]
mod tests;

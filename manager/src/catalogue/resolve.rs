//! From what a request names to a model and how it shall speak.
//!
//! `model` is a name or an alias. `voice` is a speaker of that model, or, where no model is named, an alias or a name of
//! one. A request that names neither means the default model. What the catalogue lists (speakers, languages) is checked
//! here, at once; what only the engine knows is checked by the engine.

use std::sync::Arc;

use chorus_protocol::plan::Speech;
use chorus_protocol::{ModelDefinition, Reason, ServiceError, SynthesisRequest};

use super::CatalogueView;
use super::nearest::nearest;

/// How many known names an error lists.
const LISTED_NAMES: usize = 10;

/// A request's voice, found.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The model.
    pub definition: Arc<ModelDefinition>,
    /// How its segments are spoken.
    pub speech: Speech,
}

impl CatalogueView {
    /// Finds the model, the speaker and the language that `request` means.
    ///
    /// # Errors
    /// MODEL_NOT_FOUND naming what was asked for and at most ten that are known, with the nearest one in
    /// `details.didYouMean`; INVALID_REQUEST/unsupported_option for a language that the model does not have.
    pub fn resolve(&self, request: &SynthesisRequest) -> Result<Resolved, ServiceError> {
        if self.is_empty() {
            return Err(empty_catalogue());
        }
        let (definition, voice) = match (&request.model, &request.voice) {
            (Some(model), voice) => self.with_model(model, voice.as_deref())?,
            (None, Some(voice)) => self.with_voice(voice)?,
            (None, None) => (self.default_model().ok_or_else(|| self.no_default())?, None),
        };
        let language = language_of(definition, request.language.as_deref())?;
        let speaker_clip = request.clip()?;
        if let (Some(voice), Some(_)) = (&voice, speaker_clip) {
            let message =
                format!("a clip and the voice {:?} exclude one another: give one of them", cut(voice));
            return Err(ServiceError::field(Reason::Malformed, "speakerClip", message));
        }
        let speech = Speech {
            model: definition.name.clone(),
            voice,
            speaker_clip,
            language,
            speed: request.speed,
            pitch: request.pitch,
            seed: request.seed,
            volume: None,
            priority: request.priority.unwrap_or_default(),
            fresh: request.fresh,
            input_type: request.input_type,
        };
        Ok(Resolved { definition: Arc::clone(definition), speech })
    }

    /// The model of this name or alias.
    pub fn named(&self, name: &str) -> Option<&Arc<ModelDefinition>> {
        let by_name = self.models().find(|model| model.name.as_str() == name);
        by_name.or_else(|| self.models().find(|model| model.aliases.iter().any(|alias| alias == name)))
    }

    /// MODEL_NOT_FOUND for a model of this name.
    pub fn unknown_model(&self, name: &str) -> ServiceError {
        let known = self.models().flat_map(|m| names_of(m));
        unknown("model", "model", name, known, self.models().map(|m| m.name.as_str()))
    }

    /// The speaker of `definition` that a name means; `None` where the model itself is meant.
    ///
    /// # Errors
    /// MODEL_NOT_FOUND for a voice that this model does not have: a request is spoken by one model.
    pub fn voice_of(
        &self,
        definition: &ModelDefinition,
        voice: &str,
    ) -> Result<Option<String>, ServiceError> {
        Ok(self.with_model(definition.name.as_str(), Some(voice))?.1)
    }

    fn with_model(
        &self,
        model: &str,
        voice: Option<&str>,
    ) -> Result<(&Arc<ModelDefinition>, Option<String>), ServiceError> {
        let definition = self.named(model).ok_or_else(|| self.unknown_model(model))?;
        match voice {
            None => Ok((definition, None)),
            Some(voice) if speaks_as(definition, voice) => Ok((definition, Some(voice.to_owned()))),
            Some(voice) if names_of(definition).any(|name| name == voice) => Ok((definition, None)),
            Some(voice) => {
                let voices = || definition.voices.iter().map(String::as_str);
                let error = unknown("voice", "voice", voice, voices(), voices());
                Err(error.with("model", definition.name.as_str()))
            }
        }
    }

    fn with_voice(&self, voice: &str) -> Result<(&Arc<ModelDefinition>, Option<String>), ServiceError> {
        if let Some(definition) = self.named(voice) {
            return Ok((definition, None));
        }
        let of_default = self.default_model().filter(|model| speaks_as(model, voice));
        let mut speakers = self.models().filter(|model| speaks_as(model, voice));
        match (of_default, speakers.next(), speakers.next()) {
            (Some(model), ..) | (None, Some(model), None) => Ok((model, Some(voice.to_owned()))),
            (None, Some(first), Some(second)) => {
                let message = format!(
                    "several models have a voice {voice:?} (such as {} and {}): name the model too",
                    first.name, second.name
                );
                Err(ServiceError::field(Reason::UnknownModel, "voice", message))
            }
            (None, None, _) => {
                let known =
                    self.models().flat_map(|m| names_of(m).chain(m.voices.iter().map(String::as_str)));
                Err(unknown("voice", "voice", voice, known.clone(), known))
            }
        }
    }

    fn no_default(&self) -> ServiceError {
        let known = listed(self.models().map(|m| m.name.as_str()));
        let message =
            format!("no model is named and none is marked as the default; known: {}", known.join(", "));
        ServiceError::field(Reason::UnknownModel, "model", message).with("known", known)
    }
}

fn speaks_as(definition: &ModelDefinition, voice: &str) -> bool {
    definition.voices.iter().any(|known| known == voice)
}

fn names_of(definition: &ModelDefinition) -> impl Iterator<Item = &str> + Clone {
    std::iter::once(definition.name.as_str()).chain(definition.aliases.iter().map(String::as_str))
}

fn language_of(definition: &ModelDefinition, wanted: Option<&str>) -> Result<Option<String>, ServiceError> {
    let Some(wanted) = wanted else { return Ok(None) };
    if definition.languages.is_empty() {
        return Ok(Some(wanted.to_owned()));
    }
    match definition.languages.iter().find(|known| known.eq_ignore_ascii_case(wanted)) {
        Some(known) => Ok(Some(known.clone())),
        None => {
            let known = listed(definition.languages.iter().map(String::as_str));
            let message = format!(
                "{} does not speak {:?}; it speaks: {}",
                definition.name,
                cut(wanted),
                known.join(", ")
            );
            Err(ServiceError::field(Reason::UnsupportedOption, "language", message).with("known", known))
        }
    }
}

fn empty_catalogue() -> ServiceError {
    let message =
        "the catalogue holds no model; add one with tts.models.load, or start a worker that brings one";
    ServiceError::field(Reason::UnknownModel, "model", message)
}

fn unknown<'a>(
    field: &str,
    what: &str,
    wanted: &str,
    guesses: impl Iterator<Item = &'a str>,
    known: impl Iterator<Item = &'a str>,
) -> ServiceError {
    let known = listed(known);
    let mut message = format!("there is no {what} {:?}", cut(wanted));
    let guess = nearest(wanted, guesses);
    if let Some(guess) = guess {
        message.push_str(&format!(", did you mean {guess:?}?"));
    }
    if known.is_empty() {
        message.push_str(" (the model has one voice only: name none)");
    } else {
        message.push_str(&format!("; known: {}", known.join(", ")));
    }
    let error = ServiceError::field(Reason::UnknownModel, field, message).with("known", known);
    match guess {
        Some(guess) => error.with("didYouMean", guess),
        None => error,
    }
}

/// The first names, once each.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut listed: Vec<String> = Vec::new();
    for name in names {
        if listed.len() == LISTED_NAMES {
            break;
        }
        if !listed.iter().any(|known| known == name) {
            listed.push(name.to_owned());
        }
    }
    listed
}

/// A client's own words as an error repeats them: not at any length.
fn cut(text: &str) -> String {
    text.chars().take(96).collect()
}

#[cfg(test)]
mod tests {
    use chorus_protocol::{ErrorCode, ModelName, ModelSource, Priority};

    use super::*;

    fn model(name: &str) -> ModelDefinition {
        ModelDefinition {
            name: ModelName::new(name).unwrap(),
            engine: "null".into(),
            source: ModelSource::Builtin { builtin: "null".into() },
            aliases: Vec::new(),
            default: false,
            voices: Vec::new(),
            languages: Vec::new(),
            max_text_chars: None,
            sha256: None,
            options: serde_json::Map::new(),
        }
    }

    fn catalogue() -> CatalogueView {
        let strings = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        let joe = ModelDefinition { aliases: strings(&["alloy"]), ..model("joe") };
        let vctk = ModelDefinition { voices: strings(&["p225", "p226"]), default: true, ..model("vctk") };
        let xtts = ModelDefinition {
            voices: strings(&["Ana", "p226"]),
            languages: strings(&["en", "de"]),
            ..model("xtts")
        };
        CatalogueView::default().with(joe).with(vctk).with(xtts)
    }

    fn ask(model: Option<&str>, voice: Option<&str>) -> SynthesisRequest {
        SynthesisRequest {
            text: "a".into(),
            model: model.map(str::to_owned),
            voice: voice.map(str::to_owned),
            ..SynthesisRequest::default()
        }
    }

    fn found(model: Option<&str>, voice: Option<&str>) -> (String, Option<String>) {
        let speech = catalogue().resolve(&ask(model, voice)).unwrap().speech;
        (speech.model.to_string(), speech.voice)
    }

    fn refused(request: &SynthesisRequest) -> ServiceError {
        catalogue().resolve(request).unwrap_err()
    }

    #[test]
    fn names_aliases_speakers_and_the_default() {
        assert_eq!(found(Some("joe"), None), ("joe".into(), None));
        assert_eq!(found(Some("alloy"), None), ("joe".into(), None));
        assert_eq!(found(None, Some("alloy")), ("joe".into(), None));
        assert_eq!(found(None, Some("joe")), ("joe".into(), None));
        assert_eq!(found(Some("joe"), Some("alloy")), ("joe".into(), None));
        assert_eq!(found(None, None), ("vctk".into(), None));
        assert_eq!(found(Some("vctk"), Some("p225")), ("vctk".into(), Some("p225".into())));
        assert_eq!(found(None, Some("p226")), ("vctk".into(), Some("p226".into())));
        assert_eq!(found(None, Some("Ana")), ("xtts".into(), Some("Ana".into())));
    }

    #[test]
    fn an_unknown_model_is_named_with_the_known_ones() {
        let error = refused(&ask(Some("jo"), None));
        assert_eq!(error.code, ErrorCode::ModelNotFound);
        assert!(error.message.contains("\"jo\"") && error.message.contains("joe, vctk, xtts"), "{error}");
        let details = error.details.unwrap();
        assert_eq!(details["didYouMean"], "joe");
        assert_eq!(details["field"], "model");
    }

    #[test]
    fn an_unknown_voice_is_looked_for_where_it_was_asked_for() {
        let error = refused(&ask(Some("vctk"), Some("p22")));
        assert_eq!(error.details.unwrap()["known"], serde_json::json!(["p225", "p226"]));
        assert!(refused(&ask(Some("joe"), Some("p225"))).message.contains("one voice only"));
        assert_eq!(refused(&ask(None, Some("nobody"))).code, ErrorCode::ModelNotFound);
        let without_default = catalogue().without(&ModelName::new("vctk").unwrap());
        let two = without_default.with(ModelDefinition { voices: vec!["Ana".into()], ..model("other") });
        let error = two.resolve(&ask(None, Some("Ana"))).unwrap_err();
        assert!(error.message.contains("name the model too"), "{error}");
    }

    #[test]
    fn the_default_is_the_marked_one_or_the_only_one() {
        let one = CatalogueView::default().with(model("a"));
        assert_eq!(one.resolve(&ask(None, None)).unwrap().speech.model.as_str(), "a");
        let two = one.with(model("b"));
        assert!(two.resolve(&ask(None, None)).unwrap_err().message.contains("known: a, b"));
        let error = CatalogueView::default().resolve(&ask(Some("a"), None)).unwrap_err();
        assert!(error.message.contains("holds no model"), "{error}");
        assert_eq!(error.code, ErrorCode::ModelNotFound);
    }

    #[test]
    fn languages_are_checked_where_they_are_listed() {
        let german = |code: &str| SynthesisRequest { language: Some(code.into()), ..ask(Some("xtts"), None) };
        assert_eq!(catalogue().resolve(&german("DE")).unwrap().speech.language.as_deref(), Some("de"));
        assert_eq!(refused(&german("fr")).reason(), Some(Reason::UnsupportedOption));
        let unlisted = SynthesisRequest { language: Some("fr".into()), ..ask(Some("joe"), None) };
        assert_eq!(catalogue().resolve(&unlisted).unwrap().speech.language.as_deref(), Some("fr"));
    }

    #[test]
    fn a_long_catalogue_is_listed_in_part_and_long_names_are_cut() {
        let mut view = CatalogueView::default();
        for i in 0..30 {
            view = view.with(model(&format!("voice-{i:02}")));
        }
        let error = view.resolve(&ask(Some(&"x".repeat(10_000)), None)).unwrap_err();
        assert_eq!(error.details.unwrap()["known"].as_array().unwrap().len(), 10);
        assert!(error.message.len() < 400);
    }

    #[test]
    fn a_clip_stands_in_for_a_voice_and_not_beside_one() {
        let clip = chorus_protocol::ClipId::of(b"speech");
        let with = |model: Option<&str>, voice: Option<&str>, clip: String| SynthesisRequest {
            speaker_clip: Some(clip),
            ..ask(model, voice)
        };
        let found = catalogue().resolve(&with(Some("xtts"), None, clip.to_string())).unwrap().speech;
        assert_eq!((found.voice, found.speaker_clip), (None, Some(clip)));
        // Here `voice` is another name of a model.
        let alias = catalogue().resolve(&with(None, Some("alloy"), clip.to_string())).unwrap().speech;
        assert_eq!(alias.speaker_clip, Some(clip));
        for bad in [
            with(Some("xtts"), Some("Ana"), clip.to_string()),
            with(Some("xtts"), None, "../../etc/passwd".into()),
            with(Some("xtts"), None, clip.key()),
        ] {
            assert_eq!(refused(&bad).details.unwrap()["field"], "speakerClip");
        }
    }

    #[test]
    fn options_travel_with_the_speech() {
        let request = SynthesisRequest {
            speed: Some(1.5),
            seed: Some(7),
            priority: Some(Priority::High),
            ..ask(Some("joe"), None)
        };
        let speech = catalogue().resolve(&request).unwrap().speech;
        assert_eq!((speech.speed, speech.seed, speech.priority), (Some(1.5), Some(7), Priority::High));
    }
}

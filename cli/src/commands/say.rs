//! `chorus say`: a text into a file, through a fleet that is there or one of its own.

use bytes::Bytes;
use chorus_bus::Bus;
use chorus_client::{SessionHost, clips};
use chorus_protocol::{InputType, Priority, SynthesisRequest, SynthesisResult};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::embedded::Embedded;
use super::speak;
use crate::app::Context;
use crate::args::{PriorityArg, SayArgs};
use crate::config::CliConfig;
use crate::error::CliError;
use crate::input::{Source, TextSource, write_on};
use crate::locate::{self, unless_stopped};
use crate::output::{Target, Writer};
use crate::ui::{Tone, Ui};

/// Runs the command.
pub async fn run(context: Context, args: SayArgs) -> Result<(), CliError> {
    let target = Target::new(args.output.clone(), args.format.as_deref())?;
    let target = match &args.output_root {
        Some(root) => target.within(root)?,
        None => target,
    };
    if args.json && target.path.is_none() {
        return Err(CliError::Usage("--json and audio cannot both go to stdout: name a file with -o".into()));
    }
    let source = TextSource::new(args.text.clone(), args.file.clone())?;
    // An SSML document means something only as a whole; any other text may be longer than a message.
    let comes = if args.ssml { None } else { source.open()? };
    let text = if comes.is_some() { String::new() } else { tokio::task::block_in_place(|| source.read())? };
    let request = request(&args, text);
    if comes.is_some() {
        request.validate_options()?;
    } else {
        request.validate()?;
    }
    let clip = match &args.speaker_clip {
        Some(file) => Some(clips::read(file).await?),
        None => None,
    };
    let words = Words { request, comes, clip };
    // An engine can be chosen only for a fleet of one's own.
    let own = args.engine.kind.is_some();
    if own && args.nats.is_some() {
        let why = "--engine is for a fleet of one's own, --nats for one that is there: give one of them";
        return Err(CliError::Usage(why.into()));
    }
    let found = if own {
        None
    } else {
        unless_stopped(&context.shutdown, locate::locate(&context.config, "chorus")).await?
    };
    let result = match found {
        Some(bus) => {
            unless_stopped(&context.shutdown, through(&context.config, Bus::connect(bus), words, &target))
                .await?
        }
        None => Box::pin(embedded(&context, args.model.as_slice(), words, &target)).await?,
    };
    report(context.ui, &target, result)
}

/// What is to be said, where its text comes from if it is spoken as it comes, and like whom.
struct Words {
    request: SynthesisRequest,
    comes: Option<(Source, String)>,
    clip: Option<Bytes>,
}

fn request(args: &SayArgs, text: String) -> SynthesisRequest {
    SynthesisRequest {
        text,
        voice: args.voice.clone(),
        model: args.model.clone(),
        language: args.language.clone(),
        input_type: args.ssml.then_some(InputType::Ssml),
        speed: args.speed,
        fresh: args.fresh,
        pitch: args.pitch,
        sample_rate: args.sample_rate,
        priority: args.priority.map(|priority| match priority {
            PriorityArg::Low => Priority::Low,
            PriorityArg::Normal => Priority::Normal,
            PriorityArg::High => Priority::High,
        }),
        ..SynthesisRequest::default()
    }
}

async fn through(
    config: &CliConfig,
    connecting: impl Future<Output = Result<Bus, chorus_bus::BusError>>,
    mut words: Words,
    target: &Target,
) -> Result<SynthesisResult, CliError> {
    let bus = connecting.await?;
    let cancel = CancellationToken::new();
    let _sessions_end_with_us = cancel.clone().drop_guard();
    let host = speak::sessions(config, &bus, &cancel).await?;
    if let Some(clip) = words.clip.take() {
        words.request.speaker_clip = Some(host.keep_clip(clip).await?.to_string());
    }
    let result = match words.comes {
        Some((source, place)) => as_it_comes(&host, words.request, source, &place, target).await,
        None => speak::into_writer(speak::ask(&host, words.request), Writer::new(target)).await,
    };
    host.stop().await;
    bus.close().await;
    result
}

/// Speaks what comes, each sentence as soon as it is complete.
async fn as_it_comes(
    host: &SessionHost,
    request: SynthesisRequest,
    source: Source,
    place: &str,
    target: &Target,
) -> Result<SynthesisResult, CliError> {
    let (speaking, input) = speak::ask_coming(host, request);
    let speaking = speak::into_writer(speaking, Writer::new(target));
    let writing = write_on(source, place, input);
    tokio::pin!(speaking, writing);
    tokio::select! {
        result = &mut speaking => result,
        written = &mut writing => {
            written?;
            speaking.await
        }
    }
}

async fn embedded(
    context: &Context,
    models: &[String],
    words: Words,
    target: &Target,
) -> Result<SynthesisResult, CliError> {
    let mut embedded = Embedded::new();
    // The one model that it serves is the default, whatever name it was given by.
    let words = Words { request: SynthesisRequest { model: None, ..words.request }, ..words };
    let speaking = async {
        let bus = embedded.start(context, models).await?;
        let _speaking = context.ui.spinner("speaking …");
        tokio::select! {
            result = through(&context.config, async { Ok(bus) }, words, target) => result,
            failed = embedded.failed() => Err(failed),
        }
    };
    let result = unless_stopped(&context.shutdown, speaking).await;
    embedded.stop(context).await;
    result
}

/// Tells what became of a request.
pub(super) fn report(ui: Ui, target: &Target, mut result: SynthesisResult) -> Result<(), CliError> {
    for warning in result.metadata.iter().flat_map(|metadata| &metadata.warnings) {
        ui.warning(&warning.message);
    }
    if let Some(error) = result.error.clone().filter(|_| !result.success) {
        return Err(CliError::Request { error, result: Box::new(result) });
    }
    result.output_path = target.path.as_ref().map(|path| path.display().to_string());
    if ui.json() {
        ui.json_line(&json!(result));
    } else if let Some(path) = &result.output_path {
        ui.line(&format!("{}  {}", ui.paint(Tone::Bold, path), ui.paint(Tone::Dim, &figures(&result))));
    }
    Ok(())
}

fn figures(result: &SynthesisResult) -> String {
    let (audio, took) = (result.duration.unwrap_or_default(), result.latency_ms / 1000.0);
    let first = result.metadata.as_ref().and_then(|metadata| metadata.first_audio_ms);
    let first = first.map_or_else(String::new, |ms| format!(", first audio after {:.2} s", ms / 1000.0));
    format!("{audio:.2} s of audio in {took:.2} s{first}")
}

#[cfg(test)]
mod tests {
    use chorus_protocol::{MessageId, Reason, ServiceError};

    use super::*;
    use crate::config::Environment;

    #[test]
    fn a_failed_request_is_an_error_with_its_result() {
        let ui = Ui::new(&Environment::default(), false);
        let target = Target { path: None, format: chorus_protocol::AudioFormat::Wav };
        let error = ServiceError::new(Reason::QueueFull, "full");
        let failed = SynthesisResult::failed(MessageId::fresh(), 12.0, error);
        let error = report(ui, &target, failed).unwrap_err();
        assert_eq!((error.to_json()["latencyMs"].as_f64(), error.status().code()), (Some(12.0), 1));
        assert!(error.to_json()["error"]["hint"].is_string());
    }
}

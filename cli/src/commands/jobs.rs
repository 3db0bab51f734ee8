//! `chorus jobs`: durable jobs are handed in, asked after, fetched and given up.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chorus_bus::{Bucket, Bus, ObjectBucket};
use chorus_client::clips;
use chorus_protocol::durable::{DurableJob, JobAsk, JobStatus};
use chorus_protocol::{Envelope, MessageId, Reason, ServiceError, SynthesisRequest, SynthesisResult, names};
use chorus_runtime::clock::{Clock as _, SystemClock};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::app::Context;
use crate::args::{JobsCommand, SubmitArgs};
use crate::error::CliError;
use crate::input::TextSource;
use crate::locate::{self, unless_stopped};
use crate::output::{self, Target};
use crate::ui::{Ui, table};

/// A job is kept before the answer comes.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(context: Context, command: JobsCommand) -> Result<(), CliError> {
    let ui = context.ui;
    let asking = async {
        let file = match &command {
            JobsCommand::Submit(args) => args.speaker_clip.as_deref(),
            _ => None,
        };
        let clip = match file {
            Some(file) => Some(clips::read(file).await?),
            None => None,
        };
        let question = tokio::task::block_in_place(|| Question::new(command, clip, ui))?;
        let bus = locate::connect(&context).await?;
        let answered = question.ask(&bus, ui).await;
        bus.close().await;
        answered
    };
    unless_stopped(&context.shutdown, asking).await
}

enum Question {
    Submit(MessageId, Box<SynthesisRequest>, Option<Bytes>),
    Status(JobAsk),
    Fetch(JobAsk, PathBuf),
    Cancel(JobAsk),
    List,
}

impl Question {
    fn new(command: JobsCommand, clip: Option<Bytes>, ui: Ui) -> Result<Self, CliError> {
        Ok(match command {
            JobsCommand::Submit(args) => Self::submit(*args, clip)?,
            JobsCommand::Status(job) => Self::Status(named(job.id)?),
            JobsCommand::Cancel(job) => Self::Cancel(named(job.id)?),
            JobsCommand::Fetch { output, job } => {
                if ui.json() && output.as_os_str() == "-" {
                    let why = "--json and audio cannot both go to stdout: name a file with -o";
                    return Err(CliError::Usage(why.into()));
                }
                Self::Fetch(named(job.id)?, output)
            }
            JobsCommand::List { .. } => Self::List,
        })
    }

    fn submit(args: SubmitArgs, clip: Option<Bytes>) -> Result<Self, CliError> {
        let id = match args.id {
            Some(id) => named(id)?.job,
            None => MessageId::fresh(),
        };
        let text = TextSource::new(args.text, args.file)?.read()?;
        let format = Target::new(Some("-".into()), Some(&args.format))?.format;
        let (model, voice, output_format) = (args.model, args.voice, Some(format));
        let request = SynthesisRequest { text, model, voice, output_format, ..SynthesisRequest::default() };
        request.validate()?;
        Ok(Self::Submit(id, Box::new(request), clip))
    }

    async fn ask(self, bus: &Bus, ui: Ui) -> Result<(), CliError> {
        match self {
            Self::Submit(message_id, mut request, clip) => {
                if let Some(clip) = clip {
                    request.speaker_clip = Some(clips::keep(bus, clip).await?.to_string());
                }
                let envelope = Envelope { message_id, ..Envelope::request(*request, SystemClock.unix_ms()) };
                show(ui, &bus.request(names::JOBS_SUBMIT, &envelope, ANSWER_WITHIN).await?);
            }
            Self::Status(job) => show(ui, &ask(bus, names::JOBS_STATUS, job).await?),
            Self::Cancel(job) => show(ui, &ask(bus, names::JOBS_CANCEL, job).await?),
            Self::Fetch(job, path) => fetch(bus, ui, job, path).await?,
            Self::List => {
                let bucket = Bucket::DURABLE_JOBS.kind(names::JOB_RECORDS);
                let jobs = bus.records::<DurableJob>(bucket).list().await?;
                let mut jobs: Vec<JobStatus> = jobs.iter().map(|(_, job)| job.value.status()).collect();
                jobs.sort_by_key(|job| job.created_ms);
                if ui.json() {
                    ui.json_line(&json!({ "jobs": jobs }));
                } else {
                    lines(&jobs).iter().for_each(|line| ui.line(line));
                }
            }
        }
        Ok(())
    }
}

fn named(id: String) -> Result<JobAsk, CliError> {
    let job = MessageId::new(id).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(JobAsk { job })
}

async fn ask<Q: Serialize, A: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    question: Q,
) -> Result<A, CliError> {
    let envelope = Envelope::request(question, SystemClock.unix_ms());
    Ok(bus.request(subject, &envelope, ANSWER_WITHIN).await?)
}

async fn fetch(bus: &Bus, ui: Ui, job: JobAsk, path: PathBuf) -> Result<(), CliError> {
    let mut result: SynthesisResult = ask(bus, names::JOBS_FETCH, job).await?;
    if let Some(error) = result.error.clone().filter(|_| !result.success) {
        return Err(CliError::Request { error, result: Box::new(result) });
    }
    let Some(key) = result.audio.as_ref().and_then(|audio| audio.key.as_deref()) else {
        return Err(ServiceError::new(Reason::Output, "the job's result names no audio").into());
    };
    let audio = bus.objects(ObjectBucket::Audio).get(key).await?;
    if path.as_os_str() == "-" {
        return tokio::task::block_in_place(|| output::to_stdout(&audio));
    }
    tokio::task::block_in_place(|| output::write_file(&path, &audio))?;
    result.output_path = Some(path.display().to_string());
    if ui.json() {
        ui.json_line(&json!(result));
    } else {
        let seconds = result.duration.unwrap_or_default();
        ui.line(&format!("{}  {seconds:.2} s of audio", path.display()));
    }
    Ok(())
}

fn show(ui: Ui, job: &JobStatus) {
    if ui.json() {
        ui.json_line(&json!(job));
        return;
    }
    lines(std::slice::from_ref(job)).iter().for_each(|line| ui.line(line));
    if let Some(error) = &job.error {
        ui.warning(&error.message);
    }
}

fn lines(jobs: &[JobStatus]) -> Vec<String> {
    let mut rows = vec![["JOB", "STATE", "SEGMENTS", "AUDIO", "TEXT", "MANAGER"].map(str::to_owned).to_vec()];
    rows.extend(jobs.iter().map(|job| {
        vec![
            job.job.to_string(),
            job.state.as_str().to_owned(),
            job.segments.to_string(),
            format!("{:.1} s", job.audio_seconds),
            format!("{} of {} bytes", job.spoken_bytes, job.text_bytes),
            job.manager.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        ]
    }));
    table(&rows)
}

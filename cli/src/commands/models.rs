//! `chorus models`: the catalogue of a fleet, asked and changed through its managers.

mod order;

use std::time::Duration;

use chorus_bus::Bus;
use chorus_protocol::service::{Ask, LoadModel, ModelList, ModelStatus, UnloadModel};
use chorus_protocol::{Envelope, ModelDefinition, ModelName, ModelSource, names};
use chorus_runtime::clock::{Clock as _, SystemClock};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::app::Context;
use crate::args::ModelsCommand;
use crate::error::CliError;
use crate::fleet::parts;
use crate::locate::{self, unless_stopped};
use crate::ui::{Ui, table};

/// Orders to workers are given before the answer comes.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(context: Context, command: ModelsCommand) -> Result<(), CliError> {
    let ui = context.ui;
    let asking = async {
        // What cannot be meant is refused before anybody is asked.
        let question = Question::new(&context, command)?;
        let bus = locate::connect(&context).await?;
        let answered = question.ask(&bus, ui).await;
        bus.close().await;
        answered
    };
    unless_stopped(&context.shutdown, asking).await
}

enum Question {
    List,
    Add(Box<ModelDefinition>),
    Remove(ModelName),
    Load(String),
    Unload(String),
}

impl Question {
    fn new(context: &Context, command: ModelsCommand) -> Result<Self, CliError> {
        Ok(match command {
            ModelsCommand::List { .. } => Self::List,
            ModelsCommand::Add { model, default, aliases, .. } => {
                let known = parts::known_models(&context.config, &context.environment)?;
                let definition = known.resolve(&model, context.config.engine.kind)?;
                Self::Add(Box::new(ModelDefinition { default, aliases, ..definition }))
            }
            ModelsCommand::Remove { model, .. } => {
                Self::Remove(ModelName::new(model).map_err(|error| CliError::Usage(error.to_string()))?)
            }
            ModelsCommand::Load { model, .. } => Self::Load(model),
            ModelsCommand::Unload { model, .. } => Self::Unload(model),
        })
    }

    async fn ask(self, bus: &Bus, ui: Ui) -> Result<(), CliError> {
        match self {
            Self::List => {
                let list: ModelList = ask(bus, names::MODELS_LIST, Ask::default()).await?;
                print(ui, &list);
            }
            Self::Add(model) => {
                let added: ModelStatus = ask(bus, names::MODELS_LOAD, LoadModel { model: *model }).await?;
                if ui.json() {
                    ui.json_line(&json!(added));
                } else {
                    ui.line(&format!(
                        "{} is in the catalogue, ready on {} workers",
                        added.name, added.ready_workers
                    ));
                }
            }
            Self::Remove(model) => {
                let unload = UnloadModel { model: model.clone(), remove: true };
                let _removed: Ask = ask(bus, names::MODELS_UNLOAD, unload).await?;
                if ui.json() {
                    ui.json_line(&json!({"removed": model}));
                } else {
                    ui.line(&format!("{model} is out of the catalogue"));
                }
            }
            Self::Load(model) => order::load(bus, ui, &model).await?,
            Self::Unload(model) => order::unload(bus, ui, &model).await?,
        }
        Ok(())
    }
}

async fn ask<Q: Serialize, A: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    question: Q,
) -> Result<A, CliError> {
    let envelope = Envelope::request(question, SystemClock.unix_ms());
    Ok(bus.request(subject, &envelope, ANSWER_WITHIN).await?)
}

fn print(ui: Ui, list: &ModelList) {
    if ui.json() {
        ui.json_line(&json!(list));
        return;
    }
    let mut rows = vec![["MODEL", "ENGINE", "WHERE", "ALSO"].map(str::to_owned).to_vec()];
    rows.extend(list.models.iter().map(|model| {
        let place = match &model.source {
            ModelSource::Path { path, .. } => path.clone(),
            ModelSource::Hub { hub } => format!("hub: {hub}"),
            ModelSource::Builtin { builtin } => format!("built in: {builtin}"),
        };
        let default = model.default.then(|| "default".to_owned());
        let also: Vec<String> = default.into_iter().chain(model.aliases.iter().cloned()).collect();
        vec![model.name.to_string(), model.engine.clone(), place, also.join(", ")]
    }));
    for line in table(&rows) {
        ui.line(&line);
    }
}

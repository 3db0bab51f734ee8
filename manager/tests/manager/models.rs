//! The catalogue: loading, unloading, and what every manager makes of it.

use chorus_protocol::service::{Ask, ModelList, UnloadModel};
use chorus_protocol::{ErrorCode, JobClass, ModelDefinition, names};

use crate::support::*;

#[tokio::test]
async fn a_loaded_model_can_be_asked_for_on_every_manager() {
    let broker = Broker::start().await;
    let (_first, bus) = broker.with_joe().await;
    let second = broker.manager("m2").await;
    let amy = ModelDefinition { aliases: vec!["nova".into()], ..definition("amy/medium") };
    let status = load(&bus, amy).await.unwrap();
    assert_eq!((status.ready_workers, status.queued), (0, 0));
    let mut question = opening("hello");
    question.request.voice = Some("nova".into());
    let opened = eventually("the other manager hears of it", async || {
        second.core().answer_open(question.clone(), None).await.ok()
    })
    .await;
    assert_eq!(opened.speech.model.as_str(), "amy/medium");
    let list: ModelList = ask(&bus, names::MODELS_LIST, Ask {}).await.unwrap();
    assert!(!list.models.is_empty());
}

#[tokio::test]
async fn bad_definitions_are_refused_by_field() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let field = async |model: ModelDefinition| {
        load(&bus, model).await.unwrap_err().details.unwrap()["field"].as_str().unwrap().to_owned()
    };
    assert_eq!(field(ModelDefinition { engine: String::new(), ..definition("a") }).await, "model.engine");
    let short = ModelDefinition { max_text_chars: Some(3), ..definition("a") };
    assert_eq!(field(short).await, "model.maxTextChars");
    let taken = ModelDefinition { aliases: vec!["joe".into()], ..definition("a") };
    assert_eq!(field(taken).await, "model.aliases");
    let blank = ModelDefinition { voices: vec![String::new()], ..definition("a") };
    assert_eq!(field(blank).await, "model.voices");
}

#[tokio::test]
async fn removing_a_model_empties_its_queue_and_forgets_its_name() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    open(&bus, &opening("hello")).await.unwrap();
    assert_eq!(bus.queue_depth(&joe()).await.unwrap().total(), 1);
    let unload = |remove| UnloadModel { model: joe(), remove };
    // Taken off the workers only: it can still be asked for.
    let _: Ask = ask(&bus, names::MODELS_UNLOAD, unload(false)).await.unwrap();
    assert_eq!(queued(&bus, JobClass::High).await.len(), 1);
    let _: Ask = ask(&bus, names::MODELS_UNLOAD, unload(true)).await.unwrap();
    assert_eq!(bus.queue_depth(&joe()).await.unwrap().total(), 0);
    let gone = open(&bus, &opening("hello")).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::ModelNotFound);
    let again: Result<Ask, _> = ask(&bus, names::MODELS_UNLOAD, unload(true)).await;
    assert_eq!(again.unwrap_err().code, ErrorCode::ModelNotFound);
}

#[tokio::test]
async fn models_that_were_there_before_are_known_from_the_start() {
    let broker = Broker::start().await;
    let bus = broker.bus().await;
    bus.ensure_layout(&chorus_bus::Layout::default()).await.unwrap();
    bus.catalogue().put(&definition("joe")).await.unwrap();
    let _manager = broker.manager("m1").await;
    open(&bus, &opening("hello")).await.unwrap();
    assert_eq!(queued(&bus, JobClass::High).await.len(), 1);
}

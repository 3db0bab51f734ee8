//! Which model to load or unload next. Pure: what is wanted, what is loaded and what failed go in, one step comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chorus_protocol::fleet::{LoadedModel, ModelState, Tuning};
use chorus_protocol::pipe::LoadAnswer;
use chorus_protocol::{ModelDefinition, ModelName};

use crate::config::Assigned;

/// First wait after a model did not load; it doubles with each further failure, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Load this one.
    Load(Box<ModelDefinition>),
    /// Unload this one.
    Unload(ModelName),
    /// Nothing, until something changes or this time comes.
    Wait(Option<Instant>),
}

/// A model that speaks.
#[derive(Debug, Clone, PartialEq)]
struct Loaded {
    definition: ModelDefinition,
    sample_rate: u32,
    load_ms: f64,
    identity: Option<String>,
    tuning: Option<Tuning>,
}

/// A model that did not load.
#[derive(Debug, Clone, PartialEq)]
struct Failure {
    definition: ModelDefinition,
    error: String,
    times: u32,
    again_at: Instant,
}

/// The state that steps follow from.
#[derive(Debug)]
pub(crate) struct Plan {
    assigned: Assigned,
    engine: String,
    catalogue: BTreeMap<ModelName, ModelDefinition>,
    /// What the present listing of the catalogue has told so far.
    listed: BTreeSet<ModelName>,
    /// Models of the catalogue that all workers of this engine were told to serve, beyond those assigned.
    placed: BTreeSet<ModelName>,
    /// Models added by order, beyond those assigned.
    added: BTreeMap<ModelName, ModelDefinition>,
    /// Models taken away by order.
    withheld: BTreeSet<ModelName>,
    loaded: BTreeMap<ModelName, Loaded>,
    failures: BTreeMap<ModelName, Failure>,
}

impl Plan {
    /// A plan for the models of `assigned` that are for the kind `engine`; the catalogue is empty yet.
    pub(crate) fn new(assigned: Assigned, engine: String) -> Self {
        Self {
            assigned,
            engine,
            catalogue: BTreeMap::new(),
            listed: BTreeSet::new(),
            placed: BTreeSet::new(),
            added: BTreeMap::new(),
            withheld: BTreeSet::new(),
            loaded: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// The catalogue has this model now.
    pub(crate) fn catalogued(&mut self, model: ModelDefinition) {
        self.listed.insert(model.name.clone());
        self.catalogue.insert(model.name.clone(), model);
    }

    /// The catalogue is about to be listed anew.
    pub(crate) fn listing_begins(&mut self) {
        self.listed.clear();
    }

    /// The catalogue has been told in full: what was not named is gone.
    pub(crate) fn listing_ends(&mut self) {
        self.catalogue.retain(|name, _| self.listed.contains(name));
    }

    /// The catalogue has it no more. An order to serve it is void too.
    pub(crate) fn removed(&mut self, model: &ModelName) {
        self.catalogue.remove(model);
        self.listed.remove(model);
        self.added.remove(model);
    }

    /// All workers of this engine were told to serve this model, whether or not it was here to hear of it.
    pub(crate) fn placed(&mut self, model: ModelName) {
        self.placed.insert(model);
    }

    /// That holds no more.
    pub(crate) fn displaced(&mut self, model: &ModelName) {
        self.placed.remove(model);
    }

    /// Ordered to serve this model.
    pub(crate) fn add(&mut self, model: ModelDefinition) {
        self.withheld.remove(&model.name);
        self.failures.remove(&model.name);
        self.added.insert(model.name.clone(), model);
    }

    /// Ordered to serve it no more.
    pub(crate) fn withhold(&mut self, model: ModelName) {
        self.added.remove(&model);
        self.withheld.insert(model);
    }

    /// The engine that had loaded things is gone.
    pub(crate) fn engine_lost(&mut self) {
        self.loaded.clear();
    }

    /// A model was loaded.
    pub(crate) fn loaded(&mut self, definition: ModelDefinition, answer: &LoadAnswer) {
        self.failures.remove(&definition.name);
        let (sample_rate, load_ms, tuning) = (answer.sample_rate, answer.load_ms, answer.tuning.clone());
        let loaded = Loaded { definition, sample_rate, load_ms, tuning, identity: None };
        self.loaded.insert(loaded.definition.name.clone(), loaded);
    }

    /// What the takes of a model depend on is known.
    pub(crate) fn identified(&mut self, definition: &ModelDefinition, identity: String) {
        if let Some(loaded) = self.loaded.get_mut(&definition.name)
            && loaded.definition == *definition
        {
            loaded.identity = Some(identity);
        }
    }

    /// A model was unloaded, or must not be counted on.
    pub(crate) fn unloaded(&mut self, model: &ModelName) {
        self.loaded.remove(model);
    }

    /// A model did not load.
    pub(crate) fn failed(&mut self, definition: ModelDefinition, error: String, now: Instant) {
        let times = self.failures.get(&definition.name).map_or(0, |failure| failure.times) + 1;
        let delay = (FIRST_RETRY * 2u32.pow((times - 1).min(10))).min(LONGEST_RETRY);
        let name = definition.name.clone();
        self.failures.insert(name, Failure { definition, error, times, again_at: now + delay });
    }

    /// What to do next on an engine that is ready.
    pub(crate) fn next(&self, now: Instant) -> Step {
        let wanted = self.wanted();
        let unwanted = |(name, loaded): &(&ModelName, &Loaded)| wanted.get(name) != Some(&&loaded.definition);
        if let Some((name, _)) = self.loaded.iter().find(unwanted) {
            return Step::Unload(name.clone());
        }
        let mut again_at = None;
        for (name, definition) in wanted {
            if self.loaded.contains_key(name) {
                continue;
            }
            // A definition that has changed since deserves another try at once.
            let failure = self.failures.get(name).filter(|failure| failure.definition == *definition);
            match failure {
                Some(failure) if failure.again_at > now => {
                    again_at =
                        Some(again_at.map_or(failure.again_at, |at: Instant| at.min(failure.again_at)));
                }
                _ => return Step::Load(Box::new(definition.clone())),
            }
        }
        Step::Wait(again_at)
    }

    /// The models that speak.
    pub(crate) fn ready(&self) -> BTreeSet<ModelName> {
        self.loaded.keys().cloned().collect()
    }

    /// Segments that the engine can have in hand at a time, by what its models told when they were loaded. With several
    /// models it is the least: a job over it would wait in the engine while another worker is idle.
    pub(crate) fn room(&self) -> Option<u32> {
        self.loaded.values().filter_map(|loaded| loaded.tuning.as_ref()).map(Tuning::room).min()
    }

    /// All models that are wanted, and how far they are.
    pub(crate) fn states(&self) -> Vec<LoadedModel> {
        let state = |name: &ModelName| {
            let loaded = self.loaded.get(name);
            let failure = self.failures.get(name);
            let state = match (loaded, failure) {
                (Some(_), _) => ModelState::Ready,
                (None, Some(_)) => ModelState::Failed,
                (None, None) => ModelState::Loading,
            };
            LoadedModel {
                name: name.clone(),
                state,
                sample_rate: loaded.map(|loaded| loaded.sample_rate),
                load_ms: loaded.map(|loaded| loaded.load_ms),
                tuning: loaded.and_then(|loaded| loaded.tuning.clone()),
                error: failure.map(|failure| failure.error.clone()),
                identity: loaded.and_then(|loaded| loaded.identity.clone()),
            }
        };
        self.wanted().keys().copied().map(state).collect()
    }

    fn wanted(&self) -> BTreeMap<&ModelName, &ModelDefinition> {
        let assigned = |name: &ModelName| match &self.assigned {
            Assigned::Listed(names) => names.contains(name),
            Assigned::AllOfEngine => true,
        };
        let of_catalogue =
            self.catalogue.iter().filter(|(name, _)| assigned(name) || self.placed.contains(*name));
        of_catalogue
            .chain(&self.added)
            .filter(|(name, model)| model.engine == self.engine && !self.withheld.contains(*name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model(name: &str, engine: &str) -> ModelDefinition {
        let definition = json!({"name": name, "engine": engine, "source": {"builtin": engine}});
        serde_json::from_value(definition).unwrap()
    }

    fn answer(value: serde_json::Value) -> LoadAnswer {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_room_is_the_least_that_a_loaded_model_has() {
        let tuned = |lanes: u32, batch: u32| {
            let tuning = json!({"runtime": "onnx", "lanes": lanes, "maxBatch": batch});
            answer(json!({"sampleRate": 16_000, "loadMs": 1.0, "tuning": tuning}))
        };
        let mut plan = Plan::new(Assigned::AllOfEngine, "null".into());
        assert_eq!(plan.room(), None);
        plan.loaded(model("plain", "null"), &answer(json!({"sampleRate": 16_000, "loadMs": 1.0})));
        assert_eq!(plan.room(), None);
        plan.loaded(model("a", "null"), &tuned(4, 2));
        plan.loaded(model("b", "null"), &tuned(0, 3));
        assert_eq!(plan.room(), Some(3));
        plan.unloaded(&model("b", "null").name);
        assert_eq!(plan.room(), Some(8));
    }

    fn load(plan: &mut Plan, now: Instant) -> ModelName {
        let Step::Load(definition) = plan.next(now) else { panic!("nothing to load") };
        let name = definition.name.clone();
        plan.loaded(*definition, &answer(json!({"sampleRate": 16_000, "loadMs": 1.0})));
        name
    }

    #[test]
    fn all_of_an_engine_follow_the_catalogue() {
        let now = Instant::now();
        let mut plan = Plan::new(Assigned::AllOfEngine, "null".into());
        assert_eq!(plan.next(now), Step::Wait(None));
        plan.catalogued(model("a", "null"));
        plan.catalogued(model("b", "coqui"));
        assert_eq!(load(&mut plan, now).as_str(), "a");
        assert_eq!(plan.next(now), Step::Wait(None));
        plan.removed(&model("a", "null").name);
        assert_eq!(plan.next(now), Step::Unload(model("a", "null").name));
    }

    #[test]
    fn an_identity_is_of_the_definition_that_was_loaded() {
        let mut plan = Plan::new(Assigned::AllOfEngine, "null".into());
        let a = model("a", "null");
        plan.catalogued(a.clone());
        let identity = |plan: &Plan| plan.states()[0].identity.clone();
        plan.identified(&a, "early".into());
        load(&mut plan, Instant::now());
        assert_eq!(identity(&plan), None);
        plan.identified(&ModelDefinition { aliases: vec!["x".into()], ..a.clone() }, "other".into());
        assert_eq!(identity(&plan), None);
        plan.identified(&a, "it".into());
        assert_eq!(identity(&plan).as_deref(), Some("it"));
        plan.engine_lost();
        assert_eq!(identity(&plan), None);
    }

    #[test]
    fn what_a_new_listing_does_not_name_is_gone() {
        let now = Instant::now();
        let mut plan = Plan::new(Assigned::AllOfEngine, "null".into());
        plan.catalogued(model("a", "null"));
        plan.catalogued(model("b", "null"));
        plan.listing_ends();
        load(&mut plan, now);
        load(&mut plan, now);
        plan.listing_begins();
        plan.catalogued(model("b", "null"));
        assert_eq!(plan.next(now), Step::Wait(None));
        plan.listing_ends();
        assert_eq!(plan.next(now), Step::Unload(model("a", "null").name));
    }

    #[test]
    fn a_changed_definition_is_loaded_anew() {
        let now = Instant::now();
        let mut plan = Plan::new(Assigned::Listed(vec![model("a", "null").name]), "null".into());
        plan.catalogued(model("a", "null"));
        plan.catalogued(model("other", "null"));
        let name = load(&mut plan, now);
        plan.catalogued(ModelDefinition { aliases: vec!["x".into()], ..model("a", "null") });
        assert_eq!(plan.next(now), Step::Unload(name.clone()));
        plan.unloaded(&name);
        assert!(matches!(plan.next(now), Step::Load(_)));
    }

    #[test]
    fn what_all_were_told_to_serve_is_served_beyond_what_is_assigned_and_until_told_otherwise() {
        let now = Instant::now();
        let (own, ordered) = (model("own", "null"), model("ordered", "null"));
        let mut plan = Plan::new(Assigned::Listed(vec![own.name.clone()]), "null".into());
        plan.placed(ordered.name.clone());
        plan.placed(model("foreign", "coqui").name);
        assert_eq!(plan.next(now), Step::Wait(None), "only the catalogue says what it is");
        for known in [own.clone(), ordered.clone(), model("foreign", "coqui")] {
            plan.catalogued(known);
        }
        assert_eq!([load(&mut plan, now), load(&mut plan, now)], [ordered.name.clone(), own.name]);
        assert_eq!(plan.next(now), Step::Wait(None));
        plan.displaced(&ordered.name);
        assert_eq!(plan.next(now), Step::Unload(ordered.name.clone()));
        plan.unloaded(&ordered.name);
        plan.placed(ordered.name.clone());
        assert_eq!(load(&mut plan, now), ordered.name.clone());
        plan.withhold(ordered.name.clone());
        assert_eq!(plan.next(now), Step::Unload(ordered.name), "the newest word counts");
    }

    #[test]
    fn failures_are_tried_again_ever_later() {
        let now = Instant::now();
        let mut plan = Plan::new(Assigned::AllOfEngine, "null".into());
        plan.catalogued(model("a", "null"));
        plan.failed(model("a", "null"), "no file".into(), now);
        assert_eq!(plan.next(now), Step::Wait(Some(now + FIRST_RETRY)));
        assert_eq!(plan.states()[0].state, ModelState::Failed);
        assert!(matches!(plan.next(now + FIRST_RETRY), Step::Load(_)));
        plan.failed(model("a", "null"), "no file".into(), now);
        assert_eq!(plan.next(now), Step::Wait(Some(now + 2 * FIRST_RETRY)));
    }

    #[test]
    fn orders_add_and_withhold() {
        let now = Instant::now();
        let mut plan = Plan::new(Assigned::Listed(vec![model("a", "null").name]), "null".into());
        plan.add(model("b", "null"));
        let name = load(&mut plan, now);
        plan.withhold(name.clone());
        assert_eq!(plan.next(now), Step::Unload(name));
        plan.engine_lost();
        assert!(plan.ready().is_empty() && plan.states().is_empty());
    }
}

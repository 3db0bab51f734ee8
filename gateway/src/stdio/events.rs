//! What happens in the fleet, told to a parent that wants to know.
//!
//! News never hold up answers: those for which there is no room are counted, and the count is told when there is.

use chorus_protocol::names;
use serde_json::{Map, Value, json};

use super::outbox::Speaker;
use crate::fleet::{Access, Fleet};

/// The kind that is told only where it is asked for by name: one for every segment spoken.
const ON_REQUEST: &str = "outcome";

/// Tells events until it is dropped. `kinds`: those that are wanted; all but `outcome` when `None`.
pub(super) async fn relay(access: Access, speaker: Speaker, kinds: Option<Vec<String>>) {
    let Ok(fleet) = access.ready().await else { return };
    let mut told = Told { speaker, kinds, missed: 0 };
    told.tell("fleetReady", own("fleetReady", "a model can speak", json!({})));
    if let Err(error) = listen(&fleet, &mut told).await {
        tracing::warn!(%error, "the fleet's events cannot be heard");
    }
}

async fn listen(fleet: &Fleet, told: &mut Told) -> Result<(), chorus_bus::BusError> {
    let mut events = fleet.bus.subscribe(names::ALL_EVENTS, None).await?;
    while let Some(event) = events.next().await {
        // As it came: fields that only newer fleets know stay in it.
        let mut fields = match event.decode::<Map<String, Value>>() {
            Ok(envelope) => envelope.payload,
            Err(error) => {
                tracing::debug!(subject = event.subject(), %error, "an event cannot be read");
                continue;
            }
        };
        let kind = match fields.get("kind").and_then(Value::as_str) {
            Some(kind) => kind.to_owned(),
            // Outcomes are a type of their own, known by their subject.
            None => event.subject().rsplit('.').next().unwrap_or_default().to_owned(),
        };
        fields.insert("event".into(), "fleet".into());
        fields.insert("kind".into(), kind.clone().into());
        told.tell(&kind, fields);
    }
    Ok(())
}

struct Told {
    speaker: Speaker,
    kinds: Option<Vec<String>>,
    missed: u64,
}

impl Told {
    fn tell(&mut self, kind: &str, fields: Map<String, Value>) {
        let wanted = match &self.kinds {
            Some(kinds) => kinds.iter().any(|wanted| wanted == kind),
            None => kind != ON_REQUEST,
        };
        if !wanted {
            return;
        }
        if self.missed > 0 {
            let details = json!({"missed": self.missed});
            if !self.speaker.news(own("eventsMissed", "the parent read too slowly", details)) {
                self.missed += 1;
                return;
            }
            self.missed = 0;
        }
        if !self.speaker.news(fields) {
            self.missed += 1;
        }
    }
}

fn own(kind: &str, message: &str, details: Value) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("event".into(), "fleet".into());
    fields.insert("kind".into(), kind.into());
    fields.insert("message".into(), message.into());
    fields.insert("details".into(), details);
    fields
}

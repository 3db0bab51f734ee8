//! JSON Schemas: generated from the types, committed, and judged beside the decoder by a validator that is not ours.
//!
//! Of every vector, and of every vector with one thing wrong, the schema must think what the decoder thinks.

use std::fmt::Debug;
use std::path::PathBuf;

use chorus_protocol::Envelope;
use jsonschema::Validator;
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Checks that the schema of a message is current and agrees with the decoder about this message and its broken forms.
pub(crate) fn check<T: JsonSchema + DeserializeOwned>(name: &str, payload: &Value) {
    check_reader::<T, _, _>(name, payload, |value| serde_json::from_value::<T>(value.clone()));
}

/// The same of what is read by other means than its type.
pub(crate) fn check_reader<T: JsonSchema, R, E: Debug>(
    name: &str,
    payload: &Value,
    reader: impl Fn(&Value) -> Result<R, E>,
) {
    let validator = current::<T>();
    for form in std::iter::once(payload.clone()).chain(broken_forms(payload)) {
        let read = reader(&form).map(drop);
        let found: Vec<String> = validator.iter_errors(&form).map(|error| error.to_string()).collect();
        assert_eq!(
            found.is_empty(),
            read.is_ok(),
            "{name}: the schema finds {found:?}, the decoder {read:?} in {form}"
        );
    }
}

/// The same of a whole envelope, whose payload may be anything.
pub(crate) fn check_envelope(name: &str, envelope: &Value) {
    let mut envelope = envelope.clone();
    envelope["payload"] = json!({});
    check::<Envelope<Value>>(name, &envelope);
}

/// The schema of a type, which is that of its file.
pub(crate) fn current<T: JsonSchema>() -> Validator {
    let mut schema = schema_for!(T).to_value();
    without_links(&mut schema);
    super::vectors::compare(&path(&T::schema_name()), &format!("{schema:#}\n"));
    jsonschema::validator_for(&schema).unwrap()
}

/// Descriptions are the comments of the types; their links lead nowhere outside of them.
fn without_links(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
            }
            fields.values_mut().for_each(without_links);
        }
        Value::Array(items) => items.iter_mut().for_each(without_links),
        _ => {}
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas").join(format!("{name}.json"))
}

/// The value with one thing lost, added or replaced, for each thing in it.
fn broken_forms(value: &Value) -> Vec<Value> {
    let mut forms = vec![json!(null), json!(true), json!(-1), json!(1.5), json!("\u{7}"), json!({})];
    match value {
        Value::Object(fields) => {
            let mut more = fields.clone();
            more.insert("novel".into(), json!([1]));
            forms.push(Value::Object(more));
            for (name, inner) in fields {
                let mut less = fields.clone();
                less.remove(name);
                forms.push(Value::Object(less));
                forms.extend(broken_forms(inner).into_iter().map(|broken| {
                    let mut changed = fields.clone();
                    changed.insert(name.clone(), broken);
                    Value::Object(changed)
                }));
            }
        }
        Value::Array(items) => {
            forms.push(json!([]));
            for (at, inner) in items.iter().enumerate() {
                forms.extend(broken_forms(inner).into_iter().map(|broken| {
                    let mut changed = items.clone();
                    changed[at] = broken;
                    Value::Array(changed)
                }));
            }
        }
        // Not in the place of an object: the decoder takes its fields by position, which is nobody's business.
        _ => forms.push(json!([])),
    }
    forms
}

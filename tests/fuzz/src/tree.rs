//! Changes to what a message says, where [`crate::mutate`] changes its bytes: most of what comes of these can be parsed, and
//! so reaches the types and the adapters behind the parsers.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

/// How deep something is buried now and then; [`chorus_protocol::codec::MAX_DEPTH`] is less.
const DEEP: usize = 40;

/// Changes a message a few times; `others` lend their parts.
pub(crate) fn mutate(tree: &mut Value, others: &[Value], random: &mut StdRng) {
    for _ in 0..random.random_range(1..=3) {
        once(descend(tree, random), others, random);
    }
}

/// The message in 2.0's encoding or in 2.1's.
pub(crate) fn encode(tree: &Value, random: &mut StdRng) -> Vec<u8> {
    let packed = if random.random() { rmp_serde::to_vec_named(tree).ok() } else { None };
    packed.unwrap_or_else(|| tree.to_string().into_bytes())
}

fn once(at: &mut Value, others: &[Value], random: &mut StdRng) {
    match (random.random_range(0..7), &mut *at) {
        (0, Value::Object(fields)) => {
            let name = any_name(fields, random);
            fields.remove(&name);
        }
        (1, Value::Object(fields)) => {
            let name = any_name(fields, random);
            fields.insert(name, lent(others, random));
        }
        (2, Value::Object(fields)) => {
            // What belongs under one name stands under another.
            let (one, other) = (any_name(fields, random), any_name(fields, random));
            if let Some(value) = fields.get(&one).cloned() {
                fields.insert(other, value);
            }
        }
        (0..=2, Value::Array(items)) => {
            let item = items.choose(random).cloned().unwrap_or_else(|| odd(random));
            items.extend(std::iter::repeat_n(item, random.random_range(1..=4)));
        }
        (0..=2, Value::String(text)) => {
            let characters = ['\0', '\n', '"', '\u{7f}', 'é', '\u{10ffff}', '<', '-', '0'];
            text.extend(characters.choose(random));
        }
        (3, _) => *at = json!([at.take()]),
        (4, _) => *at = lent(others, random),
        _ => *at = odd(random),
    }
}

/// A part of the message: any, the outer ones more often.
fn descend<'a>(mut at: &'a mut Value, random: &mut StdRng) -> &'a mut Value {
    loop {
        let parts = match at {
            Value::Object(fields) => fields.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if parts == 0 || random.random_ratio(1, 4) {
            return at;
        }
        let chosen = random.random_range(0..parts);
        let inside = match at {
            Value::Object(fields) => fields.values_mut().nth(chosen),
            Value::Array(items) => items.get_mut(chosen),
            _ => None,
        };
        at = inside.expect("it is one of its parts");
    }
}

/// A part of another message.
fn lent(others: &[Value], random: &mut StdRng) -> Value {
    match others.choose(random) {
        Some(other) => descend(&mut other.clone(), random).take(),
        None => odd(random),
    }
}

/// The name of one of its fields, or now and then one that nobody knows.
fn any_name(fields: &Map<String, Value>, random: &mut StdRng) -> String {
    if fields.is_empty() || random.random_ratio(1, 8) {
        return "novel".to_owned();
    }
    fields.keys().nth(random.random_range(0..fields.len())).cloned().unwrap_or_default()
}

/// Something at the end of a range.
fn odd(random: &mut StdRng) -> Value {
    match random.random_range(0..16) {
        0 => Value::Null,
        1 => true.into(),
        2 => 0.into(),
        3 => (-1).into(),
        4 => u64::MAX.into(),
        5 => i64::MIN.into(),
        6 => u32::MAX.into(),
        7 => json!(f64::MAX),
        8 => json!(-0.0),
        9 => json!(random.random::<f64>()),
        10 => "".into(),
        11 => "\u{0}".into(),
        12 => "x".repeat(random.random_range(1..300)).into(),
        13 => json!({}),
        14 => json!([]),
        _ => (0..DEEP).fold(Value::Null, |inner, _| json!([inner])),
    }
}

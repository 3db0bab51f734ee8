//! Dead letters.

use bytes::Bytes;
use chorus_bus::{BusErrorKind, DeadLetters, DeadQuery};
use chorus_protocol::{Envelope, ModelName, names};

use crate::support::*;

const ALL: DeadQuery<'_> = DeadQuery { limit: 100, model: None, after: 0 };

fn letter(text: &str) -> Envelope<String> {
    Envelope::event(text.to_owned(), 1)
}

async fn listed(letters: &DeadLetters<String>, query: DeadQuery<'_>) -> Vec<(u64, String)> {
    let listed = letters.list(query).await.unwrap();
    listed
        .into_iter()
        .map(|stored| (stored.seq, stored.letter.map_or_else(|e| e.to_string(), |l| l.payload)))
        .collect()
}

#[tokio::test]
async fn letters_are_kept_listed_and_deleted() {
    let server = Server::start().await;
    let letters = server.laid_out().await.dead_letters::<String>();
    let (one, two) = (model(), ModelName::new("other").unwrap());
    let mut heard = letters.subscribe().await.unwrap();
    let poison = letter("poison");
    let first = letters.publish(&one, &poison).await.unwrap();
    assert_eq!(letters.publish(&one, &poison).await.unwrap(), first, "the same letter twice");
    let second = letters.publish(&two, &letter("expired")).await.unwrap();
    let third = letters.publish(&one, &letter("again")).await.unwrap();
    assert_eq!(soon("a letter", heard.next()).await.unwrap().decode::<String>().unwrap(), poison);

    let of = |seq, text: &str| (seq, text.to_owned());
    let all = [of(first, "poison"), of(second, "expired"), of(third, "again")];
    assert_eq!(listed(&letters, ALL).await, all);
    assert_eq!(listed(&letters, DeadQuery { limit: 2, ..ALL }).await, all[..2]);
    assert_eq!(listed(&letters, DeadQuery { after: second, ..ALL }).await, all[2..]);
    let only_one = DeadQuery { model: Some(&one), ..ALL };
    assert_eq!(listed(&letters, only_one).await, [all[0].clone(), all[2].clone()]);

    assert_eq!(letters.get(first).await.unwrap().unwrap().letter.unwrap(), poison);
    assert!(letters.delete(first).await.unwrap());
    assert!(!letters.delete(first).await.unwrap());
    assert!(letters.get(first).await.unwrap().is_none());
    assert_eq!(letters.purge(Some(&two)).await.unwrap(), 1);
    assert_eq!(listed(&letters, ALL).await, all[2..]);
    assert_eq!(letters.purge(None).await.unwrap(), 1);
    assert_eq!(listed(&letters, ALL).await, []);
}

#[tokio::test]
async fn a_letter_that_cannot_be_read_is_listed_with_the_reason() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let rubbish = Bytes::from_static(b"rubbish");
    bus.request_raw(&names::dead_subject(&model()), rubbish, PATIENCE).await.unwrap();
    let letters = bus.dead_letters::<String>();
    let listed = letters.list(ALL).await.unwrap();
    assert!(listed.len() == 1 && listed[0].letter.is_err());
    assert!(letters.delete(listed[0].seq).await.unwrap());
    let large = letter(&"x".repeat(bus.server().max_payload));
    assert_eq!(letters.publish(&model(), &large).await.unwrap_err().kind, BusErrorKind::TooLarge);
}

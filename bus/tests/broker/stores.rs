//! The catalogue and the objects.

use std::time::Duration;

use bytes::Bytes;
use chorus_bus::{BusErrorKind, CatalogueChange, Layout, ObjectBucket};
use chorus_protocol::clip::MAX_CLIP_BYTES;
use chorus_protocol::{ClipId, ModelName};

use crate::support::*;

#[tokio::test]
async fn models_are_kept() {
    let server = Server::start().await;
    let catalogue = server.laid_out().await.catalogue();
    let (a, b) = (definition("en/a.1"), definition("日本語"));
    assert_eq!(catalogue.list().await.unwrap(), []);
    assert!(catalogue.create(&b).await.unwrap());
    assert!(!catalogue.create(&b).await.unwrap());
    catalogue.put(&a).await.unwrap();
    catalogue.put(&a).await.unwrap();
    assert_eq!(catalogue.get(&a.name).await.unwrap(), Some(a.clone()));
    let names: Vec<_> = catalogue.list().await.unwrap().into_iter().map(|model| model.name).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&a.name) && names.contains(&b.name));

    catalogue.remove(&b.name).await.unwrap();
    catalogue.remove(&ModelName::new("never there").unwrap()).await.unwrap();
    assert_eq!(catalogue.get(&b.name).await.unwrap(), None);
    assert_eq!(catalogue.list().await.unwrap(), [a]);
    assert!(catalogue.create(&b).await.unwrap());
}

#[tokio::test]
async fn changes_are_told_after_what_was_there() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let catalogue = bus.catalogue();
    let mut empty = catalogue.watch().await.unwrap();
    assert_eq!(soon("ready", empty.next()).await, Some(CatalogueChange::Ready));

    let (a, b) = (definition("a"), definition("b"));
    catalogue.put(&a).await.unwrap();
    // An entry that cannot be read is left out, and hides nothing.
    bus.respond_raw("$KV.tts-models.broken", Bytes::from_static(b"{")).await.unwrap();
    bus.flush().await.unwrap();
    let mut watch = catalogue.watch().await.unwrap();
    assert_eq!(soon("a", watch.next()).await, Some(CatalogueChange::Put(a.clone())));
    assert_eq!(soon("ready", watch.next()).await, Some(CatalogueChange::Ready));
    catalogue.put(&b).await.unwrap();
    catalogue.remove(&a.name).await.unwrap();
    for watch in [&mut watch, &mut empty] {
        let mut change = soon("b", watch.next()).await.unwrap();
        if change == CatalogueChange::Put(a.clone()) {
            change = soon("b", watch.next()).await.unwrap();
        }
        assert_eq!(change, CatalogueChange::Put(b.clone()));
        assert_eq!(soon("removal", watch.next()).await, Some(CatalogueChange::Removed(a.name.clone())));
    }
}

#[tokio::test]
async fn a_watch_outlives_a_restart_of_the_server() {
    let mut server = Server::start().await;
    let bus = server.laid_out().await;
    let mut watch = bus.catalogue().watch().await.unwrap();
    assert_eq!(soon("ready", watch.next()).await, Some(CatalogueChange::Ready));
    server.kill().await;
    server.restart().await;
    let model = definition("late");
    eventually("a put", async || bus.catalogue().put(&model).await.ok()).await;
    assert_eq!(soon("the change", watch.next()).await, Some(CatalogueChange::Put(model)));
}

/// The server loses its store: what is no longer there is told, and the watch goes on.
#[tokio::test]
async fn a_watch_outlives_the_loss_of_the_store() {
    let mut server = Server::start().await;
    let bus = server.laid_out().await;
    let (old, new) = (definition("old"), definition("new"));
    bus.catalogue().put(&old).await.unwrap();
    let mut watch = bus.catalogue().watch().await.unwrap();
    assert_eq!(soon("old", watch.next()).await, Some(CatalogueChange::Put(old.clone())));
    assert_eq!(soon("ready", watch.next()).await, Some(CatalogueChange::Ready));
    server.kill().await;
    server.lose_store();
    server.restart().await;
    let told = async {
        let mut told = Vec::new();
        while told.len() < 2 {
            told.extend(watch.next().await);
        }
        told
    };
    let refilling = async {
        eventually("a layout", async || bus.ensure_layout(&Layout::default()).await.ok()).await;
        bus.catalogue().put(&new).await.unwrap();
    };
    let (mut told, ()) = soon("two changes", async { tokio::join!(told, refilling) }).await;
    // The new one may come with the reopening or after it.
    told.sort_by_key(|change| matches!(change, CatalogueChange::Put(_)));
    assert_eq!(told, [CatalogueChange::Removed(old.name), CatalogueChange::Put(new)]);
}

#[tokio::test]
async fn audio_comes_back_whole() {
    let server = Server::start().await;
    let store = server.laid_out().await.audio_store();
    let audio: Bytes = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    store.put("reply-1.wav", audio.clone()).await.unwrap();
    assert_eq!(store.get("reply-1.wav").await.unwrap(), audio);
    store.put("reply-1.wav", Bytes::from_static(b"short")).await.unwrap();
    assert_eq!(&store.get("reply-1.wav").await.unwrap()[..], b"short");
    store.put("empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get("empty").await.unwrap(), Bytes::new());
    store.delete("reply-1.wav").await.unwrap();
    store.delete("reply-1.wav").await.unwrap();
    assert_eq!(store.get("reply-1.wav").await.unwrap_err().kind, BusErrorKind::NotFound);
}

#[tokio::test]
async fn objects_of_two_buckets_do_not_meet_and_each_forgets_in_its_time() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let layout = Layout { cache_ttl: Duration::from_secs(1), audio_max_bytes: 1024, ..Layout::default() };
    bus.ensure_layout(&layout).await.unwrap();
    let (audio, cache) = (bus.objects(ObjectBucket::Audio), bus.objects(ObjectBucket::Cache));
    let both = Bytes::from_static(b"both");
    for store in [&audio, &cache] {
        store.put("key", both.clone()).await.unwrap();
    }
    let error = audio.put("large", Bytes::from(vec![0; 4096])).await.unwrap_err();
    assert_eq!(error.kind, BusErrorKind::Refused, "{error}");
    // Also when a read was under way as it was forgotten.
    eventually("the cache forgets", async || match cache.get("key").await {
        Ok(_) => None,
        Err(error) => (error.kind == BusErrorKind::NotFound).then_some(()),
    })
    .await;
    assert_eq!(audio.get("key").await.unwrap(), both);
}

#[tokio::test]
async fn clips_are_known_by_what_is_in_them() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let (clips, objects) = (bus.clips(), bus.objects(ObjectBucket::Clips));
    let within = Duration::from_secs(8);
    let speech = Bytes::from(vec![7; 300_000]);
    let id = clips.keep(speech.clone()).await.unwrap();
    assert_eq!((id, clips.fetch(&id, within).await.unwrap()), (ClipId::of(&speech), speech.clone()));

    let fetched = async |id: &ClipId| clips.fetch(id, within).await.map_err(|error| error.kind);
    assert_eq!(fetched(&ClipId::of(b"nobody's")).await, Err(BusErrorKind::NotFound));
    // Other bytes under its name are found out, and put right.
    for other in [Bytes::from(vec![8; speech.len()]), speech.slice(..1_000)] {
        objects.put(&id.key(), other).await.unwrap();
        assert_eq!(fetched(&id).await, Err(BusErrorKind::Malformed));
        assert_eq!(clips.keep(speech.clone()).await.unwrap(), id);
        assert_eq!(fetched(&id).await, Ok(speech.clone()));
    }

    let large = Bytes::from(vec![0; MAX_CLIP_BYTES + 1]);
    assert_eq!(clips.keep(large.clone()).await.unwrap_err().kind, BusErrorKind::TooLarge);
    let large_id = ClipId::of(&large);
    objects.put(&large_id.key(), large).await.unwrap();
    assert_eq!(fetched(&large_id).await, Err(BusErrorKind::TooLarge));
}

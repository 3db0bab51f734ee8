//! Listeners who stop listening.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use chorus_tests::{Home, chorus};

#[tokio::test]
async fn two_hundred_listeners_who_take_nothing_cost_the_others_nothing() {
    let home = Home::provisioned();
    let bench = ["bench", "streams", "--streams", "12", "--sentences", "3", "--stalled", "200", "--json"];
    let figures = chorus(&home, &bench).await.ok().json();
    assert_eq!((&figures["stalled"], &figures["streams"]), (&200.into(), &12.into()), "{figures}");
    assert_eq!((&figures["failed"], &figures["missing_samples"]), (&0.into(), &0.into()), "{figures}");
    // Twelve texts of nine seconds each, by real time: held up by the others, they would take several times as long.
    assert!(figures["took_s"].as_f64().unwrap() < 60.0, "{figures}");
}

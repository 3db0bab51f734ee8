//! See `chorus_fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _accepted = (chorus_fuzz::target("migrate").expect("it is in TARGETS").run)(bytes);
});

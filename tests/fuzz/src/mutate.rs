//! Changes that messages suffer: flipped bits, lost and doubled pieces, other lengths, and parts of other messages.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// An input never grows beyond this.
const MAX_BYTES: usize = 80 * 1024;

/// Bytes with a meaning: lengths and types of MessagePack, brackets of JSON and XML, ends of ranges.
const TELLING: [u8; 22] = [
    0x00, 0x7f, 0x80, 0x8f, 0x90, 0xc0, 0xc1, 0xc4, 0xc6, 0xca, 0xcb, 0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
    0xff, b'{', b'[', b'"', b'<',
];

/// Pieces that have broken parsers before.
const PIECES: [&[u8]; 11] = [
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":",
    b"1e999",
    b"-0.0",
    b"18446744073709551616",
    b"\\ud800",
    b"\xed\xa0\x80",
    b"<!ENTITY a \"&a;&a;\">",
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xc6, 0x7f, 0xff, 0xff, 0xff],
    // No number.
    &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
];

/// Changes an input a few times; `others` lend their parts.
pub(crate) fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
    for _ in 0..random.random_range(1..=4) {
        once(input, others, random);
        input.truncate(MAX_BYTES);
    }
}

fn once(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
    let (from, to) = range(input.len(), random);
    match random.random_range(0..10) {
        0 => change(input, random, |byte, random| byte ^ (1 << random.random_range(0..8))),
        1 => change(input, random, |_, random| TELLING.choose(random).copied().unwrap_or_default()),
        2 => change(input, random, |byte, random| {
            byte.wrapping_add(random.random_range(1..=35)).wrapping_sub(18)
        }),
        3 => drop(input.drain(from..to)),
        4 => input.truncate(from),
        5 => {
            let piece = input[from..to].to_vec();
            input.splice(to..to, piece);
        }
        6 => {
            let piece = PIECES.choose(random).copied().unwrap_or_default();
            input.splice(from..to, piece.iter().copied());
        }
        7 => {
            let Some(other) = others.choose(random) else { return };
            let (first, last) = range(other.len(), random);
            input.splice(from..to, other[first..last].iter().copied());
        }
        8 => no_number(input, random),
        _ => digits(input, random),
    }
}

fn change(input: &mut [u8], random: &mut StdRng, with: impl Fn(u8, &mut StdRng) -> u8) {
    if !input.is_empty() {
        let at = random.random_range(0..input.len());
        input[at] = with(input[at], random);
    }
}

/// A number of 2.1 becomes infinite, or none.
fn no_number(input: &mut [u8], random: &mut StdRng) {
    let doubles: Vec<usize> =
        (1..input.len().saturating_sub(8)).filter(|&at| input[at - 1] == 0xcb).collect();
    if let Some(&at) = doubles.choose(random) {
        let number = if random.random() { f64::NAN } else { f64::NEG_INFINITY };
        input[at..at + 8].copy_from_slice(&number.to_be_bytes());
    }
}

/// A number in a text becomes another.
fn digits(input: &mut Vec<u8>, random: &mut StdRng) {
    let Some(from) = input.iter().position(u8::is_ascii_digit) else { return };
    let until =
        input[from..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |n| from + n);
    let number = random.next_u64() >> random.random_range(0..64);
    input.splice(from..until, number.to_string().into_bytes());
}

/// A part of so many bytes: mostly a short one.
fn range(len: usize, random: &mut StdRng) -> (usize, usize) {
    let from = random.random_range(0..=len);
    let most = if random.random_ratio(1, 8) { len - from } else { (len - from).min(16) };
    (from, from + random.random_range(0..=most))
}

//! Numbers that are none: MessagePack can carry infinities and NaN, JSON cannot. A message that holds one could be read in
//! 2.1 and not be told in 2.0, so it is not read at all.

/// Whether well-formed MessagePack holds a number that is infinite or NaN. One pass over its heads; audio and text are
/// stepped over.
pub(super) fn holds_no_number(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [marker, tail @ ..] = rest {
        let length = |bytes: usize| {
            let prefix = tail.get(..bytes).unwrap_or_default();
            prefix.iter().fold(0, |sum: usize, &byte| sum << 8 | usize::from(byte))
        };
        let skipped = match marker {
            0xa0..=0xbf => usize::from(marker & 0x1f),
            0xc4 | 0xd9 => 1 + length(1),
            0xc5 | 0xda => 2 + length(2),
            0xc6 | 0xdb => 4 + length(4),
            0xc7 => 2 + length(1),
            0xc8 => 3 + length(2),
            0xc9 => 5 + length(4),
            0xca => match tail.first_chunk() {
                Some(number) if !f32::from_be_bytes(*number).is_finite() => return true,
                _ => 4,
            },
            0xcb => match tail.first_chunk() {
                Some(number) if !f64::from_be_bytes(*number).is_finite() => return true,
                _ => 8,
            },
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 | 0xd4 | 0xdc | 0xde => 2,
            0xd5 => 3,
            0xce | 0xd2 | 0xdd | 0xdf => 4,
            0xd6 => 5,
            0xcf | 0xd3 => 8,
            0xd7 => 9,
            0xd8 => 17,
            // Small numbers, nil, truth; and the heads of small maps and lists, whose parts follow.
            _ => 0,
        };
        rest = tail.get(skipped..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Debug, Clone, Serialize)]
    enum Part {
        Double(f64),
        Single(f32),
        Whole(i64),
        Text(String),
        Bytes(#[serde(serialize_with = "bytes")] Vec<u8>),
        List(Vec<Part>),
    }

    fn bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    fn is_finite(part: &Part) -> bool {
        match part {
            Part::Double(number) => number.is_finite(),
            Part::Single(number) => number.is_finite(),
            Part::List(parts) => parts.iter().all(is_finite),
            Part::Whole(_) | Part::Text(_) | Part::Bytes(_) => true,
        }
    }

    fn part() -> impl Strategy<Value = Part> {
        // Bytes that look like what is sought, where they are no numbers.
        let decoy = Just(vec![0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]);
        let leaf = prop_oneof![
            prop_oneof![Just(f64::NAN), Just(f64::INFINITY), any::<f64>()].prop_map(Part::Double),
            prop_oneof![Just(f32::NEG_INFINITY), any::<f32>()].prop_map(Part::Single),
            any::<i64>().prop_map(Part::Whole),
            ".{0,300}".prop_map(Part::Text),
            prop_oneof![decoy, proptest::collection::vec(any::<u8>(), 0..300)].prop_map(Part::Bytes),
        ];
        leaf.prop_recursive(3, 40, 20, |inner| proptest::collection::vec(inner, 0..20).prop_map(Part::List))
    }

    proptest! {
        #[test]
        fn what_is_no_number_is_found_and_nothing_else(part in part()) {
            let packed = rmp_serde::to_vec_named(&part).unwrap();
            prop_assert_eq!(holds_no_number(&packed), !is_finite(&part));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _found = holds_no_number(&bytes);
        }
    }
}

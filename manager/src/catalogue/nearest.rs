//! "Did you mean": the known name nearest to a mistyped one, by edit distance (Levenshtein, in characters).

/// Characters of a name that are compared; the rest of a longer one is left out, which bounds the work.
const COMPARED_CHARS: usize = 80;

/// The candidate nearest to `wanted`, if one is near enough to be meant: a third of its characters may differ, at least
/// one. Letter case does not count. The first of several equally near ones.
pub(super) fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = folded(wanted);
    let near = |candidate: &'a str| {
        let letters = folded(candidate);
        let distance = distance(&wanted, &letters);
        let allowed = (wanted.len().max(letters.len()) / 3).max(1);
        (distance <= allowed && distance < letters.len()).then_some((distance, candidate))
    };
    let best = candidates.into_iter().filter_map(near).min_by_key(|&(distance, _)| distance);
    best.map(|(_, candidate)| candidate)
}

fn folded(name: &str) -> Vec<char> {
    name.chars().flat_map(char::to_lowercase).take(COMPARED_CHARS).collect()
}

fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["tts_models/en/ljspeech/vits", "joe", "xtts_v2.0.2"];
        assert_eq!(nearest("tts_models/en/ljspech/vits", known), Some("tts_models/en/ljspeech/vits"));
        assert_eq!(nearest("Jo", known), Some("joe"));
        assert_eq!(nearest("xtts_v2", known), None);
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("x", ["a"]), None);
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in "[a-c]{0,8}", b in "[a-c]{0,8}", c in "[a-c]{0,8}") {
            let [a, b, c] = [folded(&a), folded(&b), folded(&c)];
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
            prop_assert!(distance(&a, &b) >= a.len().abs_diff(b.len()));
        }
    }
}

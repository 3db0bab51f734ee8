//! What speech people would check, and the two properties that the design rests on.

use proptest::prelude::*;

use super::*;

fn segmenter(max_chars: usize) -> Segmenter {
    Segmenter::new(SegmenterConfig { max_chars, ..SegmenterConfig::default() }).unwrap()
}

fn all(text: &str) -> Vec<Segment> {
    let page = segmenter(250).next_segments(text, true, usize::MAX);
    assert_eq!(page.consumed_bytes, text.len());
    page.segments
}

fn texts(text: &str) -> Vec<String> {
    all(text).into_iter().map(|segment| segment.text).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(texts(text), expected, "{text:?}");
}

#[test]
fn sentences() {
    check("Hi.", &["Hi."]);
    check("Hi. How are you? Fine!", &["Hi.", "How are you?", "Fine!"]);
    check("", &[]);
    check(" \n\t \u{feff}", &[]);
    check("no stop at all", &["no stop at all"]);
    check("Really?! Yes... Maybe… Perhaps.", &["Really?!", "Yes...", "Maybe…", "Perhaps."]);
    check("Well… I think so... maybe not.", &["Well…", "I think so... maybe not."]);
}

#[test]
fn abbreviations_initials_and_numbers() {
    check(
        "Dr. Smith met Mrs. Jones at 5 p.m. on Sunday.",
        &["Dr. Smith met Mrs. Jones at 5 p.m. on Sunday."],
    );
    check("Version 1.2.3 costs 3.50 dollars. See v2.0.", &["Version 1.2.3 costs 3.50 dollars.", "See v2.0."]);
    check("J. R. R. Tolkien wrote it. E.g. this one.", &["J. R. R. Tolkien wrote it.", "E.g. this one."]);
    check("He lives in the U.S. The rent is high.", &["He lives in the U.S.", "The rent is high."]);
    check("The U.S. Army is here.", &["The U.S. Army is here."]);
    check("I said no. Then I left.", &["I said no.", "Then I left."]);
    check("See no. 5 and fig. 3, vol. 2.", &["See no. 5 and fig. 3, vol. 2."]);
    check("Apple Inc. Chairman Smith spoke.", &["Apple Inc. Chairman Smith spoke."]);
    check("Das ist z.B. ein Test. Am 3. Oktober.", &["Das ist z.B. ein Test.", "Am 3. Oktober."]);
    check("See a.com/b?c=d! Then **rest.** OK.", &["See a.com/b?c=d!", "Then **rest.** OK."]);
    check("Go to example.com now. Then rest.", &["Go to example.com now.", "Then rest."]);
}

#[test]
fn quotes_and_brackets() {
    check("\"Stop!\" he said. \"Why?\" She ran.", &["\"Stop!\" he said.", "\"Why?\"", "She ran."]);
    check("(He left.) Then it rained.", &["(He left.)", "Then it rained."]);
    check("“It is over.” He sighed.", &["“It is over.”", "He sighed."]);
    check("He nodded. \"", &["He nodded. \""]);
    check("Great job! 🎉 Next one.", &["Great job!", "🎉 Next one."]);
    check("Great job! 🎉", &["Great job! 🎉"]);
    check("🎉", &["🎉"]);
}

#[test]
fn other_scripts() {
    check("你好。今天天气很好！你呢？", &["你好。", "今天天气很好！", "你呢？"]);
    check("「やめて。」と彼は言った。終わり。", &["「やめて。」と彼は言った。", "終わり。"]);
    check("यह एक वाक्य है। यह दूसरा है।", &["यह एक वाक्य है।", "यह दूसरा है।"]);
    check("كيف حالك؟ أنا بخير.", &["كيف حالك؟", "أنا بخير."]);
    check("Это А. С. Пушкин. Он поэт.", &["Это А. С. Пушкин.", "Он поэт."]);
}

#[test]
fn lists_and_lines() {
    check("Buy:\n- milk\n- two eggs\n\nThen go.", &["Buy:", "- milk", "- two eggs", "Then go."]);
    check("1. Open it. Look.\n2. Close it.", &["1. Open it.", "Look.", "2. Close it."]);
    check(
        "This line is\nwrapped by hand. So is\r\nthis one.",
        &["This line is wrapped by hand.", "So is this one."],
    );
    check("# Title\nText here.", &["# Title", "Text here."]);
    check("One.\n\n***\n\nTwo.\n\n***\n", &["One.", "*** Two. ***"]);
}

#[test]
fn pauses() {
    let pauses = |text: &str| all(text).iter().map(|segment| segment.pause_after_ms).collect::<Vec<_>>();
    assert_eq!(pauses("One. Two.\n\nThree.\n- four\n- five"), [300, 600, 300, 300, 300]);
    assert_eq!(pauses("One.\n\n"), [600]);
    let long = format!("{}, {}.", "word ".repeat(40).trim(), "other ".repeat(20).trim());
    assert_eq!(pauses(&long), [120, 300]);
    assert_eq!(pauses(&"word ".repeat(60)), [0, 300]);
}

#[test]
fn long_sentences_are_cut_at_clauses_spaces_and_clusters() {
    let clause = format!("{}, {}.", "aaaa ".repeat(30).trim(), "bbbb ".repeat(30).trim());
    let found = texts(&clause);
    assert_eq!(found.len(), 2);
    assert!(found[0].ends_with(','), "{found:?}");
    let balanced = texts(&"word ".repeat(56));
    assert!(balanced[0].len().abs_diff(balanced[1].len()) < 10, "{balanced:?}");
    let clusters = texts(&"e\u{301}".repeat(300));
    assert!(clusters.iter().all(|text| text.starts_with('e') && text.ends_with('\u{301}')));
    assert_eq!(texts(&"你".repeat(100)).len(), 2);
    assert!(texts(&format!("x{}", "\u{301}".repeat(900))).iter().all(|text| text.chars().count() <= 250));
}

#[test]
fn directives_stay_whole() {
    let text = "Hello. [[crash attempts=1. Now? ms=500]] There, [[stall ms=5]] now. Bye.";
    check(text, &["Hello.", "[[crash attempts=1. Now? ms=500]] There, [[stall ms=5]] now.", "Bye."]);
    let narrow = segmenter(20);
    let page = narrow.next_segments(&format!("say {text} {text}"), true, usize::MAX);
    for segment in &page.segments {
        assert_eq!(segment.text.matches("[[").count(), segment.text.matches("]]").count(), "{page:?}");
    }
}

#[test]
fn streaming_speaks_a_sentence_as_soon_as_it_is_certain() {
    let segmenter = segmenter(250);
    assert_eq!(segmenter.next_segments("Hello there.", false, 9), Page::default());
    let page = segmenter.next_segments("Hello there. H", false, 9);
    assert_eq!(page.segments.len(), 1);
    assert_eq!(page.consumed_bytes, 13);
    assert_eq!(segmenter.next_segments("Hello there.", true, 9).segments.len(), 1);
    assert_eq!(segmenter.next_segments("   ", false, 9).consumed_bytes, 3);
    assert_eq!(segmenter.next_segments("Hi. Yes. No", true, 0), Page::default());
}

#[test]
fn a_span_keeps_its_own_rest() {
    let text = "One. Two".to_owned();
    let span = Span { text, prosody: crate::Prosody::default(), voice: None, pause_after_ms: 7 };
    let rests: Vec<u32> =
        segmenter(250).segments_of_span(&span).iter().map(|segment| segment.pause_after_ms).collect();
    assert_eq!(rests, [300, 7]);
}

#[test]
fn lengths_out_of_range_are_refused() {
    for max_chars in [0, 19, 10_001] {
        let config = SegmenterConfig { max_chars, ..SegmenterConfig::default() };
        assert_eq!(Segmenter::new(config).unwrap_err(), SegmenterError::MaxChars(max_chars));
    }
}

/// Text made of the pieces that rules look at, in any order.
fn difficult_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z]{1,8}",
        1 => "[0-9]{1,5}",
        6 => prop::sample::select(vec![
            " ", ". ", ".", "! ", "?", "\n", "\n\n", "\r\n", ", ", "; ", ": ", "- ", "\n- ", "\n1. ", "\n2) ", "(", ")", "\"", "”",
            "…", "...", "。", "！", "」", "と", "。」と", "你好", "한국", "।", "؟", "Dr.", " No. ", "e.g. ", "U.S. ", " J. ",
            " The ", "[[", "]]", "[[ms=5. A]]", "# ", "***", "🎉", "👩‍👩‍👧", "e\u{301}", "\u{301}", "\u{200b}", "\u{200d}",
            "\u{ad}", "\u{feff}", "\0", "\u{2029}", "\u{85}", "ก", "ำ", "\t", "'", "—", " 3. ", "Oktober",
        ]).prop_map(String::from),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..90).prop_map(|pieces| pieces.concat())
}

/// Feeds `text` in pieces of the given sizes (in characters, used in turn), a page of `limit` at a time.
fn streamed(segmenter: &Segmenter, text: &str, sizes: &[usize], limit: usize) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = String::new();
    let mut characters = text.chars();
    for &size in sizes.iter().cycle() {
        let piece: String = characters.by_ref().take(size).collect();
        let is_final = piece.is_empty();
        rest.push_str(&piece);
        loop {
            let page = segmenter.next_segments(&rest, is_final, limit);
            rest.drain(..page.consumed_bytes);
            let is_over = page.segments.is_empty();
            segments.extend(page.segments);
            if is_over {
                break;
            }
        }
        if is_final {
            assert!(rest.is_empty());
            return segments;
        }
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_and_pages_change_nothing(
        text in difficult_text(), sizes in prop::collection::vec(1usize..40, 1..5), max in 20usize..80,
    ) {
        let segmenter = segmenter(max);
        let whole = segmenter.next_segments(&text, true, usize::MAX);
        prop_assert_eq!(whole.consumed_bytes, text.len());
        prop_assert_eq!(&streamed(&segmenter, &text, &[text.len() + 1], 1), &whole.segments);
        prop_assert_eq!(&streamed(&segmenter, &text, &[1], usize::MAX), &whole.segments);
        prop_assert_eq!(&streamed(&segmenter, &text, &sizes, 2), &whole.segments);
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_too_long(text in difficult_text(), max in 20usize..80) {
        let page = segmenter(max).next_segments(&text, true, usize::MAX);
        let visible = |text: &str| text.chars().filter(|&c| !is_blank(c)).collect::<String>();
        let joined: String = page.segments.iter().map(|segment| visible(&segment.text)).collect();
        prop_assert_eq!(joined, visible(&text));
        for segment in &page.segments {
            prop_assert_eq!(segment.text.trim(), &segment.text);
            let directive = segment.text.contains("]]");
            prop_assert!(directive || segment.text.chars().count() <= max, "{}", segment.text);
        }
    }
}

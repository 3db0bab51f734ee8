//! Documents good, wrong and hostile.

use proptest::prelude::*;

use super::*;

fn spans(body: &str) -> Vec<Span> {
    parse_ssml(&format!("<speak>{body}</speak>"), &SsmlConfig::default()).unwrap()
}

fn said(body: &str) -> Vec<(String, u32)> {
    spans(body).into_iter().map(|span| (span.text, span.pause_after_ms)).collect()
}

#[track_caller]
fn refused(document: &str) -> SsmlError {
    parse_ssml(document, &SsmlConfig::default()).unwrap_err()
}

#[test]
fn text_breaks_and_paragraphs() {
    let owned =
        |spans: &[(&str, u32)]| spans.iter().map(|&(text, ms)| (text.to_owned(), ms)).collect::<Vec<_>>();
    assert_eq!(said("Hello\n   world"), owned(&[("Hello world", 0)]));
    assert_eq!(said("Hello.<break time='2s'/> Bye."), owned(&[("Hello.", 2000), ("Bye.", 300)]));
    assert_eq!(said("a<break/><break strength='weak'/>b"), owned(&[("a", 1250), ("b", 0)]));
    assert_eq!(said("<break time='100ms'/>a"), owned(&[("", 100), ("a", 0)]));
    assert_eq!(
        said("<p><s>One</s><s>Two</s></p><p>Three</p>"),
        owned(&[("One", 300), ("Two", 600), ("Three", 600)])
    );
    assert_eq!(said("a &amp; b &#65; <![CDATA[<c>]]>"), owned(&[("a & b A <c>", 0)]));
    assert_eq!(said("<!-- nothing -->"), owned(&[]));
    assert_eq!(said("a<break time='0ms' strength='strong'/>b"), owned(&[("a", 0), ("b", 0)]));
}

#[test]
fn prosody_and_voice_nest() {
    let body = "a <prosody rate='fast' volume='soft'>b <prosody rate='200%' pitch='-2st'>c</prosody></prosody>\
        <voice name='joe'>d</voice> e";
    let found = spans(body);
    assert_eq!(found.iter().map(|span| span.text.as_str()).collect::<String>(), "abcde");
    assert_eq!(found[1].prosody, Prosody { rate: 1.55, pitch: 0.0, volume: 0.5 });
    assert_eq!(found[2].prosody, Prosody { rate: 3.1, pitch: -2.0, volume: 0.5 });
    assert_eq!(found[3].voice.as_deref(), Some("joe"));
    assert_eq!((found[4].prosody, &found[4].voice), (Prosody::default(), &None));
}

#[test]
fn a_real_root_is_accepted() {
    let document = "<?xml version=\"1.0\"?>\n<speak version=\"1.1\" xml:lang=\"en-US\" \
        xmlns=\"http://www.w3.org/2001/10/synthesis\">Hi.</speak>\n";
    assert_eq!(parse_ssml(document, &SsmlConfig::default()).unwrap()[0].text, "Hi.");
}

#[test]
fn wrong_documents_are_refused_with_their_place() {
    let error = refused("<speak>a <audio src='x'/></speak>");
    assert_eq!(error.kind, SsmlErrorKind::UnknownElement("audio".to_owned()));
    assert_eq!(error.position_bytes, 9);
    assert!(matches!(refused("<speak><break tim='1s'/></speak>").kind, SsmlErrorKind::UnknownAttribute(_)));
    assert!(matches!(refused("<speak><break time='x'/></speak>").kind, SsmlErrorKind::InvalidValue { .. }));
    assert!(matches!(
        refused("<speak><voice name=' '>a</voice></speak>").kind,
        SsmlErrorKind::InvalidValue { .. }
    ));
    assert!(matches!(refused("<speak>a").kind, SsmlErrorKind::Incomplete));
    assert!(matches!(refused("").kind, SsmlErrorKind::Incomplete));
    assert!(matches!(refused("a").kind, SsmlErrorKind::Misplaced(_)));
    assert!(matches!(refused("<p>a</p>").kind, SsmlErrorKind::Misplaced(_)));
    assert!(matches!(refused("<speak>a</speak><speak/>").kind, SsmlErrorKind::Misplaced(_)));
    assert!(matches!(refused("<speak><p>a</s></speak>").kind, SsmlErrorKind::Malformed(_)));
}

#[test]
fn hostile_documents_are_refused() {
    let deep = format!("<speak>{}", "<p>".repeat(100_000 / 3));
    assert_eq!(refused(&deep).kind, SsmlErrorKind::TooDeep { max_depth: 10 });
    let bomb = "<!DOCTYPE speak [<!ENTITY a \"aaaa\">]><speak>&a;</speak>";
    assert_eq!(refused(bomb).kind, SsmlErrorKind::Doctype);
    assert_eq!(refused("<speak>&a;</speak>").kind, SsmlErrorKind::UnknownEntity("a".to_owned()));
    assert_eq!(refused("<speak><?run me?></speak>").kind, SsmlErrorKind::ProcessingInstruction);
    let long = "<speak>a<break time='59s'/><break time='59s'/></speak>";
    assert!(matches!(refused(long).kind, SsmlErrorKind::PauseTooLong { .. }));
    assert!(matches!(refused("<speak>&#1;</speak>").kind, SsmlErrorKind::Text(_)));
    assert!(matches!(refused("<speak>\0</speak>").kind, SsmlErrorKind::Text(_)));
    let large = format!("<speak>{}</speak>", "a".repeat(300_000));
    assert!(matches!(refused(&large).kind, SsmlErrorKind::TooLarge { .. }));
    let broken: String = (0..20_000).map(|at| format!(" a{at}=''")).collect();
    assert!(matches!(
        refused(&format!("<speak><break strength='weak'{broken}/></speak>")).kind,
        SsmlErrorKind::UnknownAttribute(_)
    ));
    let many: String = (0..12_000).map(|at| format!(" xmlns:a{at}=''")).collect();
    assert!(matches!(refused(&format!("<speak{many}/>")).kind, SsmlErrorKind::UnknownAttribute(_)));
}

proptest! {
    #[test]
    fn any_document_ends_in_spans_or_an_error(pieces in prop::collection::vec(prop_oneof![
        prop::sample::select(vec![
            "<speak>", "</speak>", "<p>", "</p>", "<s>", "</s>", "<break time='40s'/>", "<break/>", "<prosody rate='2'>",
            "</prosody>", "<voice name='x'>", "</voice>", "&amp;", "&#x41;", "&#0;", "&zz;", "<![CDATA[", "]]>", "<!--",
            "-->", "<?", "?>", "<!DOCTYPE", "[", ">", "<", "'", "\"", " a='", "Hello. ", "é", "\0",
        ]).prop_map(String::from),
        any::<char>().prop_map(String::from),
    ], 0..40), wrapped in any::<bool>()) {
        let body = pieces.concat();
        let document = if wrapped { format!("<speak>{body}</speak>") } else { body };
        match parse_ssml(&document, &SsmlConfig::default()) {
            Ok(spans) => prop_assert!(spans.iter().all(|span| span.pause_after_ms <= 60_000)),
            Err(error) => prop_assert!(error.position_bytes <= document.len()),
        }
    }
}

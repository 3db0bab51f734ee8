//! Words whose full stop usually ends no sentence.
//!
//! UAX #29 leaves this to "suppressions", which differ by language. A request does not always say its
//! language, so the lists below are joined from several and kept to words that are safe in all of them:
//! a wrong join costs a little latency, a wrong cut is an audible stumble. Words are compared with their
//! case, which tells "Art." from "art." and German nouns from English verbs.

/// Titles and connectives after which a sentence goes on, whatever follows.
const ALWAYS: &[&str] = &[
    // English
    "Mr", "Mrs", "Ms", "Mx", "Dr", "Drs", "Prof", "Rev", "Hon", "Fr", "Gen", "Col", "Maj", "Capt", "Lt",
    "Sgt", "Cpl", "Cmdr", "Adm", "Gov", "Sen", "Rep", "Pres", "Supt", "St", "Ste", "Mt", "Messrs", "Mmes",
    "vs", "Vs", "viz", "cf", "Cf", "approx", "Approx", "dept", "Dept", "est", "Est", "esp", "resp", "incl",
    "excl", "aka", "Univ", "Assn", "Bros", // German
    "bzw", "bspw", "evtl", "ggf", "inkl", "exkl", "sog", "vgl", "Vgl", "zzgl", "Hr", "Fr", "Hrn", "Dipl",
    "Ing", "Bzgl", "bzgl", "gem", "lt", "Mio", "Mrd", "Tel", "Str", "Abs", // French
    "Mme", "Mlle", "MM", "Mgr", "Me", "env", "av", "boul", // Spanish, Portuguese, Italian
    "Sr", "Sra", "Srta", "Dra", "Ud", "Uds", "Vd", "Vds", "Dña", "Lic", "pág", "págs", "núm", "aprox", "Sig",
    "Dott", "Dott.ssa", "Ing", "Avv", "Gent", "Exmo", "Exma", // Dutch, Scandinavian, Polish
    "dhr", "Dhr", "mevr", "Mevr", "bijv", "Bijv", "jl", "bl.a", "dvs", "osv", "np", "tzn", "tzw", "prof",
    "dr", "mgr", "inż", "ul", "al", "św", // Russian
    "ул", "гр", "им", "проф", "акад", "напр", "см", "стр", "тыс", "млн", "млрд", "руб",
];

/// Words that are abbreviations when a number follows ("No. 5", "Fig. 2", "Sept. 3").
const BEFORE_NUMBER: &[&str] = &[
    "No", "no", "Nos", "nos", "Nr", "nr", "Fig", "fig", "Figs", "figs", "Eq", "eq", "Eqs", "Sec", "sec",
    "Sect", "Ch", "ch", "Chap", "chap", "Vol", "vol", "Vols", "Art", "art", "p", "pp", "P", "S", "Par",
    "par", "para", "Ex", "ex", "Tab", "Pt", "pt", "Bd", "Kap", "Ver", "ver", "v", "op", "Op", "Jan", "Feb",
    "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec", "Rm", "Apt", "Ste", "Hwy", "Rt",
    "Ext", "ext", "c", "n", "nº", "č",
];

/// Words that end a sentence only before a word that usually begins one.
const UNLESS_STARTER: &[&str] = &[
    "Inc", "Ltd", "Co", "Corp", "Jr", "Sr", "Bros", "Ave", "Blvd", "Rd", "Ln", "al", "ed", "eds", "Ed",
    "Eds", "trans", "am", "pm", "Mon", "Tue", "Tues", "Wed", "Thu", "Thur", "Thurs", "Fri",
];

/// Dotted forms after which a sentence goes on, whatever follows.
const ALWAYS_DOTTED: &[&str] = &[
    "e.g", "E.g", "i.e", "I.e", "z.B", "Z.B", "d.h", "D.h", "u.a", "p.ex", "P.ex", "v.a", "o.ä", "т.е", "т.к",
];

/// English words that open sentences far more often than they follow an abbreviation inside one.
const STARTERS: &[&str] = &[
    "The", "A", "An", "It", "He", "She", "We", "They", "I", "You", "This", "That", "These", "Those", "There",
    "Then", "But", "And", "So", "If", "When", "While", "As", "At", "In", "On", "My", "His", "Her", "Our",
    "Their", "Its", "Your", "What", "Who", "Where", "Why", "How", "However", "Now", "Not", "After", "Before",
    "Because", "Since", "Although", "For", "Or", "Let", "Do", "Did", "Does", "Is", "Are", "Was", "Were",
    "Can", "Could", "Will", "Would", "Should", "Please", "Also", "Another", "Some", "Each", "Many", "Most",
    "One", "Here", "Today", "Yes", "Everyone", "Nobody", "To", "From", "By", "With",
];

/// German and other month names that follow an ordinal ("am 3. Oktober").
const MONTHS_AFTER_ORDINAL: &[&str] = &[
    "Januar",
    "Jänner",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];

/// What an abbreviation asks of the word after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No abbreviation at all.
    Plain,
    /// Never the end of a sentence.
    Always,
    /// Not the end when a digit follows.
    BeforeNumber,
    /// The end only when a sentence starter follows.
    UnlessStarter,
    /// A short number: not the end when the name of a month follows.
    Ordinal,
}

/// Judges the word before a full stop (without the stop).
pub(super) fn kind_of(word: &str) -> Kind {
    if ALWAYS.contains(&word) || ALWAYS_DOTTED.contains(&word) {
        Kind::Always
    } else if BEFORE_NUMBER.contains(&word) {
        Kind::BeforeNumber
    } else if UNLESS_STARTER.contains(&word) || is_initial(word) || is_dotted(word) {
        Kind::UnlessStarter
    } else if word.len() <= 2 && word.bytes().all(|byte| byte.is_ascii_digit()) {
        Kind::Ordinal
    } else {
        Kind::Plain
    }
}

/// Whether a word usually begins a sentence.
pub(super) fn is_starter(word: &str) -> bool {
    STARTERS.contains(&word)
}

/// Whether a word is a month that may follow an ordinal.
pub(super) fn is_month_after_ordinal(word: &str) -> bool {
    MONTHS_AFTER_ORDINAL.contains(&word)
}

/// One capital letter, as in "J. Smith".
fn is_initial(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(char::is_uppercase) && letters.next().is_none()
}

/// Letters with stops between them, as in "U.S", "p.m" or "Ph.D": parts of three letters at most.
fn is_dotted(word: &str) -> bool {
    let short = |part: &str| (1..=3).contains(&part.chars().count()) && part.chars().all(char::is_alphabetic);
    word.contains('.') && word.split('.').all(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(kind_of("Dr"), Kind::Always);
        assert_eq!(kind_of("e.g"), Kind::Always);
        assert_eq!(kind_of("Fig"), Kind::BeforeNumber);
        assert_eq!(kind_of("U.S"), Kind::UnlessStarter);
        assert_eq!(kind_of("J"), Kind::UnlessStarter);
        assert_eq!(kind_of("14"), Kind::Ordinal);
        for plain in ["1990", "cat", "index.html", "v1.2", ""] {
            assert_ne!(kind_of(plain), Kind::Always, "{plain}");
            assert_ne!(kind_of(plain), Kind::UnlessStarter, "{plain}");
        }
    }
}

//! The shape of files: no longer than [`LONGEST`] lines, no `mod.rs`, and each Rust module begins by saying why it exists.

use crate::sources::Source;

/// The most lines a source file may have. About 300 is what we aim for.
const LONGEST: usize = 500;

/// Every fault in the shape of these files, one line each.
pub(crate) fn faults(sources: &[Source]) -> Vec<String> {
    sources.iter().flat_map(faults_of).collect()
}

fn faults_of(source: &Source) -> Vec<String> {
    let path = &source.path;
    let lines = source.text.lines().count();
    let mut faults = Vec::new();
    if lines > LONGEST {
        faults.push(format!("{path} has {lines} lines, {LONGEST} are the most: divide it"));
    }
    if path.ends_with("/mod.rs") {
        faults.push(format!("{path}: name the file after its module, beside the module's folder"));
    }
    if source.is_rust() && !source.text.starts_with("//!") {
        faults.push(format!("{path} does not begin with `//!` and the reason why the module exists"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_short_module_with_a_head_is_fine() {
        assert!(faults(&[source("a/src/b.rs", "//! Why.\n"), source("a/c.py", "x = 1\n")]).is_empty());
    }

    #[test]
    fn length_name_and_head_are_each_named() {
        let long = "//! Why.\n".repeat(LONGEST + 1);
        let files =
            [source("a/long.rs", &long), source("a/mod.rs", "//! Why."), source("a/bare.rs", "fn f() {}")];
        let faults = faults(&files);
        assert_eq!(faults.len(), 3);
        assert!(
            faults[0].contains("501 lines") && faults[1].contains("a/mod.rs") && faults[2].contains("`//!`")
        );
    }
}

//! The source files that the checks read: every `.rs`, `.py` and `.ts` file of the repository, but nothing that a build
//! or an installer put there.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Folders that hold what tools made, beside those whose names begin with a dot.
const MADE_BY_TOOLS: [&str; 4] = ["target", "node_modules", "__pycache__", "dist"];

/// One source file.
pub(crate) struct Source {
    /// Its path from the root, with `/` between the parts.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// Whether it is a Rust file.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Reads every source file below `root`, in the order of their paths.
pub(crate) fn read_all(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut paths = Vec::new();
    walk(root, &mut paths)?;
    paths.sort();
    paths.iter().map(|path| read(root, path)).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && !MADE_BY_TOOLS.contains(&name.as_str()) {
                walk(&entry.path(), found)?;
            }
        } else if [".rs", ".py", ".ts"].iter().any(|extension| name.ends_with(extension)) {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn read(root: &Path, path: &Path) -> anyhow::Result<Source> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let inside = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    Ok(Source { path: parts.join("/"), text })
}

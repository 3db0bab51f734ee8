//! Unpacks the engine's Python package, which is embedded in this binary, to a folder named by its content.
//!
//! Two versions of chorus on one machine so never share, or overwrite, each other's engine.

use std::path::PathBuf;

use crate::config::Config;
use crate::error::Error;
use crate::home::{self, Draft};
use crate::progress::Step;
use crate::steps;
use crate::tool::Context;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/engine_files.rs"));
}

pub(crate) use embedded::LOCK_HASH;

/// The unpacked package (the folder for `PYTHONPATH`), if it is there.
pub(crate) fn installed(config: &Config) -> Option<PathBuf> {
    let target = target(config);
    home::is_complete(&target, embedded::CONTENT_HASH).then_some(target)
}

/// Unpacks the package.
pub(crate) async fn provide(context: &Context) -> Result<PathBuf, Error> {
    let target = target(&context.config);
    steps::timed(context, Step::Engine, async {
        let draft = Draft::beside(&target)?;
        for (name, contents) in embedded::FILES {
            let path = draft.path().join(name);
            let folder = path.parent().unwrap_or(draft.path());
            std::fs::create_dir_all(folder).map_err(|error| Error::io("make the folder", folder, error))?;
            home::write(&path, contents)?;
        }
        draft.complete(embedded::CONTENT_HASH)?;
        Ok(steps::made(embedded::CONTENT_HASH, &target))
    })
    .await?;
    Ok(target)
}

fn target(config: &Config) -> PathBuf {
    config.home.join("engine").join(embedded::CONTENT_HASH)
}

#[cfg(test)]
mod tests {
    use super::embedded;

    #[test]
    fn the_package_and_its_lock_are_embedded_and_nothing_else() {
        let names: Vec<&str> = embedded::FILES.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"uv.lock") && names.contains(&"pyproject.toml"));
        assert!(names.contains(&"chorus_engine/__main__.py"));
        assert!(names.iter().all(|name| !name.contains("__pycache__") && !name.starts_with("tests")));
    }
}

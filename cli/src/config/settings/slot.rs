//! The fields that settings are put into: how each type is read from text, and shown again.

use std::path::PathBuf;
use std::time::Duration;

use chorus_runtime::telemetry::LogFormat;

use crate::config::EngineKind;

/// A field of the configuration.
pub(super) trait Slot {
    /// Takes a text that its shape has let through.
    fn put(&mut self, text: &str) -> Result<(), String>;
    /// What it holds, as it would be written; `None` when nothing is set.
    fn show(&self) -> Option<String>;
}

macro_rules! parsed {
    ($($kind:ty),+) => {$(
        impl Slot for $kind {
            fn put(&mut self, text: &str) -> Result<(), String> {
                *self = text.parse().map_err(|_error| format!("{text:?} cannot be read"))?;
                Ok(())
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

parsed!(u16, u32, u64, f64, bool, String);

/// Absolute, as seen from the working directory: children may have another.
impl Slot for PathBuf {
    fn put(&mut self, text: &str) -> Result<(), String> {
        *self = std::path::absolute(text)
            .map_err(|error| format!("{text:?} cannot be made absolute: {error}"))?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

/// Milliseconds.
impl Slot for Duration {
    fn put(&mut self, text: &str) -> Result<(), String> {
        let mut ms = 0_u64;
        ms.put(text)?;
        *self = Self::from_millis(ms);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.as_millis().to_string())
    }
}

impl<T: Slot + Default> Slot for Option<T> {
    fn put(&mut self, text: &str) -> Result<(), String> {
        let mut value = T::default();
        value.put(text)?;
        *self = Some(value);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.as_ref()?.show()
    }
}

impl Slot for EngineKind {
    fn put(&mut self, text: &str) -> Result<(), String> {
        *self = [Self::Coqui, Self::Null, Self::Checkable]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no engine"))?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.as_str().to_owned())
    }
}

impl Slot for LogFormat {
    fn put(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "human" => Self::Human,
            "json" => Self::Json,
            other => return Err(format!("{other:?} is no log format")),
        };
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::Human => "human".to_owned(),
            Self::Json => "json".to_owned(),
        })
    }
}

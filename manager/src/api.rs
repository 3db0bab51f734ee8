//! The questions that managers answer, one file each.
//!
//! A message comes in through [`serve`], which bounds how many are answered at once; [`question`] reads it and says how
//! its answer is written; the method of [`Core`](crate::core::Core) that bears its name answers it. Plain requests
//! ([`synthesize`], read and written by [`plain`]) are the exception: they may come bare, and run a session of their own.

mod advance;
mod cancel;
mod check;
mod finish;
mod jobs;
mod metrics;
mod models;
mod open;
mod plain;
mod question;
pub(crate) mod serve;
mod status;
mod synthesize;
mod under_way;

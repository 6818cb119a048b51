//! How a pack tells what it is doing; the command line draws it.

use super::preflight::Forecast;

/// Told from several threads while a pack runs.
pub trait Progress: Sync {
    /// What is to be expected, before anything else is told.
    fn forecast(&self, forecast: Forecast);

    /// Raw bytes that will be packed as far as known; grows when an image turns out larger.
    fn total(&self, bytes: u64);

    /// A file begins.
    fn file(&self, path: &str);

    /// Raw bytes that are packed by now, those of an earlier run included, and the bytes that
    /// they take in the volumes.
    fn packed(&self, raw: u64, stored: u64);

    /// A remark for the operator.
    fn note(&self, text: &str);
}

//! What `bundle pack` says before, meanwhile and at the end.

use std::path::Path;

use crate::bundle::manifest::Manifest;
use crate::cli::output::size;
use crate::cli::progress::Meter;
use crate::pack::preflight::Forecast;
use crate::pack::progress::Progress;

impl Progress for Meter {
    fn forecast(&self, forecast: Forecast) {
        Meter::note(self, &expectation(forecast));
    }

    fn total(&self, bytes: u64) {
        self.set_total(bytes);
    }

    fn file(&self, path: &str) {
        self.label(path);
    }

    fn packed(&self, raw: u64, _stored: u64) {
        self.set(raw);
    }

    fn note(&self, text: &str) {
        Meter::note(self, text);
    }
}

/// Sizes and times before the first byte. How fast the way to the hub is, nobody knows yet.
fn expectation(forecast: Forecast) -> String {
    let (least, most) = forecast.volumes;
    let time = |megabits: u64| duration(forecast.download.div_ceil(megabits * 1_000_000 / 8));
    let download = match forecast.download {
        0 => String::new(),
        bytes => format!(
            "; to download: {}, which takes {} at 100 Mbit/s, {} at 1 Gbit/s",
            size(bytes),
            time(100),
            time(1000)
        ),
    };
    format!(
        "to pack: {}; the volumes will have about {} to {}{download}",
        size(forecast.raw),
        size(least),
        size(most)
    )
}

/// `40 s`, `12 min`, `3 h 8 min`
fn duration(seconds: u64) -> String {
    match (seconds, seconds.div_ceil(60)) {
        (0..60, _) => format!("{seconds} s"),
        (_, minutes @ 0..60) => format!("{minutes} min"),
        (_, minutes) => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// What was packed, and what comes next.
pub fn summary(out: &Path, manifest: &Manifest) -> String {
    let (raw, stored) = (manifest.raw_size(), manifest.stored_size());
    let percent = (stored * 100).checked_div(raw).unwrap_or(100);
    format!(
        "packed {} as {} ({percent} %) in {} volumes: {}\ncarry the whole directory across, then: {}/bundle verify",
        size(raw),
        size(stored),
        manifest.volumes.len(),
        out.display(),
        out.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_told_before_the_first_byte() {
        let gb = |n: u64| n * 1_000_000_000;
        let forecast = Forecast {
            raw: gb(157),
            download: gb(149),
            volumes: (gb(98), gb(150)),
        };
        assert_eq!(
            expectation(forecast),
            "to pack: 157.0 GB; the volumes will have about 98.0 GB to 150.0 GB; \
             to download: 149.0 GB, which takes 3 h 19 min at 100 Mbit/s, 20 min at 1 Gbit/s"
        );
        let local = Forecast {
            download: 0,
            ..forecast
        };
        assert!(expectation(local).ends_with("to 150.0 GB"));
        assert_eq!(duration(59), "59 s");
    }
}

//! How much of a bundle can be rebuilt.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A share of a bundle, 0.01 % to 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In hundredths of a percent.
    hundredths: u32,
}

impl Share {
    /// So much of `whole`, rounded up.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        let share = (u128::from(whole) * u128::from(self.hundredths)).div_ceil(10_000);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// `5%`, `7.5 %`, `5`.
impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim_end_matches('%').trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = (digits(whole) && digits(fraction) && (1..=2).contains(&fraction.len()))
            .then(|| format!("{whole}{fraction:0<2}").parse().ok())
            .flatten();
        match parsed {
            Some(hundredths @ 1..=10_000) => Ok(Self { hundredths }),
            _ => Err(Error::Usage(format!(
                "{text:?} is no share of the bundle: 5%, or anything from 0.01% to 100%"
            ))),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.hundredths / 100, self.hundredths % 100);
        match rest {
            0 => write!(f, "{whole}%"),
            _ => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        // text, as shown, that much of 1000
        let cases = [
            ("5%", "5%", 50),
            ("5", "5%", 50),
            ("7.5 %", "7.50%", 75),
            ("0.01%", "0.01%", 1),
            ("100%", "100%", 1000),
        ];
        for (text, shown, part) in cases {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.to_string().as_str(), share.of(1000)), (shown, part));
        }
        for bad in ["", "%", "0", "-5%", "5.001%", "101%", "x", "1e2", "."] {
            assert_eq!(bad.parse::<Share>().unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}

//! The kinds of hub that models come from.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A kind of hub: its protocol, and where it is by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// The Hugging Face hub, and mirrors of it.
    #[default]
    HuggingFace,
    /// ModelScope, which is fast in China. Its default branch is `master`.
    ModelScope,
}

impl Source {
    /// Where it is when nobody says otherwise.
    pub(super) fn default_url(self) -> &'static str {
        match self {
            Self::HuggingFace => "https://huggingface.co",
            Self::ModelScope => "https://www.modelscope.cn",
        }
    }

    /// The environment variable that names another endpoint.
    pub(super) fn endpoint_variable(self) -> Option<&'static str> {
        match self {
            Self::HuggingFace => Some("HF_ENDPOINT"),
            Self::ModelScope => None,
        }
    }

    /// The environment variable that holds a token.
    pub(super) fn token_variable(self) -> &'static str {
        match self {
            Self::HuggingFace => "HF_TOKEN",
            Self::ModelScope => "MODELSCOPE_API_TOKEN",
        }
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "huggingface" => Ok(Self::HuggingFace),
            "modelscope" => Ok(Self::ModelScope),
            _ => Err(Error::Usage(format!(
                "{text:?} is no source of models: say huggingface or modelscope"
            ))),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFace => "huggingface",
            Self::ModelScope => "modelscope",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for source in [Source::HuggingFace, Source::ModelScope] {
            assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
        }
        assert_eq!("hf".parse::<Source>().unwrap_err().exit_code(), 2);
    }
}

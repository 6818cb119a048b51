//! The model hub: listing a repository at a commit and reading ranges of its files.

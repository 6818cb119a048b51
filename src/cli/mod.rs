//! The command line: a file per verb with its `Args` and `run`. Nothing else prints.

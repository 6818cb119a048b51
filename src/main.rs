//! The executable: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bundle::nss::use_built_in_sources();
    bundle::cli::main()
}

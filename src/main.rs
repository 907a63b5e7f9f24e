//! The `forewarn` binary: reads the flags and hands over to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    forewarn::cli::main()
}

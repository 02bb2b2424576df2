//! The `tilecatcher` program: everything is in the library, see its front page.

use std::process::ExitCode;

fn main() -> ExitCode {
    tilecatcher::cli::main()
}

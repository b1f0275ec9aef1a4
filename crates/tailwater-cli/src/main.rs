//! The command `tailwater`: parses the arguments, runs a command, and exits with its code.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod directory;
mod exit;
mod output;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

fn main() -> ExitCode {
    // A file that must not grow is an error of the write that meets the limit, and not the end of the process. Where this
    // cannot be had, it is that end.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    let arguments = match args::Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            return exit::code_of_parsing(&error);
        }
    };
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

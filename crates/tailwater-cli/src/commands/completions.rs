//! `completions`: a script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Arguments;
use crate::exit::Result;
use crate::output::Output;

pub(crate) fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tailwater", &mut script);
    let mut output = Output::new();
    output.write(&script)?;
    output.flush()
}

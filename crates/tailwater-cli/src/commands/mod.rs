//! The commands, one file each.

mod backup;
mod bench;
mod completions;
mod consume;
mod dump;
mod export;
mod groups;
mod import;
mod info;
mod offsets;
mod produce;
mod repair;
mod topic;
mod verify;

use crate::args::{Arguments, Command};
use crate::directory::Directory;
use crate::exit::Result;

/// Runs the command that the arguments name.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let directory = Directory { path: arguments.global.data, lock_timeout: arguments.global.lock_timeout };
    let json = arguments.global.json;
    let done = match arguments.command {
        Command::Topic { command } => topic::run(&directory, json, command),
        Command::Produce(args) => produce::run(&directory, json, args),
        Command::Consume(args) => consume::run(&directory, json, &args),
        Command::Export(args) => export::run(&directory, args),
        Command::Import(args) => import::run(&directory, json, args),
        Command::Groups { command } => groups::run(&directory, json, command),
        Command::Offsets(args) => offsets::run(&directory, json, &args),
        Command::Info => info::run(&directory, json),
        Command::Verify(args) => verify::run(&directory, json, &args),
        Command::Repair(args) => repair::run(&directory, json, &args),
        Command::Backup(args) => backup::run(&directory, json, &args),
        Command::Dump(args) => dump::run(json, &args),
        Command::Bench(args) => bench::run(&directory, json, &args),
        Command::Completions { shell } => completions::run(shell),
    };
    done.map_err(|failure| failure.suggest(|unknown| directory.similar_to(unknown)))
}

//! Runs each workload over Tailwater, its bare baseline and, if asked for, published crates, in interleaved rounds.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tailwater_benches::contest::{self, Result, Row, Scale};
use tailwater_benches::host::{self, parse_size};
use tailwater_benches::{peers, report, rows};

/// Runs each workload over Tailwater and over a bare loop that does the same work with no features, one after the other
/// in each of several rounds, and says how the two compare.
///
/// Prints a table of all targets and writes results.md, results.csv (each figure of each round) and an SVG plot for each
/// workload. Run it on an idle machine; a full run takes some minutes and up to 3 GiB of disk, beside the logs of
/// `--open-size`.
#[derive(Debug, Parser)]
#[command(name = "compare", version)]
struct Arguments {
    /// Directory for the results; made if it is missing
    #[arg(required_unless_present = "list")]
    results: Option<PathBuf>,
    /// Runs only these workloads, by name or by the beginning of a name; may be repeated
    #[arg(long, value_name = "NAME")]
    row: Vec<String>,
    /// How often each contestant runs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Runs everything once and small, to see that it works: the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Directory on the disk to measure [default: the results' directory]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Size of the logs that are opened, such as 4GiB; may be repeated
    #[arg(long, value_name = "SIZE", default_values = ["1GiB"], value_parser = parse_size)]
    open_size: Vec<u64>,
    /// Published crates to run beside Tailwater: names, or `all`; may be repeated. Needs the feature `peers`
    #[arg(long, value_name = "CRATE", value_delimiter = ',')]
    peers: Vec<String>,
    /// Runs, in place of the workloads, what else was tried for them
    #[arg(long)]
    tried: bool,
    /// Lists the workloads and the crates, and ends
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let asked = rows::open::write_if_asked().and_then(|()| peers::trace::append_if_asked());
    let done = asked.and_then(|()| run(&Arguments::parse()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let Some(results) = arguments.results.as_ref().filter(|_| !arguments.list) else { return list() };
    std::fs::create_dir_all(results)?;
    let work = arguments.work.as_ref().unwrap_or(results);
    let scale = Scale {
        is_quick: arguments.quick,
        work: std::fs::canonicalize(work)?,
        open_bytes: arguments.open_size.clone(),
        peers: chosen_peers(&arguments.peers)?,
    };
    let rounds = if arguments.quick { 1 } else { arguments.rounds as usize };
    let machine = host::describe(&scale.work);
    let mut done = Vec::new();
    for row in chosen_rows(if arguments.tried { rows::TRIED } else { rows::ALL }, &arguments.row)? {
        let outcomes = contest::run(row, &scale, rounds, &mut progress)?;
        done.push((row, outcomes));
    }
    let warning = if arguments.quick { "\n\n**A quick run: these figures mean nothing.**" } else { "" };
    let head = format!("# Tailwater compared\n\n{machine} Rounds: {rounds}.{warning}");
    let traced = if scale.peers.is_empty() { String::new() } else { peers::trace::table(&scale)? };
    report::write_all(results, &head, &traced, &done)?;
    writeln!(std::io::stdout(), "{}{traced}", report::markdown(&head, &done))?;
    Ok(())
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for row in rows::ALL.iter().chain(rows::TRIED) {
        writeln!(out, "{:24} {}", row.name, row.title)?;
    }
    for peer in peers::all() {
        writeln!(out, "crate {:18} {}; {}; {}", peer.name, peer.appended, peer.synced, peer.checked)?;
    }
    Ok(())
}

fn chosen_rows(all: &'static [Row], names: &[String]) -> Result<Vec<&'static Row>> {
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|row| row.name.starts_with(*name))) {
        return Err(format!("there is no workload {unknown:?}; --list shows what there is").into());
    }
    let is_chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name.starts_with(name));
    Ok(all.iter().filter(is_chosen).collect())
}

fn chosen_peers(names: &[String]) -> Result<Vec<String>> {
    let known: Vec<&str> = peers::all().iter().map(|peer| peer.name).collect();
    if names.iter().any(|name| name == "all") && !known.is_empty() {
        return Ok(known.into_iter().map(str::to_owned).collect());
    }
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) if known.is_empty() => {
            Err(format!("cannot run {unknown:?}: build with --features peers").into())
        }
        Some(unknown) => {
            Err(format!("there is no crate {unknown:?} here; there are {}", known.join(", ")).into())
        }
        None => Ok(names.to_vec()),
    }
}

/// Tells on a terminal what is being done.
fn progress(doing: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{doing}");
    }
}

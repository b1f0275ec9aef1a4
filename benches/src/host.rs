//! What the figures were taken on.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A sentence about this machine and the disk that holds `work`, as far as the operating system tells.
#[must_use]
pub fn describe(work: &Path) -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = first_after("/proc/cpuinfo", "model name");
    let memory = first_after("/proc/meminfo", "MemTotal");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!(
        "{cpus} CPUs ({model}), {memory} of memory, Linux {}, {}; load averages at the start {load}; revision {}.",
        kernel.trim(),
        file_system(work),
        revision(),
    )
}

fn first_after(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
}

fn file_system(work: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let work = fs::canonicalize(work).unwrap_or_else(|_| work.to_owned());
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = fields.filter(|fields| fields.len() > 2 && work.starts_with(fields[1]));
    holding.max_by_key(|fields| fields[1].len()).map_or("unknown".to_owned(), |fields| fields[2].to_owned())
}

fn revision() -> String {
    let output = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])
        .output();
    let text =
        output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&text).trim() {
        "" => "unknown".to_owned(),
        revision => revision.to_owned(),
    }
}

/// A size in bytes from a number with an optional `KiB`, `MiB` or `GiB`, for the command line.
///
/// # Errors
///
/// If it is neither.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        unit => return Err(format!("{unit:?} is no unit of size: use B, KiB, MiB or GiB")),
    };
    let count: u64 = digits.parse().map_err(|error| format!("{digits:?} is no number: {error}"))?;
    count
        .checked_shl(shift)
        .filter(|bytes| bytes >> shift == count && *bytes > 0)
        .ok_or_else(|| format!("{text:?} is out of range: a size is at least 1 byte and less than 2^64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(parse_size("4GB").unwrap_err().contains("KiB, MiB or GiB"));
        assert!(
            parse_size("GiB").is_err() && parse_size("0").is_err() && parse_size("99999999999GiB").is_err()
        );
    }
}

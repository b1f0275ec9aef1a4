//! What `--help` says, word for word: a change of it is seen in a review.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::Data;

fn help(command: &[&str]) -> String {
    let arguments: Vec<_> = command.iter().copied().chain(["--help"]).collect();
    let text = Data::new().ok(&arguments);
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn help_is_what_was_agreed_on() {
    for command in [
        &[][..],
        &["topic"],
        &["topic", "create"],
        &["topic", "list"],
        &["topic", "describe"],
        &["topic", "alter"],
        &["topic", "delete"],
        &["topic", "truncate"],
        &["topic", "delete-records"],
        &["produce"],
        &["consume"],
        &["export"],
        &["import"],
        &["groups"],
        &["groups", "list"],
        &["groups", "describe"],
        &["groups", "create"],
        &["groups", "reset"],
        &["groups", "delete"],
        &["offsets"],
        &["info"],
        &["verify"],
        &["repair"],
        &["backup"],
        &["dump"],
        &["bench"],
        &["completions"],
    ] {
        let name = format!("help {}", command.join(" ")).trim_end().replace(' ', "_");
        insta::assert_snapshot!(name, help(command));
    }
}

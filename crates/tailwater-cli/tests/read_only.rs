//! A directory that nobody may write to: whoever reads works, whoever writes is told, and nothing is changed.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::system::{copy_tree, is_in_mount_namespace, look_of, skipped, tool, why_not};
use common::waves::{empty_template, fill, fill_and_die, lines, plain_command};
use common::{Data, Ran};

fn run(command: &mut Command, input: &str) -> Ran {
    use std::io::Write;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Who was refused reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A closed directory and one whose writer was killed, each with a group, and the lines in both.
fn directories(root: &Path) -> [(std::path::PathBuf, Vec<String>); 2] {
    let closed = empty_template(root);
    let before = lines("before", 60);
    fill(&closed, &before);
    let group = ["groups", "create", "billing", "orders", "--at", "earliest"];
    assert!(plain_command(&closed, &group).status().unwrap().success());
    let dead = root.join("dead");
    copy_tree(&closed, &dead);
    let more = lines("more", 30);
    fill_and_die(&dead, &more);
    [(closed, before.clone()), (dead, [before, more].concat())]
}

/// Runs every command that reads and every one that writes, each as `in_front` says, and looks whether anything changed.
fn check(directory: &Path, lines: &[String], is_closed: bool, in_front: &[&str], said: &str) {
    let before = look_of(directory);
    let command = |arguments: &[&str]| {
        let plain = plain_command(directory, arguments);
        match in_front {
            [] => plain,
            [program, more @ ..] => {
                let mut command = Command::new(program);
                command
                    .args(more)
                    .arg(plain.get_program())
                    .args(plain.get_args())
                    .env_remove("TAILWATER_DATA");
                command
            }
        }
    };
    let segment = directory.join("orders-0/00000000000000000000.log");
    for arguments in [
        &["consume", "orders"][..],
        &["consume", "orders", "--group", "billing", "--no-commit"],
        &["verify"],
        &["info"],
        &["topic", "list"],
        &["topic", "describe", "orders"],
        &["offsets", "orders"],
        &["groups", "list"],
        &["groups", "describe", "billing"],
        &["dump", segment.to_str().unwrap()],
    ] {
        let ran = run(&mut command(arguments), "");
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        if arguments[0] == "consume" {
            // What a writer that was killed had not recorded for others yet is not there for who cannot recover it.
            let printed: Vec<_> = ran.stdout.lines().collect();
            assert!(lines.starts_with(&printed.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()));
            let least = if is_closed { lines.len() } else { 60 };
            assert!(printed.len() >= least, "{arguments:?}: {} of {}", printed.len(), lines.len());
        }
    }
    for arguments in [
        &["produce", "orders", "--acks"][..],
        &["produce", "mails"],
        &["topic", "create", "mails"],
        &["topic", "alter", "orders", "--partitions", "2"],
        &["topic", "delete", "orders"],
        &["topic", "truncate", "orders:0", "3"],
        &["topic", "delete-records", "orders:0", "3"],
        &["groups", "create", "shipping", "orders", "--at", "earliest"],
        &["groups", "reset", "billing", "--topic", "orders", "--to", "latest"],
        &["groups", "delete", "billing"],
        &["consume", "orders", "--group", "billing"],
        &["repair", "orders:0", "--yes"],
    ] {
        let ran = run(&mut command(arguments), "one\n");
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments:?}: {ran:?}");
        let told = format!("error: {} cannot be written to: {said}; make it writable", directory.display());
        assert!(ran.stderr.starts_with(&told), "{arguments:?}: {ran:?}");
    }
    assert_eq!(look_of(directory), before, "nothing was changed");
}

#[test]
fn on_a_file_system_that_is_read_only_reading_works_and_writing_is_refused() {
    if !is_in_mount_namespace("on_a_file_system_that_is_read_only_reading_works_and_writing_is_refused") {
        return;
    }
    let root = Data::on_disk();
    for (n, (directory, lines)) in directories(root.root.path()).iter().enumerate() {
        let path = directory.to_str().unwrap();
        tool("mount", &["--bind", path, path]);
        tool("mount", &["-o", "remount,ro,bind", path]);
        check(directory, lines, n == 0, &[], "Read-only file system (os error 30)");
        tool("umount", &[path]);
        assert!(
            plain_command(directory, &["produce", "orders"]).stdin(Stdio::null()).status().unwrap().success()
        );
    }
}

#[test]
fn without_permission_reading_works_and_writing_is_refused() {
    const TEST: &str = "without_permission_reading_works_and_writing_is_refused";
    let root = Data::on_disk();
    std::fs::set_permissions(root.root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let program = assert_cmd::cargo::cargo_bin!("tailwater");
    let tried = Command::new(nobody[0]).args(&nobody[1..]).arg(program).arg("--version").output();
    if let Some(why) = why_not(tried) {
        skipped(
            TEST,
            &format!("cannot run the command as another user (it takes root, and paths open to all): {why}"),
        );
        return;
    }
    for (n, (directory, lines)) in directories(root.root.path()).iter().enumerate() {
        check(directory, lines, n == 0, &nobody, "Permission denied (os error 13)");
        // Where nothing may be read either, that is told, of whatever is in the way.
        std::fs::set_permissions(directory.join("orders-0"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let before = look_of(directory);
        for arguments in [&["consume", "orders"][..], &["verify"], &["info"], &["offsets", "orders"]] {
            let plain = plain_command(directory, arguments);
            let mut command = Command::new(nobody[0]);
            command.args(&nobody[1..]).arg(plain.get_program()).args(plain.get_args());
            let ran = run(&mut command, "");
            assert_eq!(ran.code, 1, "{arguments:?}: {ran:?}");
            let closed = directory.join("orders-0");
            assert!(ran.stderr.contains(closed.to_str().unwrap()), "{arguments:?}: {ran:?}");
            assert!(ran.stderr.contains("Permission denied (os error 13)"), "{arguments:?}: {ran:?}");
        }
        assert_eq!(look_of(directory), before, "nothing was changed");
    }
}

//! Disks that are full, small ones of a real kernel: it is told, nothing is lost, and with room it goes on.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Data;
use common::system::{is_in_mount_namespace, note, skipped, tool, why_not};
use common::waves::{Produced, check_goes_on, check_kept, check_kept_of, lines, produce_in_waves};
use tailwater::{Broker, Durability, Error, PartitionId, Reset, TopicConfig, TopicPartition};

/// A file system that is unmounted when this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Mounts a file system in memory of that size, such as `64k`.
fn mount_tmpfs(at: &Path, size: &str) -> Mounted {
    tool("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "none", at.to_str().unwrap()]);
    Mounted(at.to_owned())
}

/// Makes a file with an ext4 of that many KiB in it.
fn make_ext4(image: &Path, kib: u64) {
    std::fs::File::create(image).unwrap().set_len(kib * 1024).unwrap();
    tool("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "1024", image.to_str().unwrap()]);
}

fn mount_loop(image: &Path, at: &Path) -> Mounted {
    tool("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
    Mounted(at.to_owned())
}

/// Why there are no loop devices to put a file system on; `None` if there are.
fn why_no_loop_device(root: &Path) -> Option<String> {
    let (image, at) = (root.join("probe.image"), root.join("probe"));
    std::fs::create_dir(&at).unwrap();
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).output();
    let why = why_not(made)
        .or_else(|| why_not(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output()));
    if why.is_none() {
        drop(Mounted(at));
    }
    why
}

/// Takes up all the room that is left but `spare_bytes`.
fn fill_up(file: &Path, spare_bytes: u64) {
    use std::io::Write;
    let mut ballast = std::fs::File::create(file).unwrap();
    let mut size = 0;
    while ballast.write_all(&[b'x'; 1024]).is_ok() {
        size += 1024;
    }
    ballast.set_len(u64::saturating_sub(size, spare_bytes)).unwrap();
    // What is not there when the room is counted is not in the way.
    let _ = ballast.sync_all();
}

fn produce(data: &Data, lines: &[String]) -> Produced {
    produce_in_waves(data.plain_command(&["produce", "orders", "--acks"]), lines)
}

/// Whether it says that there is no room for a file of the directory.
fn is_told(data: &Data, stderr: &str) -> bool {
    let error = stderr.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or_default();
    error.contains(&format!("no space left for {}", data.path().display()))
        && error.contains("No space left on device (os error 28); make room and try again")
}

/// Fills the file system that `data` is on through the command, uses it full, and makes room by deleting records.
fn fill_and_empty(data: &Data, name: &str, settings: &[&str]) {
    let created =
        data.run(&[&["topic", "create", "orders", "--set", "segment_bytes=8192"], settings].concat());
    if created.code != 0 {
        // So little that there is no room for a topic.
        assert!(is_told(data, &created.stderr), "{name}: {created:?}");
        assert_eq!(data.run(&["topic", "list"]).code, 0, "{name}");
        note(&format!("{name}: no room for a topic"));
        return;
    }
    let reserve = data.root.path().join("reserve");
    std::fs::write(&reserve, [b'r'; 20 * 1024]).unwrap();
    let all = lines("line", 40_000);
    let full = produce(data, &all);
    assert_eq!(full.code, Some(1), "{name}: {} acknowledged, {}", full.offsets.len(), full.stderr);
    assert!(is_told(data, &full.stderr), "{name}: {}", full.stderr);
    let kept = check_kept(data, &[], &all, &full).unwrap_or_else(|why| panic!("{name}: {why}"));
    assert!(kept > 30, "{name}: {kept} records");

    // Full as it is, it is read, refuses more in the same way, and a group reads and may find no room for its commit.
    let more = lines("more", 60_000);
    let refused = produce(data, &more);
    assert!(refused.code == Some(1) && is_told(data, &refused.stderr), "{name}: {}", refused.stderr);
    let runs = [(&all[..], &full), (&more[..], &refused)];
    let kept_again = check_kept_of(data, 0, &runs).unwrap_or_else(|why| panic!("{name}: {why}"));
    let group = data.run(&["consume", "orders", "--group", "billing"]);
    let printed = group.stdout.lines().count();
    assert!(group.code == 0 && printed >= kept_again || is_told(data, &group.stderr), "{name}: {group:?}");

    // Removing records takes no room and gives some; only where the directory could not be closed in order on the full
    // disk, its recovery takes some first.
    let middle = kept / 2;
    let to = middle.to_string();
    let remove = ["topic", "delete-records", "orders:0", &to];
    let removed = data.run(&remove);
    if removed.code != 0 {
        assert!(!settings.is_empty() && is_told(data, &removed.stderr), "{name}: {removed:?}");
        std::fs::remove_file(&reserve).unwrap();
        assert_eq!(data.run(&remove).code, 0, "{name}");
    }
    let kept_at_last = check_kept_of(data, middle, &runs).unwrap_or_else(|why| panic!("{name}: {why}"));
    check_goes_on(data, kept_at_last).unwrap_or_else(|why| panic!("{name}: {why}"));
    let rest = data.run(&["consume", "orders"]);
    assert_eq!(rest.stdout.lines().count(), kept_at_last + 1 - middle, "{name}");

    // A deletion writes a new catalog first.
    let deleted = data.run(&["topic", "delete", "orders"]);
    if deleted.code != 0 {
        assert!(is_told(data, &deleted.stderr), "{name}: {deleted:?}");
        assert_eq!(data.ok(&["consume", "orders"]), rest.stdout, "{name}: it was taken back");
        let _ = std::fs::remove_file(&reserve);
        assert_eq!(data.run(&["topic", "delete", "orders"]).code, 0, "{name}");
    }
    note(&format!(
        "{name}: full with {kept} records, {} more in what was left, a group's commit was {}, a removal {}",
        kept_at_last - kept,
        if group.code == 0 { "made" } else { "refused" },
        if removed.code == 0 { "made" } else { "refused" },
    ));
}

#[test]
fn a_small_file_system_is_filled_and_told_full_and_goes_on_with_room() {
    const TEST: &str = "a_small_file_system_is_filled_and_told_full_and_goes_on_with_room";
    if !is_in_mount_namespace(TEST) {
        return;
    }
    for settings in [&[][..], &["--set", "preallocate=false"]] {
        for size in ["16k", "64k", "256k", "1m"] {
            let data = Data::on_disk();
            let _mounted = mount_tmpfs(data.root.path(), size);
            fill_and_empty(&data, &format!("tmpfs of {size} {settings:?}"), settings);
        }
    }
    let images = Data::on_disk();
    if let Some(why) = why_no_loop_device(images.root.path()) {
        skipped(&format!("{TEST}, its part on ext4"), &why);
        return;
    }
    for settings in [&[][..], &["--set", "preallocate=false"]] {
        let image = images.root.path().join("image");
        make_ext4(&image, 1024);
        let data = Data::on_disk();
        let _mounted = mount_loop(&image, data.root.path());
        fill_and_empty(&data, &format!("ext4 of 1 MiB {settings:?}"), settings);
    }
}

/// Publishes numbered messages until one is refused for want of room. Returns the values that were acknowledged, each
/// with its offset, and those that were not.
fn publish_until_full(broker: &Broker, name: &str) -> (Vec<(u64, String)>, String) {
    let producer = broker.producer("orders").unwrap();
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let value = format!("{name} {n} {}", "v".repeat(n % 97));
        match producer.publish(value.as_bytes()) {
            Ok(appended) => acknowledged.push((appended.offset.get(), value)),
            Err(error) => {
                assert!(matches!(error, Error::DiskFull { .. }), "{name} {n}: {error}");
                assert!(error.is_retriable() && error.to_string().contains("orders-0"), "{error}");
                return (acknowledged, value);
            }
        }
        assert!(n < 200_000, "{name}: it is never full");
    }
    unreachable!()
}

/// Fills the file system that `data` is on in this process, and has the same broker go on when there is room.
fn goes_on_in_process(data: &Data, name: &str, config: &TopicConfig) {
    let ballast = data.root.path().join("ballast");
    let broker = Broker::open(data.path()).unwrap();
    broker.create_topic("orders", config).unwrap();
    let place = TopicPartition::new("orders", PartitionId::ZERO);
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    for round in 0..3 {
        fill_up(&ballast, 40 * 1024);
        let (more, not) = publish_until_full(&broker, &format!("round {round}"));
        acknowledged.extend(more);
        refused.push(not);
        // Full as it is, what was acknowledged is read, here and by who looks from outside.
        check(&read(&broker), &acknowledged, &refused, name);
        let outside = Broker::attach_read_only(data.path()).unwrap();
        let start = Instant::now();
        while read(&outside).last() < acknowledged.last() {
            assert!(start.elapsed() < Duration::from_secs(10), "{name}: it never shows from outside");
            std::thread::sleep(Duration::from_millis(10));
        }
        check(&read(&outside), &acknowledged, &refused, name);
        assert_eq!(broker.embedded().unwrap().verify(&place, &mut |_| {}).unwrap().damage, [], "{name}");
        std::fs::remove_file(&ballast).unwrap();
        // There is room: the same producer's next record is taken.
        let value = format!("after round {round}");
        let appended = broker.producer("orders").unwrap().publish(value.as_bytes()).unwrap();
        acknowledged.push((appended.offset.get(), value));
    }
    // Room that comes of removing records is as good.
    fill_up(&ballast, 40 * 1024);
    let (more, not) = publish_until_full(&broker, "last round");
    acknowledged.extend(more);
    refused.push(not);
    let middle = acknowledged[acknowledged.len() * 2 / 3].0;
    broker.embedded().unwrap().delete_records_before(&place, tailwater::Offset::new(middle)).unwrap();
    acknowledged.retain(|(offset, _)| *offset >= middle);
    let value = "in the room of those".to_owned();
    let appended = broker.producer("orders").unwrap().publish(value.as_bytes()).unwrap();
    acknowledged.push((appended.offset.get(), value));
    broker.close().unwrap();
    std::fs::remove_file(&ballast).unwrap();
    check(&read(&Broker::attach_read_only(data.path()).unwrap()), &acknowledged, &refused, name);
    data.ok(&["verify"]);
}

/// The records there are now, with their offsets.
fn read(broker: &Broker) -> Vec<(u64, String)> {
    let mut reader = broker.reader().reset(Reset::Earliest).subscribe(&["orders"]).unwrap();
    let mut all = Vec::new();
    loop {
        let records = reader.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records.iter().map(|record| {
            let value = std::str::from_utf8(record.value().unwrap()).unwrap().to_owned();
            (record.offset().get(), value)
        }));
    }
}

/// Every acknowledged record is at its offset, and what else is there was sent and refused, and is there once.
fn check(there: &[(u64, String)], acknowledged: &[(u64, String)], refused: &[String], name: &str) {
    let mut expected = acknowledged.iter().peekable();
    let mut others = Vec::new();
    for record in there {
        match expected.next_if_eq(&record) {
            Some(_) => {}
            None => others.push(&record.1),
        }
    }
    assert_eq!(
        expected.next(),
        None,
        "{name}: an acknowledged record is missing, or another is at its offset"
    );
    assert!(others.iter().all(|other| refused.contains(other)), "{name}: {others:?} were never sent");
    others.sort_unstable();
    assert!(others.windows(2).all(|pair| pair[0] != pair[1]), "{name}: something is there twice: {others:?}");
}

#[test]
fn a_process_that_has_filled_its_disk_goes_on_with_room_without_a_restart() {
    const TEST: &str = "a_process_that_has_filled_its_disk_goes_on_with_room_without_a_restart";
    if !is_in_mount_namespace(TEST) {
        return;
    }
    let config = TopicConfig::new().segment_bytes(16 * 1024);
    let configs = [config.clone(), config.clone().preallocate(false), config.durability(Durability::Written)];
    for config in &configs {
        let data = Data::on_disk();
        let _mounted = mount_tmpfs(data.root.path(), "1m");
        goes_on_in_process(&data, &format!("tmpfs {:?}", config.given_pairs()), config);
    }
    let images = Data::on_disk();
    if let Some(why) = why_no_loop_device(images.root.path()) {
        skipped(&format!("{TEST}, its part on ext4"), &why);
        return;
    }
    for config in &configs {
        let image = images.root.path().join("image");
        make_ext4(&image, 2048);
        let data = Data::on_disk();
        let _mounted = mount_loop(&image, data.root.path());
        goes_on_in_process(&data, &format!("ext4 {:?}", config.given_pairs()), config);
    }
}

/// Here the file system has room and the device below it has none, which shows when it is synced: the kernel drops what it
/// could not write and calls it clean. What was acknowledged has to be there when nothing is left of its memory.
#[test]
fn a_device_that_cannot_take_what_was_promised_fails_the_sync_and_costs_nothing_acknowledged() {
    const TEST: &str =
        "a_device_that_cannot_take_what_was_promised_fails_the_sync_and_costs_nothing_acknowledged";
    if !is_in_mount_namespace(TEST) {
        return;
    }
    let images = Data::on_disk();
    if let Some(why) = why_no_loop_device(images.root.path()) {
        skipped(TEST, &why);
        return;
    }
    let below = images.root.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let _below = mount_tmpfs(&below, "2m");
    let image = below.join("image");
    make_ext4(&image, 32 * 1024);
    let data = Data::on_disk();
    let mounted = mount_loop(&image, data.root.path());
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=65536"]);
    tool("sync", &["-f", data.root.path().to_str().unwrap()]);
    fill_up(&below.join("ballast"), 300 * 1024);
    let all = lines("line", 40_000);
    let failed = produce(&data, &all);
    assert_eq!(failed.code, Some(1), "{} acknowledged, {}", failed.offsets.len(), failed.stderr);
    let error = failed.stderr.lines().rev().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains(data.path().to_str().unwrap()) && error.contains("(os error "), "{error}");
    assert!(!failed.stderr.contains("panicked"), "{}", failed.stderr);

    // With room again, and all that the kernel had in memory gone.
    std::fs::remove_file(below.join("ballast")).unwrap();
    drop(mounted);
    let checked =
        Command::new("e2fsck").args(["-fy"]).arg(&image).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _mounted = mount_loop(&image, data.root.path());
    let kept = check_kept(&data, &[], &all, &failed).unwrap_or_else(|why| panic!("{why}: {error}"));
    check_goes_on(&data, kept).unwrap();
    note(&format!(
        "a device that gave out: {error}; {kept} records are there; e2fsck {:?}",
        checked.ok().and_then(|status| status.code())
    ));
    assert!(failed.offsets.len() > 30);
}

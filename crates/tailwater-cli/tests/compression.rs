//! Topics that are compressed: made by a setting, read as any other, shown by `dump`, checked by `verify`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::Data;

fn lines() -> String {
    (0..500)
        .map(|n| {
            format!("{{\"order\":{n},\"table\":{},\"item\":\"espresso\",\"state\":\"accepted\"}}\n", n % 12)
        })
        .collect()
}

#[test]
#[cfg(all(feature = "lz4", feature = "zstd"))]
fn a_compressed_topic_is_written_and_read_as_any_other() {
    let data = Data::new();
    let mut lengths = Vec::new();
    for compression in ["none", "lz4", "zstd"] {
        let setting = format!("compression.type={compression}");
        data.ok(&["topic", "create", compression, "--set", &setting]);
        assert!(data.ok(&["topic", "describe", compression]).contains("compression "));
        data.ok_with(&["produce", compression, "--durability", "written"], lines().as_bytes());
        assert_eq!(data.ok(&["consume", compression]), lines());
        assert_eq!(data.ok(&["consume", compression, "--max", "3", "--from", "499"]).lines().count(), 1);
        let segment = data.segment(&format!("{compression}-0"));
        let shown = data.ok(&["dump", segment.to_str().unwrap()]);
        let is_shown = shown.contains(&format!("{compression} of ")) && shown.contains(" bytes\n");
        assert_eq!(is_shown, compression != "none", "{shown}");
        let json = data.ok(&["dump", "--json", segment.to_str().unwrap()]);
        let batches = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let batches: Vec<_> = batches.filter(|part| part["part"] == "batch").collect();
        lengths.push(batches.iter().map(|batch| batch["size_bytes"].as_u64().unwrap()).sum::<u64>());
        assert_eq!(batches[0]["uncompressed_bytes"].is_u64(), compression != "none", "{json}");
    }
    assert!(lengths[1] * 3 < lengths[0] && lengths[2] < lengths[1], "{lengths:?}");
    data.ok(&["verify"]);
    data.ok(&["topic", "alter", "lz4", "--set", "compression=zstd", "--set", "compression_zstd_level=19"]);
    data.ok_with(&["produce", "lz4"], lines().as_bytes());
    assert_eq!(data.ok(&["consume", "lz4"]), lines() + &lines());
}

#[test]
#[cfg(not(feature = "zstd"))]
fn a_compression_that_is_not_built_in_is_refused_with_its_feature() {
    let data = Data::new();
    let ran = data.run_with(&["topic", "create", "orders", "--set", "compression=zstd"], lines().as_bytes());
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("build it with the cargo feature `zstd`"), "{ran:?}");
    assert!(!data.path().exists());
}

#[test]
fn words_and_levels_that_there_are_not_are_refused() {
    let data = Data::new();
    for (setting, said) in [
        ("compression=gzip", "one of none, lz4, zstd"),
        ("compression_zstd_level=23", "from 1 to 22"),
        ("compression.zstd.level=fast", "whole number of levels"),
    ] {
        let ran = data.run(&["topic", "create", "orders", "--set", setting]);
        assert!(ran.code == 2 && ran.stderr.contains(said), "{ran:?}");
    }
}

//! The settings of a topic.

use std::collections::BTreeMap;

use tailwater_log::{CleanupPolicy, Compression, Durability, LogConfig, ReadMode};

use crate::catalog::{MAX_PARTITIONS, name};
use crate::error::{Expected, InvalidSetting};
use crate::retention::{Hold, OnFull, RetentionPolicy};
use crate::{Error, Result};

/// The settings of a topic: those that were given, and defaults for the rest.
///
/// Only what was given is stored, so a topic gets better defaults with a newer version. `set` takes the names that
/// [`TopicConfig::to_pairs`] shows, with underscores or, as in Apache Kafka, with dots.
///
/// | Setting | Unit | Default | Meaning |
/// |---|---|---|---|
/// | `durability` | | `durable` | what readers see, and what a receipt waits for unless its producer says otherwise |
/// | `compression` (`compression.type`) | | `none` | `none`, or `lz4` or `zstd` with that feature of the crate |
/// | `compression_zstd_level` | | 3 | from 1, fast, to 22, small |
/// | `segment_bytes` | bytes | 1 GiB | size at which a new segment file is begun |
/// | `segment_ms` | ms | 7 days | age at which one is begun |
/// | `max_batch_bytes` (`max.message.bytes`) | bytes | 16 MiB | largest batch, and so largest record |
/// | `write_interval_ms` | ms | 100 | longest wait in memory, on topics that are not durable |
/// | `sync_interval_ms` (`flush.ms`) | ms | 1,000 | longest wait for a sync that nobody asked for |
/// | `sync_bytes` | bytes | 16 MiB | most bytes that wait for one |
/// | `staging_bytes` | bytes | 1 MiB | most bytes that wait in memory, per partition |
/// | `max_block_ms` | ms | 60,000 | how long `send` waits when they do |
/// | `read_mode` | | `mapped` | `mapped`, or `positional` for read errors as error values |
/// | `preallocate` | | `true` | whether disk space is reserved ahead |
/// | `retention_ms` | ms | `none` | age from which records are deleted, by the time of their append |
/// | `retention_bytes` | bytes | `none` | size of a partition over which its oldest records are deleted; 0 for all that nobody holds |
/// | `hold` | | `all_groups` | whose unread records are kept all the same: `all_groups`, `none`, `groups:a,b` |
/// | `retention_hard_bytes` | bytes | `none` | most disk space that a partition takes up |
/// | `on_full` | | `reject_publish` | what happens then: `reject_publish`, or `drop_oldest`, held or not |
/// | `cleanup_policy` | | `delete` | `delete` old segments where a limit is set, `compact` for the last record of each key, or `compact,delete` |
/// | `min_compaction_lag_ms` | ms | 0 | age up to which compaction leaves records alone |
/// | `max_compaction_lag_ms` | ms | `none` | age at which records are to be compacted, or `none` |
/// | `delete_retention_ms` | ms | 24 hours | how long a tombstone stays when all it deletes is gone |
/// | `min_cleanable_dirty_percent` (`min.cleanable.dirty.ratio`, as 0.5) | % | 50 | share of what has not been compacted from which on it is |
/// | `compaction_map_bytes` | bytes | 16 MiB | most memory in which compaction remembers keys |
///
/// Kafka's `-1` is read as `none`. Records are deleted by whole segments: with `retention_ms` a segment holds those of a
/// quarter of that time, with limits of size there are at least eight segments (of 1 MiB or more, for `retention_bytes`).
///
/// # Examples
///
/// ```
/// use tailwater::{Durability, TopicConfig};
///
/// let config = TopicConfig::new().partitions(4).durability(Durability::Written).set("segment.bytes", "1048576")?;
/// assert!(config.to_pairs().contains(&("segment_bytes", "1048576".to_owned())));
/// assert!(TopicConfig::new().set("segment.bytes", "1 MiB").is_err());
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TopicConfig {
    partitions: Option<u32>,
    given: BTreeMap<&'static str, Value>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Number(u64),
    /// No limit.
    None,
    Hold(Hold),
    OnFull(OnFull),
    Compression(Compression),
    Durability(Durability),
    ReadMode(ReadMode),
    CleanupPolicy(CleanupPolicy),
    Flag(bool),
}

/// What kind of value a setting has, and where it goes.
#[derive(Clone, Copy)]
enum Kind {
    Bytes(fn(&mut LogConfig) -> &mut u32),
    LongBytes(fn(&mut LogConfig) -> &mut u64),
    Milliseconds(fn(&mut LogConfig) -> &mut u64),
    /// Number of bytes or none.
    ByteLimit(fn(&mut LogConfig) -> &mut Option<u64>),
    /// Number of milliseconds or none.
    AgeLimit(fn(&mut LogConfig) -> &mut Option<u64>),
    Level(fn(&mut LogConfig) -> &mut u32),
    Compression,
    /// Number from 0 to 100.
    Percent(fn(&mut LogConfig) -> &mut u32),
    Durability,
    ReadMode,
    CleanupPolicy,
    Flag(fn(&mut LogConfig) -> &mut bool),
    Hold,
    OnFull,
}

/// What all settings together come to.
#[derive(Clone, Debug, Default)]
struct Settings {
    log: LogConfig,
    retention: RetentionPolicy,
}

struct Setting {
    name: &'static str,
    /// Kafka's name, where it is not the same with dots.
    alias: Option<&'static str>,
    kind: Kind,
}

const fn setting(name: &'static str, kind: Kind) -> Setting {
    Setting { name, alias: None, kind }
}

const SETTINGS: [Setting; 24] = [
    setting("cleanup_policy", Kind::CleanupPolicy),
    setting("compaction_map_bytes", Kind::Bytes(|config| &mut config.compaction_map_bytes)),
    Setting { name: "compression", alias: Some("compression.type"), kind: Kind::Compression },
    setting("compression_zstd_level", Kind::Level(|config| &mut config.compression_zstd_level)),
    setting("delete_retention_ms", Kind::Milliseconds(|config| &mut config.delete_retention_ms)),
    setting("durability", Kind::Durability),
    setting("hold", Kind::Hold),
    Setting {
        name: "max_batch_bytes",
        alias: Some("max.message.bytes"),
        kind: Kind::Bytes(|config| &mut config.max_batch_bytes),
    },
    setting("max_block_ms", Kind::Milliseconds(|config| &mut config.max_block_ms)),
    setting("max_compaction_lag_ms", Kind::AgeLimit(|config| &mut config.max_compaction_lag_ms)),
    Setting {
        name: "min_cleanable_dirty_percent",
        alias: Some("min.cleanable.dirty.ratio"),
        kind: Kind::Percent(|config| &mut config.min_cleanable_dirty_percent),
    },
    setting("min_compaction_lag_ms", Kind::Milliseconds(|config| &mut config.min_compaction_lag_ms)),
    setting("on_full", Kind::OnFull),
    setting("preallocate", Kind::Flag(|config| &mut config.preallocate)),
    setting("read_mode", Kind::ReadMode),
    setting("retention_bytes", Kind::ByteLimit(|config| &mut config.retention_bytes)),
    setting("retention_hard_bytes", Kind::ByteLimit(|config| &mut config.retention_hard_bytes)),
    setting("retention_ms", Kind::AgeLimit(|config| &mut config.retention_ms)),
    setting("segment_bytes", Kind::Bytes(|config| &mut config.segment_bytes)),
    setting("segment_ms", Kind::Milliseconds(|config| &mut config.segment_ms)),
    setting("staging_bytes", Kind::Bytes(|config| &mut config.staging_bytes)),
    setting("sync_bytes", Kind::LongBytes(|config| &mut config.sync_bytes)),
    Setting {
        name: "sync_interval_ms",
        alias: Some("flush.ms"),
        kind: Kind::Milliseconds(|config| &mut config.sync_interval_ms),
    },
    setting("write_interval_ms", Kind::Milliseconds(|config| &mut config.write_interval_ms)),
];

const DURABILITIES: [(&str, Durability); 3] =
    [("buffered", Durability::Buffered), ("written", Durability::Written), ("durable", Durability::Durable)];
const ON_FULL: [(&str, OnFull); 2] =
    [("reject_publish", OnFull::RejectPublish), ("drop_oldest", OnFull::DropOldest)];
const CLEANUP_POLICIES: [(&str, CleanupPolicy); 3] = [
    ("delete", CleanupPolicy::Delete),
    ("compact", CleanupPolicy::Compact),
    ("compact,delete", CleanupPolicy::CompactAndDelete),
];
const READ_MODES: [(&str, ReadMode); 2] =
    [("mapped", ReadMode::Mapped), ("positional", ReadMode::Positional)];

/// The names of all settings, for an error.
pub(crate) fn names() -> String {
    SETTINGS.map(|setting| setting.name).join(", ")
}

macro_rules! number_setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self.given.insert(stringify!($name), Value::Number(value.into()));
            self
        }
    )*};
}

impl TopicConfig {
    /// All defaults: one partition, durable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of partitions, from 1 to 100,000: default 1. It can be raised later and never lowered.
    #[must_use]
    pub fn partitions(mut self, count: u32) -> Self {
        self.partitions = Some(count);
        self
    }

    /// Sets what readers see, and what a receipt waits for unless its producer says otherwise: default
    /// [`Durability::Durable`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.given.insert("durability", Value::Durability(durability));
        self
    }

    /// Sets what becomes of records that are no longer wanted: default [`CleanupPolicy::Delete`]. On a compacted topic every
    /// message has a key.
    #[must_use]
    pub fn cleanup_policy(mut self, policy: CleanupPolicy) -> Self {
        self.given.insert("cleanup_policy", Value::CleanupPolicy(policy));
        self
    }

    /// Sets how readers get at the bytes: default [`ReadMode::Mapped`].
    #[must_use]
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.given.insert("read_mode", Value::ReadMode(read_mode));
        self
    }

    /// Sets whether disk space is reserved ahead of the data: default true. Without it appends are slower, and a full
    /// disk is noticed only when a batch is written.
    #[must_use]
    pub fn preallocate(mut self, preallocate: bool) -> Self {
        self.given.insert("preallocate", Value::Flag(preallocate));
        self
    }

    /// Sets whose unread records are kept however old or many they are: default [`Hold::AllGroups`].
    #[must_use]
    pub fn hold(mut self, hold: Hold) -> Self {
        self.given.insert("hold", Value::Hold(hold));
        self
    }

    /// Sets what becomes of an append that would exceed `retention_hard_bytes`: default [`OnFull::RejectPublish`].
    #[must_use]
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.given.insert("on_full", Value::OnFull(on_full));
        self
    }

    /// Sets how batches are compressed: default [`Compression::None`]. Topics without it, and partitions that were written
    /// with another, are read all the same. One record read on its own costs the batch that it is in: up to 64 KiB, or as
    /// large as it was sent.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.given.insert("compression", Value::Compression(compression));
        self
    }

    number_setters! {
        /// Sets the age, in milliseconds since their append, from which records are deleted: default none, for never; at
        /// least 1. Whole segments go, each of which holds records of at most a quarter of that time.
        retention_ms: u64;
        /// Sets the size of a partition, in bytes, over which its oldest records are deleted: default none, for never. With
        /// 0 everything goes that nobody holds. Whole segments go, which are then at most an eighth of this, or 1 MiB.
        retention_bytes: u64;
        /// Sets the most bytes of disk that a partition takes up: default none, for no limit; at least 64 KiB, and no less
        /// than `retention_bytes`.
        retention_hard_bytes: u64;
        /// Sets the level of Zstandard: default 3, from 1 (fast) to 22 (small).
        compression_zstd_level: u32;
        /// Sets the size, in bytes, at which a new segment file is begun: default 1 GiB, from 4 KiB to 2 GiB.
        segment_bytes: u32;
        /// Sets the age, in milliseconds, at which a new segment file is begun: default 7 days, at least 1.
        segment_ms: u64;
        /// Sets the largest encoded batch, in bytes, and so the largest record: default and maximum 16 MiB, at least
        /// 1 KiB.
        max_batch_bytes: u32;
        /// Sets the longest time, in milliseconds, that records of a topic that is not durable wait in memory: default
        /// 100, at least 1.
        write_interval_ms: u64;
        /// Sets the longest time, in milliseconds, that written records wait for a sync that nobody asked for: default
        /// 1,000, at least 1.
        sync_interval_ms: u64;
        /// Sets the most bytes that are written and wait for a sync: default 16 MiB, at least 4 KiB.
        sync_bytes: u64;
        /// Sets the most bytes of a partition that wait in memory: default 1 MiB, from 4 KiB to 1 GiB.
        staging_bytes: u32;
        /// Sets how long `send` waits, in milliseconds, when that many bytes wait in memory: default 60,000.
        max_block_ms: u64;
        /// Sets the age, in milliseconds since the append, up to which compaction leaves records alone: default 0.
        min_compaction_lag_ms: u64;
        /// Sets the age, in milliseconds since the append, at which records are to be compacted however little there is to
        /// gain: default none, at least 1 and `min_compaction_lag_ms`.
        max_compaction_lag_ms: u64;
        /// Sets how long, in milliseconds, a tombstone stays after compaction has removed all older messages of its key:
        /// default 24 hours.
        delete_retention_ms: u64;
        /// Sets the share, in percent, of what could be compacted that has not been, from which on it is: default 50.
        min_cleanable_dirty_percent: u32;
        /// Sets the most memory, in bytes, in which compaction remembers keys: default 16 MiB, from 1 KiB to 2 GiB.
        compaction_map_bytes: u32;
    }

    /// Sets one setting by its name. Both are text, as on a command line.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSetting`], [`Error::InvalidSetting`]. Bounds are checked when a topic is created or altered.
    pub fn set(mut self, key: &str, value: &str) -> Result<Self> {
        let Some(setting) = find(key) else { return Err(Error::UnknownSetting { key: key.into() }) };
        let fault = |expected| {
            let value = value.to_owned();
            Error::InvalidSetting(Box::new(InvalidSetting { key: setting.name, value, expected }))
        };
        let number = |unit| value.parse().map(Value::Number).map_err(|_| fault(Expected::Number { unit }));
        let limit = |unit| match value {
            "none" | "-1" => Ok(Value::None),
            _ => value.parse().map(Value::Number).map_err(|_| fault(Expected::Limit { unit })),
        };
        let parsed = match setting.kind {
            Kind::Bytes(_) | Kind::LongBytes(_) => number("bytes")?,
            Kind::Milliseconds(_) => number("milliseconds")?,
            Kind::ByteLimit(_) => limit("bytes")?,
            Kind::AgeLimit(_) => limit("milliseconds")?,
            Kind::Hold => {
                let words = "all_groups|none|groups: with the names of groups, separated by commas";
                Hold::parse(value).map(Value::Hold).ok_or_else(|| fault(Expected::Word { words }))?
            }
            Kind::OnFull => {
                let found = word(&ON_FULL, value).map(Value::OnFull);
                found.ok_or_else(|| fault(Expected::Word { words: "reject_publish|drop_oldest" }))?
            }
            Kind::Level(_) => number("levels")?,
            Kind::Compression => {
                let found = Compression::by_name(value).map(Value::Compression);
                found.ok_or_else(|| fault(Expected::Word { words: "none|lz4|zstd" }))?
            }
            Kind::Percent(_) => parse_percent(setting, key, value)
                .map(Value::Number)
                .ok_or_else(|| fault(Expected::Number { unit: "percent" }))?,
            Kind::CleanupPolicy => {
                let sorted = if value == "delete,compact" { "compact,delete" } else { value };
                let found = word(&CLEANUP_POLICIES, sorted).map(Value::CleanupPolicy);
                found.ok_or_else(|| fault(Expected::Word { words: "delete|compact|compact,delete" }))?
            }
            Kind::Durability => {
                let found = word(&DURABILITIES, value).map(Value::Durability);
                found.ok_or_else(|| fault(Expected::Word { words: "buffered|written|durable" }))?
            }
            Kind::ReadMode => {
                let found = word(&READ_MODES, value).map(Value::ReadMode);
                found.ok_or_else(|| fault(Expected::Word { words: "mapped|positional" }))?
            }
            Kind::Flag(_) => {
                let found = value.parse().map(Value::Flag);
                found.map_err(|_| fault(Expected::Word { words: "true|false" }))?
            }
        };
        self.given.insert(setting.name, parsed);
        Ok(self)
    }

    /// All settings with their values, defaults included, ordered by name.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let mut settings = Settings::default();
        for (name, value) in &self.given {
            // What is out of bounds is shown as it was given.
            let _ = apply(&mut settings, name, value);
        }
        SETTINGS
            .iter()
            .map(|setting| {
                let shown = match self.given.get(setting.name) {
                    Some(given) => given.clone(),
                    None => current(&mut settings, setting),
                };
                (setting.name, shown.to_text())
            })
            .collect()
    }

    /// Only the settings that were given.
    #[must_use]
    pub fn given_pairs(&self) -> Vec<(&'static str, String)> {
        self.given.iter().map(|(name, value)| (*name, value.to_text())).collect()
    }

    /// The number of partitions, if it was given.
    #[must_use]
    pub fn partition_count(&self) -> Option<u32> {
        self.partitions
    }

    /// These settings, and for those that were not given the ones of `defaults`.
    #[must_use]
    pub(crate) fn or(&self, defaults: &TopicConfig) -> TopicConfig {
        let mut merged = defaults.clone();
        merged.partitions = self.partitions.or(defaults.partitions);
        merged.given.extend(self.given.iter().map(|(name, value)| (*name, value.clone())));
        merged
    }

    /// Checks these settings and the name of a topic, as [`Broker::create_topic`](crate::Broker::create_topic) does, where
    /// there is no broker yet: before a directory is created for a topic that cannot be.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTopicName`], [`Error::InvalidPartitionCount`], [`Error::InvalidConfig`],
    /// [`Error::UnsupportedCompression`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tailwater::{Error, TopicConfig};
    ///
    /// assert!(TopicConfig::new().check("orders").is_ok());
    /// assert!(matches!(TopicConfig::new().check("a/b"), Err(Error::InvalidTopicName { .. })));
    /// ```
    pub fn check(&self, name: &str) -> Result<()> {
        name::check(name)?;
        self.checked_partitions()?;
        self.to_new_log_config()?;
        Ok(())
    }

    /// The number of partitions to create, checked.
    pub(crate) fn checked_partitions(&self) -> Result<u32> {
        let requested = self.partitions.unwrap_or(1);
        match requested {
            1..=MAX_PARTITIONS => Ok(requested),
            _ => Err(Error::InvalidPartitionCount { requested, min: 1, max: MAX_PARTITIONS }),
        }
    }

    /// The configuration of the logs that are made or altered so: with nothing that this build lacks.
    pub(crate) fn to_new_log_config(&self) -> Result<LogConfig> {
        let config = self.to_log_config()?;
        config.check_compression()?;
        Ok(config)
    }

    /// The configuration of each partition's log, checked against its bounds. It may ask for what this build lacks, which
    /// keeps nobody from reading.
    pub(crate) fn to_log_config(&self) -> Result<LogConfig> {
        let settings = self.settings()?;
        settings.log.validate()?;
        Ok(settings.log)
    }

    /// What the facade decides of retention.
    pub(crate) fn retention_policy(&self) -> RetentionPolicy {
        // A number that is out of its bounds says nothing of this.
        self.settings().map(|settings| settings.retention).unwrap_or_default()
    }

    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        for (name, value) in &self.given {
            apply(&mut settings, name, value)?;
        }
        Ok(settings)
    }
}

impl Value {
    fn to_text(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::None => "none".to_owned(),
            Value::Flag(flag) => flag.to_string(),
            Value::Compression(compression) => compression.to_string(),
            Value::Durability(durability) => word_of(&DURABILITIES, *durability),
            Value::ReadMode(read_mode) => word_of(&READ_MODES, *read_mode),
            Value::Hold(hold) => hold.to_string(),
            Value::OnFull(on_full) => word_of(&ON_FULL, *on_full),
            Value::CleanupPolicy(policy) => word_of(&CLEANUP_POLICIES, *policy),
        }
    }
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| {
        setting.alias == Some(key) || setting.name == key || setting.name == key.replace('.', "_")
    })
}

/// A share in percent: as a whole number of percent, or under Kafka's name as a fraction of 1.
fn parse_percent(setting: &Setting, key: &str, value: &str) -> Option<u64> {
    if setting.alias != Some(key) {
        return value.parse().ok();
    }
    let fraction: f64 = value.parse().ok()?;
    // Of what is out of bounds nothing is rounded.
    let percent = (0..=100).find(|percent| (f64::from(*percent) - fraction * 100.0).abs() <= 0.5)?;
    u64::try_from(percent).ok()
}

fn word<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

fn word_of<T: PartialEq>(words: &[(&str, T)], value: T) -> String {
    words.iter().find(|(_, known)| *known == value).map_or("unknown", |(word, _)| word).to_owned()
}

/// Puts a value where it belongs. A number that the field cannot hold is out of its bounds.
fn apply(settings: &mut Settings, name: &str, value: &Value) -> Result<()> {
    let config = &mut settings.log;
    let Some(setting) = find(name) else { return Err(Error::UnknownSetting { key: name.into() }) };
    match (setting.kind, value) {
        (Kind::Bytes(field) | Kind::Level(field) | Kind::Percent(field), Value::Number(number)) => {
            let unit = if matches!(setting.kind, Kind::Bytes(_)) { "bytes" } else { "" };
            *field(config) = u32::try_from(*number).map_err(|_| {
                Error::InvalidConfig(Box::new(tailwater_log::InvalidConfig {
                    field: setting.name,
                    value: *number,
                    min: 0,
                    max: u32::MAX.into(),
                    unit,
                }))
            })?;
        }
        (Kind::Compression, Value::Compression(compression)) => config.compression = *compression,
        (Kind::LongBytes(field) | Kind::Milliseconds(field), Value::Number(number)) => {
            *field(config) = *number
        }
        (Kind::ByteLimit(field) | Kind::AgeLimit(field), Value::Number(number)) => {
            *field(config) = Some(*number)
        }
        (Kind::ByteLimit(field) | Kind::AgeLimit(field), Value::None) => *field(config) = None,
        (Kind::Durability, Value::Durability(durability)) => config.durability = *durability,
        (Kind::ReadMode, Value::ReadMode(read_mode)) => config.read_mode = *read_mode,
        (Kind::Flag(field), Value::Flag(flag)) => *field(config) = *flag,
        (Kind::Hold, Value::Hold(hold)) => settings.retention.hold = hold.clone(),
        (Kind::OnFull, Value::OnFull(on_full)) => settings.retention.on_full = *on_full,
        (Kind::CleanupPolicy, Value::CleanupPolicy(policy)) => config.cleanup_policy = *policy,
        _ => unreachable!("a setting is given a value of its own kind only"),
    }
    Ok(())
}

fn current(settings: &mut Settings, setting: &Setting) -> Value {
    let config = &mut settings.log;
    match setting.kind {
        Kind::ByteLimit(field) | Kind::AgeLimit(field) => field(config).map_or(Value::None, Value::Number),
        Kind::Hold => Value::Hold(settings.retention.hold.clone()),
        Kind::OnFull => Value::OnFull(settings.retention.on_full),
        Kind::Bytes(field) | Kind::Level(field) | Kind::Percent(field) => {
            Value::Number((*field(config)).into())
        }
        Kind::Compression => Value::Compression(config.compression),
        Kind::CleanupPolicy => Value::CleanupPolicy(config.cleanup_policy),
        Kind::LongBytes(field) | Kind::Milliseconds(field) => Value::Number(*field(config)),
        Kind::Durability => Value::Durability(config.durability),
        Kind::ReadMode => Value::ReadMode(config.read_mode),
        Kind::Flag(field) => Value::Flag(*field(config)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_back_as_it_was_shown() {
        let defaults = TopicConfig::new();
        let shown = defaults.to_pairs();
        assert_eq!(shown.len(), SETTINGS.len());
        assert!(shown.is_sorted());
        let mut read_back = TopicConfig::new();
        for (name, value) in &shown {
            read_back = read_back.set(name, value).unwrap();
            read_back = read_back.set(&name.replace('_', "."), value).unwrap();
        }
        assert_eq!(read_back.to_pairs(), shown);
        assert_eq!(read_back.given_pairs(), shown);
        assert_eq!(read_back.to_log_config().unwrap(), LogConfig::default());
        assert!(defaults.given_pairs().is_empty());
    }

    #[test]
    fn kafkas_names_are_known() {
        let config =
            TopicConfig::new().set("max.message.bytes", "4096").unwrap().set("flush.ms", "7").unwrap();
        let config =
            config.set("compression.type", "zstd").unwrap().set("compression.zstd.level", "9").unwrap();
        let config = config.to_log_config().unwrap();
        assert_eq!((config.max_batch_bytes, config.sync_interval_ms), (4096, 7));
        assert_eq!((config.compression, config.compression_zstd_level), (Compression::Zstd, 9));
        let config = TopicConfig::new()
            .set("cleanup.policy", "delete,compact")
            .and_then(|config| config.set("min.cleanable.dirty.ratio", "0.3"))
            .and_then(|config| config.set("min.compaction.lag.ms", "5"))
            .and_then(|config| config.set("max.compaction.lag.ms", "6"))
            .and_then(|config| config.set("delete.retention.ms", "7"));
        let config = config.unwrap().to_log_config().unwrap();
        assert_eq!(config.cleanup_policy, CleanupPolicy::CompactAndDelete);
        assert_eq!((config.min_cleanable_dirty_percent, config.delete_retention_ms), (30, 7));
        assert_eq!((config.min_compaction_lag_ms, config.max_compaction_lag_ms), (5, Some(6)));
        for ratio in ["1.5", "-1", "half", "NaN"] {
            assert!(TopicConfig::new().set("min.cleanable.dirty.ratio", ratio).is_err(), "{ratio}");
        }
    }

    #[test]
    fn builders_and_text_mean_the_same() {
        let built =
            TopicConfig::new().segment_bytes(8192).durability(Durability::Buffered).preallocate(false);
        let read = TopicConfig::new().set("segment_bytes", "8192").unwrap();
        let read = read.set("durability", "buffered").unwrap().set("preallocate", "false").unwrap();
        assert_eq!(built, read);
        let pairs = read.read_mode(ReadMode::Positional).to_pairs();
        assert!(pairs.contains(&("read_mode", "positional".to_owned())));
    }

    #[test]
    fn errors_name_the_field_its_unit_and_its_bounds() {
        let text = |config: Result<TopicConfig>| {
            config.and_then(|config| config.to_log_config()).unwrap_err().to_string()
        };
        let new = TopicConfig::new;
        assert_eq!(
            text(new().set("segment.bytes", "1GiB")),
            "segment_bytes cannot be \"1GiB\": it must be a whole number of bytes, without a unit"
        );
        assert_eq!(
            text(new().set("durability", "maybe")),
            "durability cannot be \"maybe\": it must be one of buffered, written, durable"
        );
        assert_eq!(
            text(new().set("cleanup.policy", "keep")),
            "cleanup_policy cannot be \"keep\": it must be one of delete, compact, compact,delete"
        );
        assert!(text(Ok(new().max_compaction_lag_ms(5).min_compaction_lag_ms(6))).contains("must be from 6"));
        assert!(text(new().set("preallocate", "1")).contains("one of true, false"));
        assert_eq!(
            text(new().set("retention.ms", "1d")),
            "retention_ms cannot be \"1d\": it must be a whole number of milliseconds, without a unit, or none"
        );
        assert!(text(new().set("hold", "groups:")).contains("all_groups, none, groups: with the names"));
        assert_eq!(
            text(Ok(new().retention_bytes(200_000).retention_hard_bytes(100_000))),
            "retention_bytes is 200000; it must be from 0 to 100000 bytes"
        );
        assert_eq!(
            text(new().set("compression.type", "gzip")),
            "compression cannot be \"gzip\": it must be one of none, lz4, zstd"
        );
        assert!(text(Ok(new().compression_zstd_level(23))).contains("from 1 to 22 (a level of Zstandard)"));
        assert!(
            text(new().set("retention", "1"))
                .contains("there are cleanup_policy, compaction_map_bytes, compression, ")
        );
        assert_eq!(
            text(Ok(new().segment_bytes(17))),
            "segment_bytes is 17; it must be from 4096 to 2147483648 bytes"
        );
        assert!(text(new().set("segment_bytes", "99999999999")).starts_with("segment_bytes is 99999999999"));
    }

    #[test]
    fn partition_counts_are_bounded() {
        assert_eq!(TopicConfig::new().checked_partitions().unwrap(), 1);
        assert_eq!(TopicConfig::new().partitions(100_000).checked_partitions().unwrap(), 100_000);
        for count in [0, 100_001] {
            assert!(TopicConfig::new().partitions(count).checked_partitions().is_err());
        }
    }

    #[test]
    fn given_settings_win_over_defaults() {
        let defaults = TopicConfig::new().partitions(3).segment_bytes(8192).max_block_ms(1);
        let merged = TopicConfig::new().segment_bytes(4096).or(&defaults);
        assert_eq!(merged, TopicConfig::new().partitions(3).segment_bytes(4096).max_block_ms(1));
    }
}

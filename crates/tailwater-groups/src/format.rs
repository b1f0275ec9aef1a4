//! The entries of the groups log: bytes in, values out. `docs/format.md`, section "Groups log", has the tables.
//!
//! - An entry is a record: its key says what it is about, its value what is so from now on; no value: nothing any more.
//! - The last record of a key counts. Whatever else removes only earlier records of keys leaves the same state.
//! - A decoder takes any bytes: it never panics, and allocates nothing.

use byteorder::{ByteOrder, LittleEndian};
use tailwater_log::{LogEpoch, Offset, PartitionId, PartitionIdentity, Timestamp, TopicId};

use crate::group::MAX_GROUP_ID_BYTES;
use crate::position::MAX_METADATA_BYTES;
use crate::{GroupId, GroupKind, Position};

/// The version of all keys and values that this build writes, and the newest that it reads.
pub const VERSION: u8 = 1;

/// The entry type of a registration.
pub const REGISTRATION: u8 = 1;
/// The entry type of a committed position.
pub const POSITION: u8 = 2;
/// The entry type of the end of a rewrite.
pub const REWRITE_END: u8 = 3;

const CONSUMER: u8 = 1;
const SHARE: u8 = 2;

// Lengths are stored in one byte and in two.
const _: () = assert!(MAX_GROUP_ID_BYTES <= u8::MAX as usize && MAX_METADATA_BYTES <= u16::MAX as usize);

/// An entry of the groups log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Entry<'e> {
    /// A group exists, or exists no more.
    Registration {
        /// The group's id.
        group: &'e str,
        /// What it is; `None` once it was deleted.
        value: Option<Registration>,
    },
    /// A group has a position in a partition, or has one no more.
    Position {
        /// The group's id.
        group: &'e str,
        /// The partition.
        partition: PartitionIdentity,
        /// The position; `None` once it was removed.
        value: Option<StoredPosition<'e>>,
    },
    /// Everything that was so is said again between `start` and this entry: what lies below `start` may go.
    RewriteEnd {
        /// The offset in the groups log at which the rewrite began.
        start: Offset,
    },
}

/// What is stored of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Its kind.
    pub kind: GroupKind,
    /// When it was registered.
    pub registered_at: Timestamp,
}

/// What is stored of a committed position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredPosition<'e> {
    /// The position.
    pub position: Position,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// The committer's text.
    pub metadata: &'e str,
}

/// Why a record is not an entry that this build can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// It does not follow the format.
    #[error("{0}")]
    Damaged(EntryDamage),
    /// It is of a type or a version that this build does not know.
    #[error("entry type {entry_type}, version {version}, is unknown")]
    Unsupported {
        /// Its type.
        entry_type: u8,
        /// The version of its type.
        version: u8,
    },
}

/// What is wrong with an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryDamage {
    /// The record has no key.
    #[error("it has no key")]
    NoKey,
    /// The record has no value where there has to be one.
    #[error("it has no value")]
    NoValue,
    /// The key does not follow the format.
    #[error("its key is malformed at byte {at}")]
    Key {
        /// Where, in bytes from the start of the key.
        at: u32,
    },
    /// The value does not follow the format.
    #[error("its value is malformed at byte {at}")]
    Value {
        /// Where, in bytes from the start of the value.
        at: u32,
    },
    /// It is an opaque batch, not a record.
    #[error("it is an opaque batch")]
    Opaque,
    /// It is a position of a group that is not registered.
    #[error("its group is not registered")]
    Unregistered,
}

impl<'e> Entry<'e> {
    /// Appends the key to `out`.
    ///
    /// # Panics
    ///
    /// If the group id is longer than [`MAX_GROUP_ID_BYTES`]: a [`GroupId`] never is.
    pub fn encode_key(&self, out: &mut Vec<u8>) {
        match *self {
            Entry::Registration { group, .. } => put_key(out, REGISTRATION, group),
            Entry::Position { group, partition, .. } => {
                put_key(out, POSITION, group);
                out.extend_from_slice(partition.topic_id.as_bytes());
                out.extend_from_slice(&partition.partition.get().to_le_bytes());
            }
            Entry::RewriteEnd { start } => {
                out.extend_from_slice(&[REWRITE_END, VERSION]);
                out.extend_from_slice(&start.get().to_le_bytes());
            }
        }
    }

    /// Appends the value to `out`. False if there is none: the record is a tombstone.
    ///
    /// # Panics
    ///
    /// If the metadata is longer than [`MAX_METADATA_BYTES`]: a commit's is checked before.
    pub fn encode_value(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Entry::Registration { value: None, .. } | Entry::Position { value: None, .. } => return false,
            Entry::Registration { value: Some(registration), .. } => {
                let kind = match registration.kind {
                    GroupKind::Consumer => CONSUMER,
                    GroupKind::Share => SHARE,
                };
                out.extend_from_slice(&[VERSION, kind]);
                out.extend_from_slice(&registration.registered_at.as_millis().to_le_bytes());
            }
            Entry::Position { value: Some(stored), .. } => {
                out.push(VERSION);
                out.extend_from_slice(&stored.position.offset.get().to_le_bytes());
                out.extend_from_slice(&stored.position.epoch.get().to_le_bytes());
                out.extend_from_slice(&stored.committed_at.as_millis().to_le_bytes());
                let length = u16::try_from(stored.metadata.len())
                    .expect("metadata is at most MAX_METADATA_BYTES long");
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(stored.metadata.as_bytes());
            }
            Entry::RewriteEnd { .. } => out.push(VERSION),
        }
        true
    }

    /// How many bytes key and value take together, at most.
    pub(crate) fn max_encoded_bytes(&self) -> usize {
        // The fixed fields of the largest key and of the largest value.
        const FIXED_BYTES: usize = (3 + 16 + 4) + (1 + 8 + 4 + 8 + 2);
        FIXED_BYTES
            + match self {
                Entry::Registration { group, .. } => group.len(),
                Entry::Position { group, value, .. } => {
                    group.len() + value.map_or(0, |stored| stored.metadata.len())
                }
                Entry::RewriteEnd { .. } => 0,
            }
    }

    /// Reads an entry from the key and the value of a record.
    ///
    /// # Errors
    ///
    /// Why it is none that this build can read.
    pub fn decode(key: Option<&'e [u8]>, value: Option<&'e [u8]>) -> Result<Self, EntryFault> {
        let key = key.ok_or(EntryFault::Damaged(EntryDamage::NoKey))?;
        let mut key = Reader { bytes: key, at: 0, part: Part::Key };
        let (entry_type, version) = (key.u8()?, key.u8()?);
        if !(REGISTRATION..=REWRITE_END).contains(&entry_type) || version != VERSION {
            return Err(EntryFault::Unsupported { entry_type, version });
        }
        let mut value = value.map(|bytes| Reader { bytes, at: 0, part: Part::Value });
        if let Some(value) = &mut value {
            let version = value.u8()?;
            if version != VERSION {
                return Err(EntryFault::Unsupported { entry_type, version });
            }
        }
        match entry_type {
            REGISTRATION => {
                let group = read_group(&mut key)?;
                key.finish()?;
                Ok(Entry::Registration { group, value: value.map(read_registration).transpose()? })
            }
            POSITION => {
                let group = read_group(&mut key)?;
                let topic_id = TopicId::from_bytes(key.array()?);
                let partition =
                    key.checked(4, |bytes| PartitionId::try_new(LittleEndian::read_u32(bytes)))?;
                key.finish()?;
                let partition = PartitionIdentity { topic_id, partition };
                Ok(Entry::Position { group, partition, value: value.map(read_position).transpose()? })
            }
            _ => {
                let start = key.offset()?;
                key.finish()?;
                value.ok_or(EntryFault::Damaged(EntryDamage::NoValue))?.finish()?;
                Ok(Entry::RewriteEnd { start })
            }
        }
    }
}

fn put_key(out: &mut Vec<u8>, entry_type: u8, group: &str) {
    let length = u8::try_from(group.len()).expect("a group id is at most MAX_GROUP_ID_BYTES long");
    out.extend_from_slice(&[entry_type, VERSION, length]);
    out.extend_from_slice(group.as_bytes());
}

fn read_group<'e>(key: &mut Reader<'e>) -> Result<&'e str, EntryFault> {
    let length = key.u8()?;
    let fault = key.fault();
    let group = key.text(length.into())?;
    GroupId::check(group).map(|()| group).map_err(|_| fault)
}

fn read_registration(mut value: Reader<'_>) -> Result<Registration, EntryFault> {
    let kind = value.checked(1, |bytes| match bytes[0] {
        CONSUMER => Some(GroupKind::Consumer),
        SHARE => Some(GroupKind::Share),
        _ => None,
    })?;
    let registered_at = value.time()?;
    value.finish()?;
    Ok(Registration { kind, registered_at })
}

fn read_position(mut value: Reader<'_>) -> Result<StoredPosition<'_>, EntryFault> {
    let offset = value.offset()?;
    let epoch = LogEpoch::new(LittleEndian::read_u32(value.take(size_of::<u32>())?));
    let committed_at = value.time()?;
    let length = value.checked(size_of::<u16>(), |bytes| {
        Some(usize::from(LittleEndian::read_u16(bytes))).filter(|length| *length <= MAX_METADATA_BYTES)
    })?;
    let metadata = value.text(length)?;
    value.finish()?;
    Ok(StoredPosition { position: Position { offset, epoch }, committed_at, metadata })
}

/// Reads fields one after the other; a fault tells where the field that is wrong begins.
struct Reader<'e> {
    bytes: &'e [u8],
    at: usize,
    part: Part,
}

#[derive(Clone, Copy)]
enum Part {
    Key,
    Value,
}

impl<'e> Reader<'e> {
    fn fault(&self) -> EntryFault {
        // A record is at most 16 MiB long.
        let at = u32::try_from(self.at).unwrap_or(u32::MAX);
        EntryFault::Damaged(match self.part {
            Part::Key => EntryDamage::Key { at },
            Part::Value => EntryDamage::Value { at },
        })
    }

    fn take(&mut self, count: usize) -> Result<&'e [u8], EntryFault> {
        let taken = self.bytes[self.at..].get(..count).ok_or_else(|| self.fault())?;
        self.at += count;
        Ok(taken)
    }

    /// Reads `count` bytes that have to mean something.
    fn checked<T>(&mut self, count: usize, read: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, EntryFault> {
        let fault = self.fault();
        read(self.take(count)?).ok_or(fault)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryFault> {
        self.checked(N, |bytes| bytes.try_into().ok())
    }

    fn u8(&mut self) -> Result<u8, EntryFault> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn offset(&mut self) -> Result<Offset, EntryFault> {
        self.checked(size_of::<u64>(), |bytes| Offset::try_new(LittleEndian::read_u64(bytes)))
    }

    fn time(&mut self) -> Result<Timestamp, EntryFault> {
        self.take(size_of::<i64>()).map(|bytes| Timestamp::from_millis(LittleEndian::read_i64(bytes)))
    }

    fn text(&mut self, count: usize) -> Result<&'e str, EntryFault> {
        let fault = self.fault();
        std::str::from_utf8(self.take(count)?).map_err(|_| fault)
    }

    fn finish(self) -> Result<(), EntryFault> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fault()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Encoded = (Vec<u8>, Option<Vec<u8>>);

    fn encoded(entry: &Entry<'_>) -> Encoded {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        entry.encode_key(&mut key);
        let has_value = entry.encode_value(&mut value);
        assert!(key.len() + value.len() <= entry.max_encoded_bytes(), "{entry:?}");
        (key, has_value.then_some(value))
    }

    fn decode((key, value): &Encoded) -> Result<Entry<'_>, EntryFault> {
        Entry::decode(Some(key), value.as_deref())
    }

    fn registration(value: Option<Registration>) -> Entry<'static> {
        Entry::Registration { group: "billing", value }
    }

    fn position(value: Option<StoredPosition<'static>>) -> Entry<'static> {
        let partition = PartitionIdentity {
            topic_id: TopicId::from_bytes([7; 16]),
            partition: PartitionId::new(i32::MAX as u32),
        };
        Entry::Position { group: "é", partition, value }
    }

    fn examples() -> Vec<Entry<'static>> {
        let registered = |kind| Registration { kind, registered_at: Timestamp::from_millis(-5) };
        let stored = StoredPosition {
            position: Position { offset: Offset::MAX, epoch: LogEpoch::new(u32::MAX) },
            committed_at: Timestamp::from_millis(i64::MAX),
            metadata: "über",
        };
        vec![
            registration(Some(registered(GroupKind::Consumer))),
            registration(Some(registered(GroupKind::Share))),
            registration(None),
            position(Some(stored)),
            position(Some(StoredPosition { metadata: "", ..stored })),
            position(None),
            Entry::RewriteEnd { start: Offset::new(9) },
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for entry in examples() {
            assert_eq!(decode(&encoded(&entry)), Ok(entry));
        }
    }

    #[test]
    fn a_byte_less_or_more_is_damage_and_says_where() {
        for entry in examples() {
            let whole = encoded(&entry);
            for length in 0..whole.0.len() {
                let cut = (whole.0[..length].to_vec(), whole.1.clone());
                let fault = decode(&cut);
                assert!(
                    matches!(fault, Err(EntryFault::Damaged(EntryDamage::Key { at })) if at as usize <= length),
                    "{entry:?} cut to {length}: {fault:?}"
                );
            }
            let mut longer = whole.clone();
            longer.0.push(0);
            let at = u32::try_from(whole.0.len()).unwrap();
            assert_eq!(decode(&longer), Err(EntryFault::Damaged(EntryDamage::Key { at })));
            let Some(value) = &whole.1 else { continue };
            for length in 0..value.len() {
                let cut = (whole.0.clone(), Some(value[..length].to_vec()));
                let fault = decode(&cut);
                assert!(
                    matches!(fault, Err(EntryFault::Damaged(EntryDamage::Value { at })) if at as usize <= length),
                    "{entry:?} cut to {length}: {fault:?}"
                );
            }
            let longer = (whole.0.clone(), Some([&value[..], &[0]].concat()));
            let at = u32::try_from(value.len()).unwrap();
            assert_eq!(decode(&longer), Err(EntryFault::Damaged(EntryDamage::Value { at })));
        }
    }

    #[test]
    fn unknown_types_and_versions_are_told_from_damage() {
        let unsupported = |entry_type, version| Err(EntryFault::Unsupported { entry_type, version });
        for unknown in [0, REWRITE_END + 1, u8::MAX] {
            assert_eq!(Entry::decode(Some(&[unknown, 1, 9]), None), unsupported(unknown, 1));
        }
        for entry in examples() {
            let (key, value) = encoded(&entry);
            let newer_key = [&[key[0], 2], &key[2..]].concat();
            assert_eq!(Entry::decode(Some(&newer_key), value.as_deref()), unsupported(key[0], 2));
            let Some(value) = value else { continue };
            let newer_value = [&[3], &value[1..]].concat();
            assert_eq!(Entry::decode(Some(&key), Some(&newer_value)), unsupported(key[0], 3));
        }
    }

    #[test]
    fn fields_out_of_their_bounds_are_damage_where_they_are() {
        let (key, value) = encoded(&examples()[3]);
        let value = value.unwrap();
        let with = |bytes: &[u8], at: usize, byte: u8| {
            let mut changed = bytes.to_vec();
            changed[at] = byte;
            changed
        };
        let damage_of_key = |at, byte, reported| {
            let changed = with(&key, at, byte);
            let damage = EntryFault::Damaged(EntryDamage::Key { at: reported });
            assert_eq!(Entry::decode(Some(&changed), Some(&value)), Err(damage), "byte {at} is {byte}");
        };
        // The group: no id, not UTF-8, a control character. The partition: 2^31 or more.
        damage_of_key(2, 0, 3);
        damage_of_key(3, 0xff, 3);
        damage_of_key(4, b'x', 3);
        damage_of_key(key.len() - 1, 0x80, 21);
        let damage_of_value = |at, byte, reported| {
            let changed = with(&value, at, byte);
            let damage = EntryFault::Damaged(EntryDamage::Value { at: reported });
            assert_eq!(Entry::decode(Some(&key), Some(&changed)), Err(damage), "byte {at} is {byte}");
        };
        // The offset: 2^63 or more. The metadata: longer than allowed, not UTF-8.
        damage_of_value(8, 0x80, 1);
        damage_of_value(22, 0x10, 21);
        damage_of_value(23, 0xff, 23);
        let (key, value) = encoded(&examples()[0]);
        let changed = with(&value.unwrap(), 1, 3);
        let damage = EntryFault::Damaged(EntryDamage::Value { at: 1 });
        assert_eq!(Entry::decode(Some(&key), Some(&changed)), Err(damage), "kind 3");
        let tab = with(&key, 3, b'\t');
        let damage = EntryFault::Damaged(EntryDamage::Key { at: 3 });
        assert_eq!(Entry::decode(Some(&tab), None), Err(damage));
        assert_eq!(Entry::decode(None, None), Err(EntryFault::Damaged(EntryDamage::NoKey)));
        let (key, _) = encoded(&examples()[6]);
        assert_eq!(Entry::decode(Some(&key), None), Err(EntryFault::Damaged(EntryDamage::NoValue)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_an_entry_that_encodes_to_them_or_to_a_fault(
            which in 0..7_usize,
            key_changes in prop::collection::vec((0..64_usize, any::<u8>()), 0..4),
            value_changes in prop::collection::vec((0..64_usize, any::<u8>()), 0..4),
            noise in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        ) {
            let (mut key, mut value) = encoded(&examples()[which]);
            let change = |bytes: &mut Vec<u8>, changes: &[(usize, u8)]| {
                for (at, byte) in changes {
                    match bytes.get_mut(*at) {
                        Some(old) => *old = *byte,
                        None => bytes.push(*byte),
                    }
                }
            };
            change(&mut key, &key_changes);
            if let Some(value) = &mut value {
                change(value, &value_changes);
            }
            if let Ok(entry) = Entry::decode(Some(&key), value.as_deref()) {
                prop_assert_eq!(encoded(&entry), (key.clone(), value.clone()));
            }
            let noise = noise.as_deref();
            if let Ok(entry) = Entry::decode(noise, value.as_deref()) {
                prop_assert_eq!(Some(&*encoded(&entry).0), noise);
            }
            if let Ok(entry) = Entry::decode(Some(&key), noise) {
                let again = encoded(&entry).1;
                prop_assert_eq!(again.as_deref(), noise);
            }
        }
    }
}

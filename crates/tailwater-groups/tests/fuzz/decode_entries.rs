//! The decoder of the groups log takes any key and any value: no panic, and what is accepted encodes to the same bytes.

use arbitrary::{Arbitrary, Result, Unstructured};
use tailwater_groups::format::{Entry, Registration, StoredPosition};
use tailwater_groups::{GroupId, GroupKind, MAX_METADATA_BYTES, Position};
use tailwater_log::{LogEpoch, Offset, PartitionId, PartitionIdentity, Timestamp, TopicId};

pub(crate) fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        // The first byte says how long the key is.
        0 => {
            let Some((length, rest)) = rest.split_first() else { return };
            let (key, value) = rest.split_at(rest.len().min(usize::from(*length)));
            accept(Some(key), Some(value));
        }
        1 => accept(Some(rest), None),
        2 => accept(None, Some(rest)),
        // What is not enough for a value is none.
        _ => drop(value(&mut Unstructured::new(rest))),
    }
}

fn accept(key: Option<&[u8]>, value: Option<&[u8]>) {
    let Ok(entry) = Entry::decode(key, value) else { return };
    let again = encoded(&entry);
    assert_eq!((Some(&again.0[..]), again.1.as_deref()), (key, value));
}

fn encoded(entry: &Entry<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    entry.encode_key(&mut key);
    let has_value = entry.encode_value(&mut value);
    (key, has_value.then_some(value))
}

/// An entry: decoded from its encoding it is the same, and so are the bytes of one that was changed.
fn value(u: &mut Unstructured<'_>) -> Result<()> {
    let group = <&str>::arbitrary(u)?;
    let metadata = <&str>::arbitrary(u)?;
    if GroupId::try_new(group).is_err() || metadata.len() > MAX_METADATA_BYTES {
        return Ok(());
    }
    let entry = match u8::arbitrary(u)? % 3 {
        0 => Entry::Registration { group, value: registration(u)? },
        1 => {
            let topic_id = TopicId::from_bytes(<[u8; 16]>::arbitrary(u)?);
            let partition = PartitionId::new(u.int_in_range(0..=i32::MAX as u32)?);
            let value = match bool::arbitrary(u)? {
                true => Some(position(u, metadata)?),
                false => None,
            };
            Entry::Position { group, partition: PartitionIdentity { topic_id, partition }, value }
        }
        _ => Entry::RewriteEnd { start: offset(u)? },
    };
    let (mut key, mut value) = encoded(&entry);
    assert_eq!(Entry::decode(Some(&key), value.as_deref()), Ok(entry));
    let bytes = match &mut value {
        Some(value) if bool::arbitrary(u)? => value,
        _ => &mut key,
    };
    let at = u.choose_index(bytes.len())?;
    bytes[at] = u8::arbitrary(u)?;
    accept(Some(&key), value.as_deref());
    Ok(())
}

fn registration(u: &mut Unstructured<'_>) -> Result<Option<Registration>> {
    let kind = match u8::arbitrary(u)? % 3 {
        0 => return Ok(None),
        1 => GroupKind::Consumer,
        _ => GroupKind::Share,
    };
    Ok(Some(Registration { kind, registered_at: Timestamp::from_millis(u.arbitrary()?) }))
}

fn position<'e>(u: &mut Unstructured<'e>, metadata: &'e str) -> Result<StoredPosition<'e>> {
    let position = Position { offset: offset(u)?, epoch: LogEpoch::new(u.arbitrary()?) };
    Ok(StoredPosition { position, committed_at: Timestamp::from_millis(u.arbitrary()?), metadata })
}

fn offset(u: &mut Unstructured<'_>) -> Result<Offset> {
    Ok(Offset::new(u.int_in_range(0..=Offset::MAX.get())?))
}

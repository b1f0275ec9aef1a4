//! A record that a codec could not decode.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Codec;
use crate::{Error, Offset, OwnedRecord, Record, TopicPartition};

/// A record whose value could not be decoded, and why. The record is all here, and its bytes are not copied: it can be
/// logged, kept, or published to a topic for what somebody has to look at.
///
/// `Clone + Send + Sync`; with `?` it becomes an [`Error::NotDecoded`].
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// # use tailwater::{Broker, Codec, CodecError, Message, TopicConfig};
/// # struct Decimal;
/// # impl Codec<u64> for Decimal {
/// #     fn encode(&self, value: &u64, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
/// #         buffer.extend_from_slice(value.to_string().as_bytes());
/// #         Ok(())
/// #     }
/// #     fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
/// #         Ok(std::str::from_utf8(bytes)?.parse()?)
/// #     }
/// # }
/// let broker = Broker::in_memory()?;
/// broker.create_topic("amounts", &TopicConfig::new())?;
/// broker.create_topic("no-amounts", &TopicConfig::new())?;
/// let (amounts, aside) = (broker.producer("amounts")?, broker.producer("no-amounts")?);
/// for value in ["17", "seventeen", "18"] {
///     amounts.send(value)?;
/// }
/// amounts.flush().wait()?;
///
/// let mut sum = 0;
/// let mut billing = broker.consumer("billing").subscribe(&["amounts"])?;
/// for record in billing.poll(Duration::from_secs(10))?.iter() {
///     // `Decimal` is a codec of numbers.
///     match record.decode(&Decimal) {
///         Ok(amount) => sum += amount,
///         Err(error) => {
///             assert_eq!(error.to_string(), "the value at offset 1 of amounts-0 cannot be decoded: invalid digit found in string");
///             aside.publish(&error.value().cloned().unwrap_or_default())?;
///         }
///     }
/// }
/// billing.commit().wait()?;
/// assert_eq!(sum, 35);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DecodeError {
    /// Boxed, since it travels in the `Result` of every decoding.
    record: Box<OwnedRecord>,
    fault: DecodeFault,
}

/// Why a record has no value of the type that was asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DecodeFault {
    /// It is a tombstone, and so has no value at all.
    Tombstone,
    /// The codec refused its bytes.
    Codec(Arc<dyn std::error::Error + Send + Sync>),
}

impl DecodeError {
    /// The record, with its key, its headers and its times.
    #[must_use]
    pub fn record(&self) -> &OwnedRecord {
        &self.record
    }

    /// The record as it is, to go on with.
    #[must_use]
    pub fn into_record(self) -> OwnedRecord {
        *self.record
    }

    /// The topic's name and the partition.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.record.topic_partition
    }

    /// The record's offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.record.cursor.offset
    }

    /// The bytes that could not be decoded; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        self.record.value.as_ref()
    }

    /// Why not.
    #[must_use]
    pub fn fault(&self) -> &DecodeFault {
        &self.fault
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, offset) = (self.topic_partition(), self.offset());
        match &self.fault {
            DecodeFault::Tombstone => {
                write!(
                    f,
                    "the record at offset {offset} of {place} is a tombstone and has no value to decode"
                )
            }
            DecodeFault::Codec(source) => {
                write!(f, "the value at offset {offset} of {place} cannot be decoded: {source}")
            }
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            DecodeFault::Tombstone => None,
            DecodeFault::Codec(source) => Some(&**source),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Error::NotDecoded(Box::new(error))
    }
}

impl Record<'_> {
    /// Decodes the value.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] with the whole record, and what the codec said. It says nothing about the records behind this one,
    /// and the consumer goes on: the record counts as returned like any other, so the next commit passes it.
    ///
    /// A tombstone has no value, and is such an error too ([`DecodeFault::Tombstone`]); where there can be some, ask first:
    /// `record.value().map(|_| record.decode(&codec)).transpose()?` is `None` for them.
    pub fn decode<T>(&self, codec: &impl Codec<T>) -> Result<T, DecodeError> {
        decode(self.value(), codec).map_err(|fault| DecodeError { record: Box::new(self.to_owned()), fault })
    }
}

impl OwnedRecord {
    /// Decodes the value, as [`Record::decode`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn decode<T>(&self, codec: &impl Codec<T>) -> Result<T, DecodeError> {
        decode(self.value.as_deref(), codec)
            .map_err(|fault| DecodeError { record: Box::new(self.clone()), fault })
    }
}

fn decode<T>(value: Option<&[u8]>, codec: &impl Codec<T>) -> Result<T, DecodeFault> {
    let bytes = value.ok_or(DecodeFault::Tombstone)?;
    codec.decode(bytes).map_err(|source| DecodeFault::Codec(Arc::from(source)))
}

// It travels in every `Result` of a loop over records.
const _: () = assert!(size_of::<DecodeError>() <= 24);

const _: () = {
    const fn can_be_sent<T: Clone + Send + Sync + 'static>() {}
    can_be_sent::<DecodeError>();
};

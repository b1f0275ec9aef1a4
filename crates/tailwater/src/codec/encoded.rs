//! A message whose value was encoded: who keeps the bytes that it borrows.

use std::sync::Arc;

use super::Codec;
use crate::{Error, Message, Result};

/// The bytes of an encoded value: made by [`Message::encoded`](crate::Message::encoded).
///
/// By reference it is a message with that value and nothing else; [`message`](EncodedMessage::message) is one to give a
/// key or headers to. It is kept until the message was sent; nothing borrows from it after that.
///
/// # Examples
///
/// ```
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
/// let amounts = broker.producer("amounts")?;
///
/// // `Decimal` is a codec of numbers.
/// amounts.publish(&Message::encoded(&Decimal, &17)?)?;
/// amounts.publish(Message::encoded(&Decimal, &18)?.message().key(b"table 4"))?;
/// // One buffer for many messages.
/// let mut buffer = Vec::new();
/// for amount in 19..1000 {
///     amounts.send(Message::encoded_in(&mut buffer, &Decimal, &amount)?.key(b"table 4"))?;
/// }
/// amounts.flush().wait()?;
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedMessage {
    value: Vec<u8>,
}

impl EncodedMessage {
    /// The message, which borrows its value from here.
    #[must_use]
    pub fn message(&self) -> Message<'_> {
        Message::new(&self.value)
    }
}

/// The encoded value.
impl AsRef<[u8]> for EncodedMessage {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

impl<'m> Message<'m> {
    /// Encodes `value`, into bytes that the result keeps.
    ///
    /// # Errors
    ///
    /// [`Error::NotEncoded`] with what the codec said.
    pub fn encoded<T>(codec: &impl Codec<T>, value: &T) -> Result<EncodedMessage> {
        let mut buffer = Vec::new();
        encode(&mut buffer, codec, value)?;
        Ok(EncodedMessage { value: buffer })
    }

    /// Encodes `value` into `buffer`, whose capacity is used again and whose content is replaced, and borrows it: no
    /// memory is allocated for each of many messages.
    ///
    /// # Errors
    ///
    /// As [`Message::encoded`]; the buffer is empty then.
    pub fn encoded_in<T>(buffer: &'m mut Vec<u8>, codec: &impl Codec<T>, value: &T) -> Result<Message<'m>> {
        encode(buffer, codec, value)?;
        Ok(Message::new(buffer))
    }
}

/// Replaces the content of `buffer` by the bytes of `value`.
fn encode<T>(buffer: &mut Vec<u8>, codec: &impl Codec<T>, value: &T) -> Result<()> {
    buffer.clear();
    codec.encode(value, buffer).map_err(|source| {
        buffer.clear();
        Error::NotEncoded { source: Arc::from(source) }
    })
}

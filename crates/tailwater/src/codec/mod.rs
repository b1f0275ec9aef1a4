//! Typed messages: values of the application's own types as bytes, and back.
//!
//! A [`Codec`] turns values into bytes and bytes into values. There are no typed producers and consumers: a message is
//! encoded when it is made ([`Message::encoded`](crate::Message::encoded)), and a record decoded when it is looked at
//! ([`Record::decode`](crate::Record::decode)), so that one topic can hold several types, and what cannot be decoded is a
//! record like any other: it can be skipped, kept or published to another topic.

mod decode_error;
mod encoded;
#[cfg(feature = "serde")]
mod json;

use std::error::Error;

pub use decode_error::{DecodeError, DecodeFault};
pub use encoded::EncodedMessage;
#[cfg(feature = "serde")]
pub use json::Json;

/// Why a codec cannot encode a value or decode bytes: any error, or a text (`"no amount".into()`).
pub type CodecError = Box<dyn Error + Send + Sync>;

/// Turns values of type `T` into bytes, and bytes into values.
///
/// What it encodes, it decodes to an equal value, in later versions of the program too: the bytes are kept. A codec of
/// many types implements this for each of them.
///
/// A tombstone has no bytes and is no codec's business: it is published with
/// [`Message::tombstone`](crate::Message::tombstone), and [`Record::value`](crate::Record::value) of it is `None`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, Codec, CodecError, Message, TopicConfig};
///
/// #[derive(Debug, PartialEq)]
/// struct Order {
///     table: u8,
///     dish: String,
/// }
///
/// /// The table's number in one byte, then the dish.
/// struct Orders;
///
/// impl Codec<Order> for Orders {
///     fn encode(&self, order: &Order, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
///         buffer.push(order.table);
///         buffer.extend_from_slice(order.dish.as_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<Order, CodecError> {
///         let (table, dish) = bytes.split_first().ok_or("an order has at least one byte")?;
///         Ok(Order { table: *table, dish: std::str::from_utf8(dish)?.to_owned() })
///     }
/// }
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let order = Order { table: 4, dish: "two espressos".to_owned() };
/// broker.producer("orders")?.publish(&Message::encoded(&Orders, &order)?)?;
///
/// let records = broker.reader().subscribe(&["orders"])?.poll(Duration::from_secs(10))?;
/// for record in records.iter() {
///     assert_eq!(record.decode(&Orders)?, order);
/// }
/// # Ok::<(), tailwater::Error>(())
/// ```
pub trait Codec<T> {
    /// Appends the bytes of `value` to `buffer`, which may hold others already.
    ///
    /// # Errors
    ///
    /// Whatever keeps the value from being encoded. What was appended by then is thrown away.
    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Makes a value of `bytes`: all that an [`encode`](Codec::encode) has appended, or whatever else was published to
    /// the topic. Never panics, whatever they are.
    ///
    /// # Errors
    ///
    /// Why they are no such value.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// A codec that is shared, such as by reference, is one too.
impl<T, C: Codec<T> + ?Sized> Codec<T> for &C {
    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        (**self).encode(value, buffer)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        (**self).decode(bytes)
    }
}

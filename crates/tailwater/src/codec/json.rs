//! JSON, by `serde`.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError};

/// Values as JSON text: of every type that `serde` knows. Needs the feature `serde`.
///
/// An `Option` that is `None` becomes the text `null`, which is a value and no
/// [tombstone](crate::Message::tombstone).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use serde::{Deserialize, Serialize};
/// use tailwater::{Broker, Json, Message, TopicConfig};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Order {
///     table: u8,
///     dishes: Vec<String>,
/// }
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let orders = broker.producer("orders")?;
/// let order = Order { table: 4, dishes: vec!["an espresso".to_owned()] };
/// orders.publish(Message::encoded(&Json, &order)?.message().key(b"table 4"))?;
///
/// let records = broker.reader().subscribe(&["orders"])?.poll(Duration::from_secs(10))?;
/// let record = records.iter().next().expect("one was published");
/// assert_eq!(record.value(), Some(&br#"{"table":4,"dishes":["an espresso"]}"#[..]));
/// assert_eq!(record.decode::<Order>(&Json)?, order);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(buffer, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

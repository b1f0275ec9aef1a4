//! Typed messages: what is encoded is decoded, and what cannot be stops nobody.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use common::partition;
use common::reading::broker_with;
use tailwater::{Codec, CodecError, DecodeFault, Error, Message};

const LONG: Duration = Duration::from_secs(20);

/// Numbers as decimal text; none above 999.
struct Decimal;

impl Codec<u32> for Decimal {
    fn encode(&self, value: &u32, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        buffer.extend_from_slice(value.to_string().as_bytes());
        if *value > 999 { Err(format!("{value} is too large").into()) } else { Ok(()) }
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, CodecError> {
        Ok(std::str::from_utf8(bytes)?.parse()?)
    }
}

/// A codec may know several types.
impl Codec<String> for Decimal {
    fn encode(&self, value: &String, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        buffer.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

#[test]
fn what_cannot_be_decoded_tells_all_of_the_record_and_the_consumer_goes_on() {
    let broker = broker_with(1);
    let orders = broker.producer("orders").unwrap();
    orders.publish(&Message::encoded(&Decimal, &1).unwrap()).unwrap();
    let headers = [tailwater::Header { key: "trace", value: Some(b"7f3a") }];
    orders.publish(Message::new(b"two").key(b"table 4").headers(&headers)).unwrap();
    orders.publish(Message::tombstone(b"table 4")).unwrap();
    orders.publish(Message::encoded(&Decimal, &3).unwrap().message().key(b"table 4")).unwrap();

    let mut billing = broker.consumer("billing").max_records(1).subscribe(&["orders"]).unwrap();
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let records = billing.poll(LONG).unwrap();
        for record in records.iter() {
            let owned = record.to_owned().decode::<u32>(&Decimal);
            match record.decode::<u32>(&Decimal) {
                Ok(value) => {
                    assert_eq!(owned.unwrap(), value);
                    values.push(value);
                }
                Err(error) => {
                    assert_eq!(owned.unwrap_err().to_string(), error.to_string());
                    // The bytes are the very bytes of the record.
                    let (kept, read) =
                        (error.value().map(|v| v.as_ptr()), record.value().map(<[u8]>::as_ptr));
                    assert_eq!(kept, read);
                    errors.push(error);
                }
            }
        }
        billing.commit().wait().unwrap();
    }
    assert_eq!(values, [1, 3]);
    // Long after the consumer has gone.
    drop(billing);
    let [bad, tombstone] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((bad.topic_partition(), bad.offset().get()), (&partition("orders", 0), 1));
    assert_eq!(bad.value().unwrap(), &b"two"[..]);
    assert_eq!(bad.record().key.as_deref(), Some(&b"table 4"[..]));
    assert_eq!(&*bad.record().headers[0].key, "trace");
    let DecodeFault::Codec(source) = bad.fault() else { panic!("{bad:?}") };
    assert!(source.is::<std::num::ParseIntError>());
    assert!(std::error::Error::source(bad).is_some());
    assert_eq!(
        bad.to_string(),
        "the value at offset 1 of orders-0 cannot be decoded: invalid digit found in string"
    );
    assert!(matches!(tombstone.fault(), DecodeFault::Tombstone) && tombstone.value().is_none());
    assert!(tombstone.to_string().contains("offset 2 of orders-0 is a tombstone"), "{tombstone}");
    // And with `?` it is an error like the others, which keeps all of that.
    let error = Error::from(bad.clone());
    assert!(!error.is_retriable());
    let Error::NotDecoded(kept) = &error else { panic!("{error}") };
    assert_eq!(kept.clone().into_record().value.as_deref(), Some(&b"two"[..]));
    // All four are committed: nothing is read again.
    let mut again = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    assert!(again.poll(Duration::ZERO).unwrap().is_empty());
}

#[test]
fn a_tombstone_can_be_told_from_what_is_not_decoded() {
    let broker = broker_with(1);
    let orders = broker.producer("orders").unwrap();
    orders.publish("7").unwrap();
    orders.publish(Message::tombstone(b"k")).unwrap();
    let records = broker.reader().subscribe(&["orders"]).unwrap().poll(LONG).unwrap();
    let decoded: Result<Vec<Option<u32>>, _> =
        records.iter().map(|record| record.value().map(|_| record.decode(&Decimal)).transpose()).collect();
    assert_eq!(decoded.unwrap(), [Some(7), None]);
}

#[test]
fn a_value_that_cannot_be_encoded_is_not_published_and_leaves_no_bytes() {
    let broker = broker_with(1);
    let orders = broker.producer("orders").unwrap();
    let error = Message::encoded(&Decimal, &1000).unwrap_err();
    assert_eq!(error.to_string(), "the value cannot be encoded: 1000 is too large");
    assert!(!error.is_retriable());

    let mut buffer = b"left over".to_vec();
    assert!(Message::encoded_in(&mut buffer, &Decimal, &1000).is_err());
    assert!(buffer.is_empty());
    let capacity = buffer.capacity();
    for value in [7, 8] {
        orders.publish(Message::encoded_in(&mut buffer, &Decimal, &value).unwrap()).unwrap();
    }
    assert_eq!(buffer.capacity(), capacity);
    // By reference, as another type.
    orders.publish(&Message::encoded(&&Decimal, &"nine".to_owned()).unwrap()).unwrap();
    let records = broker.reader().subscribe(&["orders"]).unwrap().poll(LONG).unwrap();
    let texts: Vec<String> = records.iter().map(|record| record.decode(&&Decimal).unwrap()).collect();
    assert_eq!(texts, ["7", "8", "nine"]);
}

#[cfg(feature = "serde")]
#[test]
fn json_is_what_serde_makes_of_it_and_bad_json_is_an_error_with_its_place() {
    use std::collections::BTreeMap;
    use tailwater::Json;

    let broker = broker_with(1);
    let orders = broker.producer("orders").unwrap();
    let order = BTreeMap::from([("espresso".to_owned(), Some(2)), ("tea".to_owned(), None)]);
    orders.publish(&Message::encoded(&Json, &order).unwrap()).unwrap();
    orders.publish("{\"espresso\": 2").unwrap();
    orders.publish(&Message::encoded(&Json, &None::<u8>).unwrap()).unwrap();
    // JSON has no map whose keys are lists.
    assert!(Message::encoded(&Json, &BTreeMap::from([(vec![1, 2], 3)])).is_err());

    let records = broker.reader().subscribe(&["orders"]).unwrap().poll(LONG).unwrap();
    let records: Vec<_> = records.iter().collect();
    assert_eq!(records[0].value(), Some(&br#"{"espresso":2,"tea":null}"#[..]));
    assert_eq!(records[0].decode::<BTreeMap<String, Option<u32>>>(&Json).unwrap(), order);
    let error = records[1].decode::<BTreeMap<String, Option<u32>>>(&Json).unwrap_err();
    assert!(
        error.to_string().starts_with("the value at offset 1 of orders-0 cannot be decoded: EOF"),
        "{error}"
    );
    // `null` is a value.
    assert_eq!(records[2].value(), Some(&b"null"[..]));
    assert_eq!(records[2].decode::<Option<u8>>(&Json).unwrap(), None);
}

//! What makes a record of a line: separators, keys, headers, JSON.

use std::time::Duration;

use tailwater::{Header, Message, PartitionId, Producer, Receipt};
use tailwater_cli::json::{self, JsonRecord};

use crate::args::ProduceArgs;
use crate::exit::{Failure, Result};

/// How lines become records.
pub(in crate::commands) struct Shape {
    json: bool,
    key: Option<Vec<u8>>,
    key_separator: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
    null_value: Option<Vec<u8>>,
    partition: Option<PartitionId>,
    ttl: Option<Duration>,
    /// Whether a record that says its partition goes there.
    keeps_partitions: bool,
}

impl Shape {
    /// Each line is a JSON record.
    pub(in crate::commands) fn json(keeps_partitions: bool) -> Self {
        Self {
            json: true,
            key: None,
            key_separator: None,
            headers: Vec::new(),
            null_value: None,
            partition: None,
            ttl: None,
            keeps_partitions,
        }
    }

    pub(super) fn new(args: ProduceArgs, json: bool) -> Self {
        Self {
            json: json || args.json,
            keeps_partitions: true,
            key: args.key.map(String::into_bytes),
            key_separator: args.key_separator.map(|separator| separator.0),
            headers: args.headers,
            null_value: args.null_value.map(String::into_bytes),
            partition: args.partition,
            ttl: args.ttl,
        }
    }

    /// The headers of every record, unless records are JSON.
    pub(super) fn headers(&self) -> Vec<Header<'_>> {
        let pairs = self.headers.iter();
        pairs.map(|(key, value)| Header { key, value: Some(value.as_bytes()) }).collect()
    }

    /// Sends the record that a line stands for. `headers` are [`Shape::headers`].
    pub(super) fn send(
        &self,
        producer: &Producer,
        line: &[u8],
        headers: &[Header<'_>],
    ) -> Result<Receipt<tailwater::Appended>> {
        if self.json {
            return self.send_json(producer, line);
        }
        let (key, value) = match &self.key_separator {
            None => (self.key.as_deref(), line),
            Some(separator) => {
                let Some(at) = memchr::memmem::find(line, separator) else {
                    let shown = separator.escape_ascii();
                    return Err(Failure::failed(format!("there is no key separator \"{shown}\" in it")));
                };
                (Some(&line[..at]), &line[at + separator.len()..])
            }
        };
        let is_null = self.null_value.as_deref() == Some(value);
        let message = match (is_null, key) {
            (true, None) => {
                let text =
                    "it is the --null-value, and a tombstone needs a key: give --key or --key-separator";
                return Err(Failure::failed(text));
            }
            (true, Some(key)) => Message::tombstone(key),
            (false, None) => Message::new(value),
            (false, Some(key)) => Message::new(value).key(key),
        };
        Ok(producer.send(self.place(message.headers(headers), None))?)
    }

    fn send_json(&self, producer: &Producer, line: &[u8]) -> Result<Receipt<tailwater::Appended>> {
        let record = json::parse_record(line).map_err(|error| Failure::failed(error.to_string()))?;
        let JsonRecord { key, value, headers, partition, timestamp } = &record;
        let headers: Vec<_> =
            headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let mut message = match (value, key) {
            (Some(value), None) => Message::new(value),
            (Some(value), Some(key)) => Message::new(value).key(key),
            (None, Some(key)) => Message::tombstone(key),
            (None, None) => return Err(Failure::failed("a record without a value needs a key")),
        };
        if let Some(time) = timestamp {
            message = message.created_at(*time);
        }
        Ok(producer.send(self.place(message.headers(&headers), *partition))?)
    }

    /// The command line's partition goes before the record's own, and so does its time to live.
    fn place<'m>(&self, message: Message<'m>, own: Option<PartitionId>) -> Message<'m> {
        let message = self.ttl.map_or(message, |ttl| message.ttl(ttl));
        match self.partition.or(own.filter(|_| self.keeps_partitions)) {
            Some(partition) => message.partition(partition),
            None => message,
        }
    }
}

//! Compression as a setting of a topic and of a producer, with the features and without them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use tailwater::storage::SimDisk;
use tailwater::{
    Broker, BrokerOptions, Compression, Error, Message, PartitionId, ProducerOptions, TopicConfig,
};

fn open(disk: &SimDisk) -> Broker {
    BrokerOptions::new().open_on(Arc::new(disk.clone()), "/data").unwrap()
}

fn supported() -> Vec<Compression> {
    Compression::ALL.into_iter().filter(|compression| compression.is_supported()).collect()
}

/// An order as JSON, as a shop might publish it.
fn order(number: usize) -> String {
    format!(
        "{{\"order\":{number},\"table\":{},\"items\":[{{\"name\":\"espresso\",\"count\":{}}}],\"state\":\"accepted\"}}",
        number % 12,
        number % 3
    )
}

#[test]
fn a_topic_is_compressed_as_it_says_and_producers_as_they_say() {
    let mut sizes = Vec::new();
    for of_topic in supported() {
        for own in [None].into_iter().chain(supported().into_iter().map(Some)) {
            let disk = SimDisk::new(1);
            let broker = open(&disk);
            broker.create_topic("orders", &TopicConfig::new().compression(of_topic)).unwrap();
            let mut options = ProducerOptions::new();
            if let Some(own) = own {
                options = options.compression(own);
            }
            // With a limit of its own the producer takes another way.
            for options in [options.clone(), options.max_block(Duration::from_secs(5))] {
                let producer = broker.producer_with("orders", options).unwrap();
                for number in 0..200 {
                    drop(producer.send(&order(number)).unwrap());
                }
                let batch: Vec<_> = (200..300).map(order).collect();
                let batch: Vec<_> = batch.iter().map(|order| Message::new(order.as_bytes())).collect();
                drop(producer.send_batch(PartitionId::ZERO, &batch).unwrap());
                assert!(producer.try_send(&order(300)).is_ok());
                producer.flush().wait().unwrap();
            }
            let place = "orders:0".parse().unwrap();
            sizes.push((
                own.unwrap_or(of_topic),
                broker.embedded().unwrap().stats(&place).unwrap().bytes_written,
            ));
            broker.close().unwrap();
            let broker = open(&disk);
            let mut reader = broker.reader().subscribe(&["orders"]).unwrap();
            let mut read = 0;
            while read < 602 {
                let records = reader.poll(Duration::from_secs(10)).unwrap();
                for record in records.iter() {
                    assert_eq!(record.value().unwrap(), order(read % 301).as_bytes());
                    read += 1;
                }
            }
            assert!(broker.embedded().unwrap().verify(&place, &mut |_| {}).unwrap().damage.is_empty());
        }
    }
    // A third, or less, of what it is without.
    let plain = sizes.iter().find(|(compression, _)| *compression == Compression::None).unwrap().1;
    for (compression, bytes) in sizes {
        assert_eq!(bytes * 3 < plain, compression != Compression::None, "{compression}: {bytes} of {plain}");
    }
}

#[test]
fn what_this_build_lacks_is_refused_with_the_name_of_the_feature() {
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("plain", &TopicConfig::new()).unwrap();
    for compression in Compression::ALL {
        let name = compression.name();
        let config = TopicConfig::new().set("compression.type", name).unwrap();
        assert_eq!(config, TopicConfig::new().compression(compression));
        let results = [
            broker.create_topic(name, &config),
            broker.alter_topic("plain", &config),
            broker.producer_with("plain", ProducerOptions::new().compression(compression)).map(drop),
            config.check("another"),
            BrokerOptions::new()
                .default_topic_config(config)
                .open_on(Arc::new(SimDisk::new(1)), "/d")
                .map(drop),
        ];
        for result in results {
            match result {
                Ok(()) => assert!(compression.is_supported()),
                Err(Error::UnsupportedCompression { compression: found }) => {
                    assert!(found == compression && !compression.is_supported());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let text = Error::UnsupportedCompression { compression: Compression::Zstd }.to_string();
    assert_eq!(text, "this build has no zstd compression: build it with the cargo feature `zstd`");
}

//! `import`: the records of an export, appended and durable.

use serde::Serialize;
use tailwater::{Durability, TopicConfig};

use super::produce::{Plan, Shape};
use crate::args::ImportArgs;
use crate::directory::Directory;
use crate::exit::Result;
use crate::output::{print, print_json};

#[derive(Serialize)]
struct Imported {
    durable_records: u64,
}

pub(crate) fn run(directory: &Directory, json: bool, args: ImportArgs) -> Result<()> {
    let plan = Plan {
        topic: args.topic,
        create: args.create.then(|| TopicConfig::new().partitions(args.partitions.unwrap_or(1))),
        durability: Some(Durability::Durable),
        acks: false,
        file: args.file,
        delimiter: vec![b'\n'],
        shape: Shape::json(args.keep_partitions),
    };
    let durable_records = plan.carry_out(directory)?;
    if json {
        return print_json(&Imported { durable_records });
    }
    print(&match durable_records {
        1 => "1 record is durable".to_owned(),
        count => format!("{count} records are durable"),
    })
}

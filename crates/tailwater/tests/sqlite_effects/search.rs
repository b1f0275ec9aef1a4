//! Kills processes at random, and looks at what is in the database.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tailwater::Reset;

use crate::bank::{Journal, Mistake, booking};
use crate::choices::Choices;
use crate::process::{Part, Process, Setup, partitions};

/// Sets the seed of a search. What the scheduler does is not in it.
const SEED: &str = "TAILWATER_TEST_SEED";

/// Each zombie is there for so many deaths.
const DEATHS_OF_A_ZOMBIE: u32 = 3;

/// What a search came by.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) killed_before_consuming: u32,
    pub(crate) killed_while_consuming: u32,
    /// Found a journal behind which the database had to be put back.
    pub(crate) hot_journals: u32,
    pub(crate) batches_refused_to_zombies: u64,
    pub(crate) batches_applied_by_zombies: u64,
    /// Times that an instance was refused, since a zombie or another member had been faster.
    pub(crate) overtaken: usize,
    pub(crate) records: usize,
}

/// Kills a process `kills` times, with zombies beside it, and has the rest consumed. Tells what is wrong, if anything is.
pub(crate) fn search(journal: Journal, mistake: Option<Mistake>, kills: u32) -> Result<Figures, String> {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("{journal:?}: {SEED}={seed}");
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let setup = Setup::create(root.path(), journal, mistake);
    let mut choices = Choices::new(seed);
    let mut figures = Figures::default();
    let mut zombie: Option<Process> = None;
    for death in 0..kills {
        if death % DEATHS_OF_A_ZOMBIE == 1 {
            if let Some(zombie) = zombie.take() {
                end_zombie(zombie, &mut choices);
            }
            let mut started = Process::start(&setup, Part::Zombie, choices.next());
            started.hear("holding ").expect("a zombie waits");
            zombie = Some(started);
        }
        live_and_die(&setup, zombie.as_mut(), &mut choices, &mut figures);
        if let Some(zombie) = &mut zombie {
            note_zombie(zombie, &mut figures);
        }
        // Not always: the next process is to put the database right as well.
        if mistake.is_some() || choices.below(3) == 0 {
            check_counts(&setup).map_err(|wrong| format!("after {} deaths: {wrong}", death + 1))?;
        }
    }
    drop(zombie.map(Process::kill));
    let mut finishing = Process::start(&setup, Part::Finish, choices.next());
    finishing.hear("finished").expect("it comes to an end");
    finishing.end();
    figures.records = check_whole(&setup)?;
    println!("{journal:?}, {kills} deaths: {figures:?}");
    if mistake.is_none() {
        assert!(figures.killed_while_consuming > kills / 2, "{figures:?}");
        assert!(figures.batches_refused_to_zombies > 0, "{figures:?}");
        assert!(figures.records > 200, "{figures:?}");
        assert!(journal == Journal::Wal || figures.hot_journals > 0, "{figures:?}");
    }
    Ok(figures)
}

/// Runs a process for a while, has the zombie apply what it holds at the same time, and kills the process.
fn live_and_die(setup: &Setup, zombie: Option<&mut Process>, choices: &mut Choices, figures: &mut Figures) {
    let pause = |choices: &mut Choices, most_ms: u64| {
        std::thread::sleep(Duration::from_micros(choices.below(most_ms * 1_000)));
    };
    let mut process = Process::start(setup, Part::Live, choices.next());
    if choices.below(4) > 0 {
        process.hear("consuming").expect("it consumes until it is killed");
        // At once, both are at the same place.
        if choices.below(2) == 0 {
            pause(choices, 30);
        }
    }
    if let Some(zombie) = zombie {
        zombie.tell("apply");
    }
    pause(choices, 40);
    let said = process.kill();
    let said_so = |text: &str| said.iter().filter(|line| *line == text).count();
    if said_so("consuming") == 0 {
        figures.killed_before_consuming += 1;
    } else {
        figures.killed_while_consuming += 1;
    }
    figures.overtaken += said_so("overtaken");
    let journal = setup.root.join("bank.db-journal");
    figures.hot_journals += u32::from(journal.metadata().is_ok_and(|journal| journal.len() > 0));
}

/// Waits for what the zombie was told.
fn note_zombie(zombie: &mut Process, figures: &mut Figures) {
    let answer = zombie.hear("applied ").expect("a zombie answers");
    let (applied, held) = answer.split_once(" of ").unwrap();
    let (applied, held): (u64, u64) = (applied.parse().unwrap(), held.parse().unwrap());
    figures.batches_applied_by_zombies += applied;
    figures.batches_refused_to_zombies += held - applied;
}

/// Kills a zombie while it applies.
fn end_zombie(mut zombie: Process, choices: &mut Choices) {
    zombie.tell("apply");
    std::thread::sleep(Duration::from_micros(choices.below(3_000)));
    zombie.kill();
}

/// Whether each record has had one effect, and just those that the stored cursors are behind.
fn check_counts(setup: &Setup) -> Result<(), String> {
    let bank = setup.bank();
    let applied = bank.applied().unwrap();
    if let Some((record, count)) = applied.iter().find(|(_, count)| **count != 1) {
        return Err(format!("record {record} has had {count} effects"));
    }
    // Offsets begin at 0 and have no gaps.
    let behind: u64 = bank.stored_cursors().unwrap().iter().map(|cursor| cursor.offset.get()).sum();
    if applied.len() as u64 != behind {
        return Err(format!(
            "{} records have had effects, and the cursors are behind {behind}",
            applied.len()
        ));
    }
    Ok(())
}

/// Whether each record that there is has had one effect, and the accounts are what that comes to. Returns their number.
pub(crate) fn check_whole(setup: &Setup) -> Result<usize, String> {
    check_counts(setup)?;
    let broker = setup.broker();
    let mut reader = broker.reader().reset(Reset::Earliest).assign(&partitions()).unwrap();
    let (mut applied, mut accounts) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let records = reader.poll(Duration::ZERO).unwrap();
        assert_eq!(records.events(), []);
        if records.is_empty() {
            break;
        }
        for record in records.iter() {
            let (account, cents) = booking(&record);
            *accounts.entry(account).or_insert(0) += cents;
            applied.insert(record.cursor().to_string(), 1);
        }
    }
    let bank = setup.bank();
    let stored = bank.stored_cursors().unwrap();
    let cursors: BTreeMap<_, _> = stored.iter().map(|cursor| (cursor.partition, cursor)).collect();
    for partition in partitions() {
        let stored = cursors.get(&partition.partition).ok_or("a partition has no cursor")?;
        let end = reader.position(&partition).unwrap().offset;
        if stored.offset != end {
            return Err(format!("{partition} ends at {end}, and the cursor is {stored}"));
        }
    }
    let same = |what, equal| if equal { Ok(()) } else { Err(format!("the {what} are not those of the log")) };
    same("records that have had effects", bank.applied().unwrap() == applied)?;
    same("accounts", bank.accounts().unwrap() == accounts)?;
    // What the group has committed is never ahead: retention keeps what the database still needs.
    for position in broker.describe_group("bank").unwrap().positions {
        let stored = cursors[&position.partition.partition];
        if position.committed.offset > stored.offset {
            return Err(format!("{} is committed, and only {stored} stored", position.committed));
        }
    }
    Ok(applied.len())
}

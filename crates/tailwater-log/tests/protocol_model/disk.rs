//! A disk that holds one partition, with every version that a power cut may bring back.
//!
//! - A batch, or a footer, is one cell of a file: there, absent or torn.
//! - Each name in the directory keeps all it stood for since the last sync of the directory, each checkpoint slot all
//!   that was written to it since the last sync of its file; a power cut leaves any of them, independently.
//! - New files are made whole and synced under a temporary name; only their names need a sync.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};

/// A place in a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Cell {
    Zero,
    Torn,
    /// One record. `mark` is the durable offset when it was written; `id` tells it from all others ever appended.
    Batch {
        offset: u8,
        epoch: u8,
        mark: u8,
        id: u8,
    },
    Footer {
        end: u8,
    },
}

/// A segment file: what reads show, and what is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct File {
    pub(crate) epoch: u8,
    pub(crate) epoch_start: u8,
    pub(crate) live: Vec<Cell>,
    pub(crate) durable: Vec<Cell>,
    /// The cells, as bits, that a failed sync dropped.
    poisoned: u32,
}

impl File {
    /// A file whose cells are all durable.
    pub(crate) fn whole(epoch: u8, epoch_start: u8, cells: Vec<Cell>) -> Self {
        Self { epoch, epoch_start, live: cells.clone(), durable: cells, poisoned: 0 }
    }

    pub(crate) fn cell(&self, index: usize) -> Cell {
        self.live.get(index).copied().unwrap_or(Cell::Zero)
    }

    fn write(&mut self, index: usize, cell: Cell) {
        let length = self.live.len().max(index + 1);
        self.live.resize(length, Cell::Zero);
        self.durable.resize(length, Cell::Zero);
        self.live[index] = cell;
    }

    fn sync(&mut self, is_good: bool) {
        for index in 0..self.live.len() {
            let bit = 1 << index;
            if self.live[index] == self.durable[index] {
                continue;
            }
            if !is_good {
                self.poisoned |= bit;
            } else if self.poisoned & bit == 0 {
                self.durable[index] = self.live[index];
            }
        }
    }

    /// All that a power cut may leave of it.
    fn after_power_cut(&self, may_tear: bool) -> Vec<Self> {
        let mut ways = vec![Vec::new()];
        for (live, durable) in self.live.iter().zip(&self.durable) {
            let mut left = vec![*durable];
            if live != durable {
                left.push(*live);
                left.extend(may_tear.then_some(Cell::Torn));
            }
            ways = ways
                .iter()
                .flat_map(|way| left.iter().map(|cell| [way.as_slice(), std::slice::from_ref(cell)].concat()))
                .collect();
        }
        let mut files: Vec<Self> = Vec::new();
        for mut cells in ways {
            while cells.last() == Some(&Cell::Zero) {
                cells.pop();
            }
            let file = Self::whole(self.epoch, self.epoch_start, cells);
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }
}

/// What a checkpoint slot holds. The sequence of a slot that holds nothing, or does not verify, is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Slot {
    pub(crate) sequence: u8,
    pub(crate) is_damaged: bool,
    pub(crate) is_dirty: bool,
    pub(crate) epoch: u8,
    pub(crate) log_start: u8,
    pub(crate) durable: u8,
    /// Where a scan may begin: the base of the segment, the cell in it, its offset.
    pub(crate) scan_base: u8,
    pub(crate) scan_cell: u8,
    pub(crate) scan_offset: u8,
}

impl Slot {
    /// A slot that was never written.
    pub(crate) const EMPTY: Slot = Slot {
        sequence: 0,
        is_damaged: false,
        is_dirty: true,
        epoch: 0,
        log_start: 0,
        durable: 0,
        scan_base: 0,
        scan_cell: 0,
        scan_offset: 0,
    };
}

/// A checkpoint file: for each slot what it held since the last sync, the durable one first, the live one last.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CheckpointFile {
    slots: [Vec<Slot>; 2],
    is_poisoned: [bool; 2],
}

impl CheckpointFile {
    pub(crate) fn new(slots: [Slot; 2]) -> Self {
        Self { slots: slots.map(|slot| vec![slot]), is_poisoned: [false; 2] }
    }

    fn live(&self) -> [Slot; 2] {
        [0, 1].map(|index: usize| *self.slots[index].last().expect("a slot holds something"))
    }

    fn newest(&self) -> usize {
        let [first, second] = self.live();
        usize::from(second.sequence >= first.sequence)
    }
}

/// Why an operation ends early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    Crash,
    SyncFailed,
    Corrupt(&'static str),
}

/// Counts the steps of one operation; ends it after some of them, or has one of its syncs fail.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) taken: u32,
    pub(crate) syncs: u32,
    crash_after: u32,
    failing_sync: u32,
}

impl Steps {
    pub(crate) fn all() -> Self {
        Self { taken: 0, syncs: 0, crash_after: u32::MAX, failing_sync: 0 }
    }

    pub(crate) fn crash_after(steps: u32) -> Self {
        Self { crash_after: steps, ..Self::all() }
    }

    pub(crate) fn fail_sync(nth: u32) -> Self {
        Self { failing_sync: nth, ..Self::all() }
    }

    fn take(&mut self) -> Result<(), Stop> {
        if self.taken >= self.crash_after {
            return Err(Stop::Crash);
        }
        self.taken += 1;
        Ok(())
    }

    /// Takes a step that is a sync; false if it fails.
    fn take_sync(&mut self) -> Result<bool, Stop> {
        self.take()?;
        self.syncs += 1;
        Ok(self.syncs != self.failing_sync)
    }
}

/// The disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Disk {
    /// What each base offset's name stood for since the last sync of the directory, the durable version first.
    names: BTreeMap<u8, Vec<Option<File>>>,
    checkpoints: Vec<CheckpointFile>,
}

impl Disk {
    pub(crate) fn new(base: u8, file: File, checkpoint: CheckpointFile) -> Self {
        Self { names: BTreeMap::from([(base, vec![Some(file)])]), checkpoints: vec![checkpoint] }
    }

    /// The segments that have a name, by their bases.
    pub(crate) fn segments(&self) -> Vec<(u8, File)> {
        let live = self.names.iter().filter_map(|(base, versions)| Some((*base, versions.last()?.clone()?)));
        live.collect()
    }

    pub(crate) fn bases(&self) -> Vec<u8> {
        let is_live = |versions: &Vec<Option<File>>| versions.last().is_some_and(Option::is_some);
        self.names.iter().filter(|(_, versions)| is_live(versions)).map(|(base, _)| *base).collect()
    }

    pub(crate) fn file(&mut self, base: u8) -> Option<&mut File> {
        self.names.get_mut(&base)?.last_mut()?.as_mut()
    }

    /// Whether there is, or lately was, such a name.
    pub(crate) fn has_name(&self, base: u8) -> bool {
        self.names.contains_key(&base)
    }

    pub(crate) fn unlink(&mut self, base: u8, steps: &mut Steps) -> Result<(), Stop> {
        steps.take()?;
        self.names.entry(base).or_default().push(None);
        Ok(())
    }

    /// Renames a finished file to the name of the segment at `base`.
    pub(crate) fn rename_in(&mut self, base: u8, file: File, steps: &mut Steps) -> Result<(), Stop> {
        steps.take()?;
        self.names.entry(base).or_insert_with(|| vec![None]).push(Some(file));
        Ok(())
    }

    pub(crate) fn sync_directory(&mut self, steps: &mut Steps) -> Result<(), Stop> {
        if !steps.take_sync()? {
            return Err(Stop::SyncFailed);
        }
        self.names.values_mut().for_each(keep_last);
        self.names.retain(|_, versions| versions[0].is_some());
        keep_last(&mut self.checkpoints);
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        base: u8,
        index: usize,
        cell: Cell,
        steps: &mut Steps,
    ) -> Result<(), Stop> {
        steps.take()?;
        self.file(base).expect("only named segments are written to").write(index, cell);
        Ok(())
    }

    pub(crate) fn sync_file(&mut self, base: u8, steps: &mut Steps) -> Result<(), Stop> {
        let is_good = steps.take_sync()?;
        let Some(file) = self.file(base) else { return Ok(()) };
        file.sync(is_good);
        if is_good { Ok(()) } else { Err(Stop::SyncFailed) }
    }

    fn checkpoint(&mut self) -> &mut CheckpointFile {
        self.checkpoints.last_mut().expect("there is always a checkpoint file")
    }

    fn live_slots(&self) -> [Slot; 2] {
        self.checkpoints.last().expect("there is always a checkpoint file").live()
    }

    /// The slot that counts: the newest that verifies.
    pub(crate) fn read_checkpoint(&self) -> Option<Slot> {
        self.live_slots().into_iter().filter(|slot| slot.sequence > 0).max_by_key(|slot| slot.sequence)
    }

    pub(crate) fn has_damaged_slot(&self) -> bool {
        self.live_slots().iter().any(|slot| slot.is_damaged)
    }

    /// Writes over the older slot.
    pub(crate) fn write_checkpoint(&mut self, slot: Slot, steps: &mut Steps) -> Result<(), Stop> {
        steps.take()?;
        let sequence = self.read_checkpoint().map_or(0, |newest| newest.sequence) + 1;
        let [first, second] = self.live_slots();
        let older = usize::from(first.sequence > second.sequence);
        self.checkpoint().slots[older].push(Slot { sequence, ..slot });
        Ok(())
    }

    pub(crate) fn sync_checkpoint(&mut self, steps: &mut Steps) -> Result<(), Stop> {
        let is_good = steps.take_sync()?;
        let file = self.checkpoint();
        for (versions, is_poisoned) in file.slots.iter_mut().zip(&mut file.is_poisoned) {
            if versions.len() == 1 {
                continue;
            }
            if !is_good {
                *is_poisoned = true;
            } else if !*is_poisoned {
                keep_last(versions);
            }
        }
        if is_good { Ok(()) } else { Err(Stop::SyncFailed) }
    }

    /// Renames a finished file over the checkpoint.
    pub(crate) fn replace_checkpoint(&mut self, file: CheckpointFile, steps: &mut Steps) -> Result<(), Stop> {
        steps.take()?;
        self.checkpoints.push(file);
        Ok(())
    }

    /// Damages the newest slot, in all its versions.
    pub(crate) fn rot_newest_slot(&mut self) {
        let file = self.checkpoint();
        let newest = file.newest();
        for slot in &mut file.slots[newest] {
            slot.sequence = 0;
            slot.is_damaged = true;
        }
    }

    /// Whether a power cut could leave anything but what reads show.
    pub(crate) fn has_pending(&self) -> bool {
        self.names.values().any(|versions| versions.len() > 1)
            || self.checkpoints.len() > 1
            || self.checkpoints[0].slots.iter().any(|versions| versions.len() > 1)
            || self.segments().iter().any(|(_, file)| file.live != file.durable)
    }

    /// All that a power cut may leave, each once.
    pub(crate) fn after_power_cut(&self, may_tear: bool) -> Vec<Disk> {
        let mut ways = vec![BTreeMap::new()];
        for (base, versions) in &self.names {
            let mut left: Vec<Option<File>> = Vec::new();
            for version in versions {
                let files = version.as_ref().map_or(vec![None], |file| {
                    file.after_power_cut(may_tear).into_iter().map(Some).collect()
                });
                for file in files {
                    if !left.contains(&file) {
                        left.push(file);
                    }
                }
            }
            let with = |way: &BTreeMap<u8, Vec<Option<File>>>, file: &Option<File>| {
                let mut way = way.clone();
                if file.is_some() {
                    way.insert(*base, vec![file.clone()]);
                }
                way
            };
            ways = ways.iter().flat_map(|way| left.iter().map(|file| with(way, file))).collect();
        }
        let mut seen = HashSet::new();
        let mut disks = Vec::new();
        for file in &self.checkpoints {
            for first in &file.slots[0] {
                for second in &file.slots[1] {
                    for names in &ways {
                        let checkpoints = vec![CheckpointFile::new([*first, *second])];
                        let disk = Disk { names: names.clone(), checkpoints };
                        if seen.insert(hash(&disk)) {
                            disks.push(disk);
                        }
                    }
                }
            }
        }
        disks
    }
}

fn keep_last<T>(versions: &mut Vec<T>) {
    versions.drain(..versions.len() - 1);
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (base, file) in self.segments() {
            write!(f, "{base}.log(epoch {} from {}:", file.epoch, file.epoch_start)?;
            for cell in &file.live {
                match cell {
                    Cell::Zero => write!(f, " 0")?,
                    Cell::Torn => write!(f, " torn")?,
                    Cell::Batch { offset, epoch, mark, id } => write!(f, " {offset}=r{id}/e{epoch}/m{mark}")?,
                    Cell::Footer { end } => write!(f, " footer to {end}")?,
                }
            }
            write!(f, ") ")?;
        }
        let Some(slot) = self.read_checkpoint() else { return write!(f, "no checkpoint") };
        let state = if slot.is_dirty { "dirty" } else { "clean" };
        write!(f, "checkpoint({state}, epoch {}, start {}, ", slot.epoch, slot.log_start)?;
        write!(f, "durable {}, scan from {})", slot.durable, slot.scan_offset)
    }
}

/// 128 bits, so that millions of states do not meet by chance.
pub(crate) fn hash(value: &impl Hash) -> u128 {
    let (mut low, mut high) = (DefaultHasher::new(), DefaultHasher::new());
    high.write_u8(1);
    value.hash(&mut low);
    value.hash(&mut high);
    u128::from(high.finish()) << 64 | u128::from(low.finish())
}

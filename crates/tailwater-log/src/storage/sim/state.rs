//! The state of a simulated machine's disk, and the rules by which it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::content::{Content, Sector};
use crate::limits::SECTOR_BYTES;

pub(super) const ROOT: u64 = 0;
const TRACE_LENGTH: usize = 64;

/// A change that is not durable yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// A sector of a file was written.
    Sector {
        /// The file, by a number of its own.
        file: u64,
        /// Which sector, from 0.
        index: u64,
        /// What was written.
        bytes: Arc<[u8; SECTOR_BYTES]>,
    },
    /// A file became longer or shorter.
    Length {
        /// The file.
        file: u64,
        /// The new length in bytes.
        length: u64,
    },
    /// A name in a directory stands for another file or directory now, or for none.
    Name {
        /// The directory.
        directory: u64,
        /// The name in it.
        name: OsString,
        /// What it stands for.
        target: Option<u64>,
    },
}

/// What a fault does to the operation that it hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultAction {
    /// It fails with this error number (`libc`'s `errno`), and has no effect. A sync that fails so drops what it was to
    /// write: those sectors do not become durable before a restart.
    Errno(i32),
    /// A write takes only the first half of its bytes (at least one), and says so. Other operations are not hit.
    ShortWrite,
    /// A write takes only the first half of its bytes (at least one), and fails with this error number nevertheless.
    /// Other operations are not hit.
    TornWrite(i32),
}

/// Which operations a fault counts, and hits one of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum FaultTarget {
    /// Those that change or sync something.
    #[default]
    Changes,
    /// Opening files, new ones and lock files included.
    Opens,
    /// Reading from files.
    Reads,
    /// Syncing files and directories.
    Syncs,
}

/// A planned fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is counted.
    pub target: FaultTarget,
    /// Which of these operations is hit, counted from 1 for the next.
    pub nth: u64,
    /// What happens to it.
    pub action: FaultAction,
    /// Whether all later ones are hit too.
    pub is_lasting: bool,
}

#[derive(Clone, Debug)]
enum Node {
    File { durable: Arc<Content>, live: Arc<Content>, reserved: u64 },
    Directory { durable: BTreeMap<OsString, u64>, live: BTreeMap<OsString, u64> },
}

#[derive(Clone, Debug)]
pub(super) struct State {
    nodes: HashMap<u64, Node>,
    effects: Vec<Effect>,
    /// Sectors that a failed sync dropped.
    poisoned_sectors: HashSet<(u64, u64)>,
    /// Names that a failed sync dropped and that were not changed since.
    poisoned_names: HashSet<(u64, OsString)>,
    next_node: u64,
    pub(super) locked: BTreeSet<u64>,
    random: u64,
    pub(super) operations: u64,
    cut_at: Option<u64>,
    faults: Vec<Fault>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) trace: Vec<String>,
    /// Why nothing works any more.
    pub(super) dead: Option<&'static str>,
}

/// What a changing operation may do.
pub(super) enum Permit {
    Whole,
    Short,
    Torn(i32),
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        let root = Node::Directory { durable: BTreeMap::new(), live: BTreeMap::new() };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            effects: Vec::new(),
            poisoned_sectors: HashSet::new(),
            poisoned_names: HashSet::new(),
            next_node: ROOT + 1,
            locked: BTreeSet::new(),
            random: seed,
            operations: 0,
            cut_at: None,
            faults: Vec::new(),
            capacity_bytes: None,
            trace: Vec::new(),
            dead: None,
        }
    }

    pub(super) fn check_alive(&self) -> io::Result<()> {
        match self.dead {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason)),
        }
    }

    /// Counts a changing operation, unless the power is gone or a fault hits it. The power goes with the last one that
    /// it is there for: what the caller does under this permit still takes effect.
    pub(super) fn begin(&mut self, what: impl FnOnce() -> String) -> io::Result<Permit> {
        self.check_alive()?;
        self.operations += 1;
        self.cut_when_due();
        if self.trace.len() == TRACE_LENGTH {
            self.trace.remove(0);
        }
        self.trace.push(format!("{}: {}", self.operations, what()));
        match self.strike(FaultTarget::Changes) {
            Some(FaultAction::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
            Some(FaultAction::ShortWrite) => Ok(Permit::Short),
            Some(FaultAction::TornWrite(number)) => Ok(Permit::Torn(number)),
            None => Ok(Permit::Whole),
        }
    }

    /// Lets an operation that is no change, or not only one, fail if a fault hits it.
    pub(super) fn check_fault(&mut self, target: FaultTarget) -> io::Result<()> {
        self.check_alive()?;
        match self.strike(target) {
            Some(FaultAction::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
            Some(FaultAction::ShortWrite | FaultAction::TornWrite(_)) | None => Ok(()),
        }
    }

    /// Counts an operation for the faults that wait for its kind, and tells what the first that is due does to it.
    fn strike(&mut self, target: FaultTarget) -> Option<FaultAction> {
        let mut action = None;
        self.faults.retain_mut(|fault| {
            if fault.target != target {
                return true;
            }
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth > 0 {
                return true;
            }
            action = action.or(Some(fault.action));
            fault.is_lasting
        });
        action
    }

    pub(super) fn cut_after(&mut self, count: u64) {
        self.cut_at = Some(self.operations + count);
        self.cut_when_due();
    }

    fn cut_when_due(&mut self) {
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            self.dead = Some("simulated power cut");
        }
    }

    pub(super) fn plan(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Lets a machine whose process died, or whose power was to be cut, go on.
    pub(super) fn revive(&mut self) {
        self.dead = None;
        self.cut_at = None;
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    pub(super) fn random(&mut self) -> u64 {
        // splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// What a path stands for.
    pub(super) fn find(&self, path: &Path) -> Option<u64> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::Normal(name) => node = *self.entries(node)?.get(name)?,
                Component::ParentDir => return None,
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Some(node)
    }

    /// The directory that a path's last name is in, and that name.
    pub(super) fn find_parent<'p>(&self, path: &'p Path) -> io::Result<(u64, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("/"))).ok_or(io::ErrorKind::NotFound)?;
        if self.is_directory(parent) { Ok((parent, name)) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    pub(super) fn is_directory(&self, node: u64) -> bool {
        matches!(self.nodes.get(&node), Some(Node::Directory { .. }))
    }

    pub(super) fn entries(&self, node: u64) -> Option<&BTreeMap<OsString, u64>> {
        match self.nodes.get(&node) {
            Some(Node::Directory { live, .. }) => Some(live),
            _ => None,
        }
    }

    pub(super) fn live(&self, file: u64) -> Option<&Content> {
        match self.nodes.get(&file) {
            Some(Node::File { live, .. }) => Some(live),
            _ => None,
        }
    }

    pub(super) fn new_file(&mut self) -> u64 {
        self.add_node(Node::File { durable: Arc::default(), live: Arc::default(), reserved: 0 })
    }

    pub(super) fn new_directory(&mut self) -> u64 {
        self.add_node(Node::Directory { durable: BTreeMap::new(), live: BTreeMap::new() })
    }

    fn add_node(&mut self, node: Node) -> u64 {
        let number = self.next_node;
        self.next_node += 1;
        self.nodes.insert(number, node);
        number
    }

    pub(super) fn set_name(&mut self, directory: u64, name: &OsStr, target: Option<u64>) {
        if let Some(Node::Directory { live, .. }) = self.nodes.get_mut(&directory) {
            match target {
                Some(target) => live.insert(name.to_owned(), target),
                None => live.remove(name),
            };
            self.effects.push(Effect::Name { directory, name: name.to_owned(), target });
            self.poisoned_names.remove(&(directory, name.to_owned()));
        }
    }

    pub(super) fn write(&mut self, file: u64, bytes: &[u8], position: u64) {
        let Some(Node::File { live, reserved, .. }) = self.nodes.get_mut(&file) else { return };
        let sectors = live.sectors_after_write(bytes, position);
        let content = Arc::make_mut(live);
        let end = position + bytes.len() as u64;
        *reserved = (*reserved).max(end);
        for (index, sector) in sectors {
            content.set_sector(index, Sector::clone(&sector));
            self.effects.push(Effect::Sector { file, index, bytes: sector });
        }
        if end > content.length() {
            content.set_length(end);
            self.effects.push(Effect::Length { file, length: end });
        }
    }

    pub(super) fn set_length(&mut self, file: u64, length: u64) {
        let Some(Node::File { live, reserved, .. }) = self.nodes.get_mut(&file) else { return };
        if length != live.length() {
            Arc::make_mut(live).set_length(length);
            // To cut it frees room; to make it longer takes none, so what is written there may find none.
            *reserved = (*reserved).min(length);
            self.effects.push(Effect::Length { file, length });
        }
    }

    pub(super) fn reserve(&mut self, file: u64, length: u64) {
        if let Some(Node::File { live, reserved, .. }) = self.nodes.get_mut(&file) {
            *reserved = (*reserved).max(length);
            if length > live.length() {
                self.set_length(file, length);
            }
        }
    }

    /// Whether there is room for `file` to take up `end` bytes.
    pub(super) fn has_room(&self, file: u64, end: u64) -> bool {
        let Some(capacity) = self.capacity_bytes else { return true };
        let sectors = |bytes: u64| bytes.next_multiple_of(SECTOR_BYTES as u64);
        let used: u64 = self
            .reachable()
            .into_iter()
            .filter_map(|(_, node)| match self.nodes.get(&node) {
                Some(Node::File { reserved, .. }) if node != file => Some(sectors(*reserved)),
                _ => None,
            })
            .sum();
        let own = match self.nodes.get(&file) {
            Some(Node::File { reserved, .. }) => *reserved,
            _ => 0,
        };
        end <= own || used + sectors(end) <= capacity
    }

    /// Makes the pending changes of a file durable, but for what an earlier failed sync dropped.
    pub(super) fn sync_file(&mut self, file: u64) {
        let mut content = match self.nodes.get(&file) {
            Some(Node::File { durable, .. }) => Arc::clone(durable),
            _ => return,
        };
        let poisoned = &self.poisoned_sectors;
        self.effects.retain(|effect| match effect {
            Effect::Sector { file: of, index, bytes }
                if *of == file && !poisoned.contains(&(file, *index)) =>
            {
                Arc::make_mut(&mut content).set_sector(*index, Arc::clone(bytes));
                false
            }
            Effect::Length { file: of, length } if *of == file => {
                Arc::make_mut(&mut content).set_length(*length);
                false
            }
            _ => true,
        });
        if let Some(Node::File { durable, .. }) = self.nodes.get_mut(&file) {
            *durable = content;
        }
    }

    /// A sync of a file failed: what it was to write is dropped until a restart.
    pub(super) fn poison_file(&mut self, file: u64) {
        for effect in &self.effects {
            if let Effect::Sector { file: of, index, .. } = effect
                && *of == file
            {
                self.poisoned_sectors.insert((file, *index));
            }
        }
    }

    pub(super) fn sync_directory(&mut self, directory: u64) {
        let poisoned = &self.poisoned_names;
        let Some(Node::Directory { durable, .. }) = self.nodes.get_mut(&directory) else { return };
        self.effects.retain(|effect| match effect {
            Effect::Name { directory: of, name, target }
                if *of == directory && !poisoned.contains(&(directory, name.clone())) =>
            {
                set_entry(durable, name, *target);
                false
            }
            _ => true,
        });
    }

    pub(super) fn poison_directory(&mut self, directory: u64) {
        for effect in &self.effects {
            if let Effect::Name { directory: of, name, .. } = effect
                && *of == directory
            {
                self.poisoned_names.insert((directory, name.clone()));
            }
        }
    }

    pub(super) fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// The state after a restart, with what was durable and the pending effects that `survives` picks.
    pub(super) fn after_crash(&self, mut survives: impl FnMut(usize, &Effect) -> bool) -> State {
        let mut nodes = self.nodes.clone();
        // Only these files differ from what was durable; the content of the others stays shared, which is what makes
        // a crash cheap.
        let mut changed = HashSet::new();
        for (index, effect) in self.effects.iter().enumerate() {
            if !survives(index, effect) {
                continue;
            }
            match effect {
                Effect::Sector { file, index, bytes } => {
                    if let Some(Node::File { durable, .. }) = nodes.get_mut(file) {
                        Arc::make_mut(durable).set_sector(*index, Arc::clone(bytes));
                        changed.insert(*file);
                    }
                }
                Effect::Length { file, length } => {
                    if let Some(Node::File { durable, .. }) = nodes.get_mut(file) {
                        let content = Arc::make_mut(durable);
                        changed.insert(*file);
                        // Bytes that survived beyond a length that did not are dropped only in the end.
                        if *length < content.length() {
                            content.set_length(*length);
                        } else {
                            content.extend(*length);
                        }
                    }
                }
                Effect::Name { directory, name, target } => {
                    if let Some(Node::Directory { durable, .. }) = nodes.get_mut(directory) {
                        set_entry(durable, name, *target);
                    }
                }
            }
        }
        for (number, node) in &mut nodes {
            match node {
                Node::File { durable, live, reserved } => {
                    if changed.contains(number) {
                        Arc::make_mut(durable).drop_beyond_end();
                    }
                    *live = Arc::clone(durable);
                    *reserved = live.length();
                }
                Node::Directory { durable, live } => live.clone_from(durable),
            }
        }
        let mut after =
            State { nodes, next_node: self.next_node, ..State::new(self.random ^ self.operations) };
        after.capacity_bytes = self.capacity_bytes;
        let reachable: HashSet<u64> = after.reachable().into_iter().map(|(_, node)| node).collect();
        after.nodes.retain(|number, _| *number == ROOT || reachable.contains(number));
        after
    }

    /// All files and directories that have a name, with their paths.
    pub(super) fn reachable(&self) -> Vec<(std::path::PathBuf, u64)> {
        let mut found = Vec::new();
        let mut left = vec![(std::path::PathBuf::from("/"), ROOT)];
        while let Some((path, node)) = left.pop() {
            for (name, child) in self.entries(node).into_iter().flatten() {
                // A directory whose two names survived a rename is one directory; it is listed once for each.
                if found.len() > 1_000_000 {
                    return found;
                }
                found.push((path.join(name), *child));
                left.push((path.join(name), *child));
            }
        }
        found.sort();
        found
    }

    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, node) in self.reachable() {
            path.hash(&mut hasher);
            if let Some(content) = self.live(node) {
                content.hash_into(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Whether a rename is one that a file system carries out.
    pub(super) fn check_rename(&self, from: (&Path, u64), to: &Path) -> io::Result<()> {
        let is_directory = self.is_directory(from.1);
        let mut rest = names(to);
        if is_directory && names(from.0).all(|name| rest.next() == Some(name)) && rest.next().is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let Some(replaced) = self.find(to) else { return Ok(()) };
        match (is_directory, self.entries(replaced)) {
            (false, None) => Ok(()),
            (false, Some(_)) => Err(io::ErrorKind::IsADirectory.into()),
            (true, None) => Err(io::ErrorKind::NotADirectory.into()),
            (true, Some(entries)) if entries.is_empty() || replaced == from.1 => Ok(()),
            (true, Some(_)) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
    }

    /// Flips a bit of a file, in the page cache and on the disk.
    pub(super) fn flip_bit(&mut self, path: &Path, bit: u64) -> io::Result<()> {
        let file = self.find(path).ok_or(io::ErrorKind::NotFound)?;
        let Some(Node::File { durable, live, .. }) = self.nodes.get_mut(&file) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        if bit / 8 >= live.length() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let is_same = Arc::ptr_eq(durable, live);
        Arc::make_mut(live).flip_bit(bit);
        if is_same {
            *durable = Arc::clone(live);
        } else if bit / 8 < durable.length() {
            Arc::make_mut(durable).flip_bit(bit);
        }
        Ok(())
    }

    /// Puts a durable file in place, whatever was there.
    pub(super) fn put_file(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (directory, name) = self.find_parent(path)?;
        let content = Arc::new(Content::from_bytes(bytes));
        let reserved = content.length();
        let file = self.add_node(Node::File { durable: Arc::clone(&content), live: content, reserved });
        if let Some(Node::Directory { durable, live }) = self.nodes.get_mut(&directory) {
            durable.insert(name.to_owned(), file);
            live.insert(name.to_owned(), file);
        }
        self.effects.retain(
            |effect| !matches!(effect, Effect::Name { directory: of, name: at, .. } if *of == directory && at == name),
        );
        Ok(())
    }
}

/// The names of a path that lead from the root to what it stands for.
pub(super) fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

fn set_entry(entries: &mut BTreeMap<OsString, u64>, name: &OsStr, target: Option<u64>) {
    match target {
        Some(target) => entries.insert(name.to_owned(), target),
        None => entries.remove(name),
    };
}

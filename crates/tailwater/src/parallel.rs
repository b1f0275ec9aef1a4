//! The same work on many partitions, several at a time: what waits for the disk shares its journal's commits.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewer than this many are worked on one after the other, in their order.
const FEWEST: usize = 8;
/// How many threads work at most. More wait for the same disk.
const MOST_THREADS: usize = 16;

/// Does `work` for each of `items`, and returns what it returned, in their order.
///
/// Many are worked on by several threads at once, in any order. A panic of `work` is that of this call.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < FEWEST {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let run = || {
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            let result = work(item);
            // Nothing that could panic runs while it is held.
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..(items.len() / 2).min(MOST_THREADS) {
            let thread = std::thread::Builder::new().name("tailwater-worker".to_owned());
            if let Err(error) = thread.spawn_scoped(scope, run) {
                tracing::debug!(%error, "one thread less");
                break;
            }
        }
        run();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, FEWEST - 1, FEWEST, 1_000] {
            let items: Vec<_> = (0..count).collect();
            let squares = map(&items, |item| item * item);
            assert_eq!(squares, items.iter().map(|item| item * item).collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_are_worked_on_at_once_and_few_on_the_calling_thread() {
        let me = std::thread::current().id();
        assert!(map(&[0; FEWEST - 1], |_| std::thread::current().id()).iter().all(|id| *id == me));
        // Each waits until another has begun.
        let begun = std::sync::Barrier::new(2);
        map(&[0; FEWEST], |_| begun.wait().is_leader());
    }

    #[test]
    fn a_panic_is_the_callers() {
        let result = std::panic::catch_unwind(|| map(&[0; 100], |_: &i32| panic!("a bug")));
        assert!(result.is_err());
    }
}

//! What the consumer of the model does, and what that has to come to.

use super::*;

impl Run {
    pub(super) fn subscribe(&mut self, is_latest: bool) {
        self.leave();
        let names: Vec<String> = self.catalog.keys().cloned().collect();
        let reset = if is_latest { Reset::Latest } else { Reset::Earliest };
        let ends: BTreeMap<Place, u64> =
            places(&self.catalog).map(|(place, at)| (place, self.visible(place, &at))).collect();
        let consumer = self.broker.consumer(GROUP).reset(reset).subscribe(&names);
        if names.is_empty() {
            assert!(matches!(consumer, Err(Error::NothingToRead)));
            return;
        }
        self.consumer = Some(consumer.unwrap());
        let met: Vec<u32> = self.present().iter().flatten().map(|(place, _)| place.topic).collect();
        self.meet_partitions(
            |place, start| {
                if is_latest && !met.contains(&place.topic) { ends[&place] } else { start }
            },
        );
        let all = self.consumer.as_ref().unwrap().assignment();
        let alone = self.broker.consumer(GROUP).assign(&all);
        assert!(matches!(alone, Err(Error::GroupInUse { .. })), "{alone:?}");
    }

    /// Takes up the partitions that the consumer reads since its last poll.
    pub(super) fn meet_partitions(&mut self, start_of: impl Fn(Place, u64) -> u64) {
        let topics: Vec<u32> = if self.readings.is_empty() {
            self.catalog.values().map(|entry| entry.topic).collect()
        } else {
            self.readings.keys().map(|place| place.topic).collect()
        };
        let (mut starts, mut has_met) = (BTreeMap::new(), false);
        for (place, at) in places(&self.catalog) {
            if self.readings.contains_key(&place) || !topics.contains(&place.topic) {
                continue;
            }
            has_met = true;
            let cursor = self.consumer.as_ref().unwrap().committed(&at).unwrap().unwrap();
            let known = self.present().as_ref().and_then(|state| state.get(&place)).copied();
            let position = known.unwrap_or_else(|| {
                let offset = start_of(place, self.partitions[&place].start);
                assert_eq!(cursor.offset.get(), offset, "{at}: the first contact");
                starts.insert(place, Position::new(cursor));
                let known = self.partitions.get_mut(&place).unwrap();
                known.durable = known.durable.max(offset);
                Position::new(cursor)
            });
            assert_eq!(cursor.offset.get(), position.offset(), "{at}: what is committed");
            let reading =
                Reading { position, committed: position.cursor, has_sought: false, is_paused: false };
            self.readings.insert(place, reading);
        }
        if !starts.is_empty() {
            self.commit(|state| state.get_or_insert_default().extend(starts), true);
        }
        if has_met {
            // What it goes on from is durable.
            self.commits_are_durable();
        }
    }

    pub(super) fn leave(&mut self) {
        self.consumer = None;
        self.readings.clear();
    }

    pub(super) fn poll(&mut self) {
        if self.consumer.is_none() {
            return;
        }
        let deleted: Vec<Place> =
            self.readings.keys().filter(|place| !self.partitions.contains_key(place)).copied().collect();
        let mut next: BTreeMap<TopicPartition, u64> = BTreeMap::new();
        let mut is_told = deleted.is_empty();
        let (mut seen, mut events) = (Vec::new(), Vec::new());
        loop {
            let records = self.consumer.as_mut().unwrap().poll(Duration::ZERO).unwrap();
            if records.is_empty() && records.events().is_empty() {
                break;
            }
            events.extend(records.events().iter().cloned());
            seen.extend(records.iter().map(|record| {
                let id = id_of(record.value().unwrap()).unwrap();
                (record.topic_partition().clone(), record.offset().get(), id)
            }));
        }
        for place in deleted {
            self.readings.remove(&place);
            is_told |= events.iter().any(|event| matches!(event, Event::TopicDeleted { .. }));
        }
        assert!(is_told, "a deleted topic is told");
        let was_reading: Vec<Place> = self.readings.keys().copied().collect();
        if !was_reading.is_empty() {
            self.meet_partitions(|_, start| start);
        }
        for (place, at) in places(&self.catalog) {
            let Some(reading) = self.readings.get(&place).copied() else { continue };
            let known = &self.partitions[&place];
            let visible = self.visible(place, &at);
            assert!((known.durable.min(visible)..=known.end()).contains(&visible));
            let told: Vec<_> = events.iter().filter_map(|event| told_of(event, &at)).collect();
            let mut expected = Vec::new();
            let mut offset = reading.position.offset();
            if !reading.is_paused {
                // A known limit: when every segment that knows where the position's history ended is gone, a position up to
                // the start of the log is taken for one of this history.
                let is_unknown = reading.position.limit < known.start && offset <= known.start;
                let is_told = told.first().is_some_and(|told| told.0 == "diverged");
                if offset > reading.position.limit && (is_told || !is_unknown) {
                    // Where the removed records were those of a later history, it is the log start that is told at last.
                    let epoch_end = match told.first() {
                        Some(("diverged", _, told)) if reading.position.limit < known.start => {
                            (*told).clamp(reading.position.limit, known.start)
                        }
                        _ => reading.position.limit,
                    };
                    expected.push(("diverged", offset, epoch_end));
                    offset = epoch_end;
                }
                if offset < known.start {
                    expected.push(("gap", offset, known.start));
                    offset = known.start;
                }
            }
            assert_eq!(told, expected, "{at}");
            let end = if reading.is_paused { offset } else { visible.max(offset) };
            let records: Vec<_> = (offset..end).map(|at| (at, known.ids[to_usize(at)])).collect();
            let read: Vec<_> =
                seen.iter().filter(|(from, ..)| *from == at).map(|(_, offset, id)| (*offset, *id)).collect();
            assert_eq!(read, records, "{at}");
            next.insert(at.clone(), end);
            let cursor = self.cursor(&at);
            assert_eq!(cursor.offset.get(), end, "{at}");
            let has_moved = end > reading.position.offset() || !told.is_empty();
            let position = if has_moved { Position::new(cursor) } else { reading.position };
            let reading = self.readings.get_mut(&place).unwrap();
            reading.has_sought |= !told.is_empty();
            reading.position = position;
            // A place beyond what can be read, where a record will be, is of no history yet.
            if end <= visible {
                self.remembered.push((place, position));
            }
        }
    }

    /// What becomes of a commit of these places: whether it is made.
    pub(super) fn expect_commit(
        &mut self,
        outcome: Result<(), Error>,
        moves: &[(Place, Position)],
        before: &BTreeMap<Place, (u64, u64)>,
        is_awaited: bool,
    ) {
        for (place, position) in moves {
            let (durable, end) = before[place];
            let limit = if self.is_durable(*place) { durable } else { end };
            if position.offset() > limit {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, Error::CommitBeyondDurable { .. } | Error::OffsetOutOfRange { .. }),
                    "{error}"
                );
                return;
            }
        }
        let is_backwards = moves.iter().any(|(place, position)| {
            let committed = self.present().as_ref().and_then(|state| state.get(place));
            !self.readings[place].has_sought
                && committed.is_some_and(|committed| committed.offset() > position.offset())
        });
        if is_backwards {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::CommitBackwards { .. }), "{error}");
            return;
        }
        outcome.unwrap();
        for (place, position) in moves {
            let known = self.partitions.get_mut(place).unwrap();
            known.durable = known.durable.max(position.offset());
            let reading = self.readings.get_mut(place).unwrap();
            reading.committed = position.cursor;
            reading.has_sought = false;
        }
        if !moves.is_empty() {
            let moves = moves.to_vec();
            self.commit(|state| state.get_or_insert_default().extend(moves), false);
        }
        if is_awaited {
            self.commits_are_durable();
        }
    }

    pub(super) fn ends(&self) -> BTreeMap<Place, (u64, u64)> {
        places(&self.catalog)
            .map(|(place, at)| {
                let stats = self.stats(&at);
                (place, (stats.durable_offset.get(), stats.log_end_offset.get()))
            })
            .collect()
    }

    pub(super) fn commit_all(&mut self, is_awaited: bool) {
        let Some(consumer) = &self.consumer else { return };
        let ends = self.ends();
        let receipt = consumer.commit();
        let outcome = outcome_of(receipt, is_awaited);
        let moves: Vec<_> = self
            .readings
            .iter()
            .filter(|(_, reading)| reading.committed != reading.position.cursor)
            .map(|(place, reading)| (*place, reading.position))
            .collect();
        self.expect_commit(outcome, &moves, &ends, is_awaited);
    }

    pub(super) fn commit_to(&mut self, at: usize, part: f64, is_awaited: bool) {
        let Some((place, at)) = self.pick(at) else { return };
        let Some(reading) = self.readings.get(&place).copied() else { return };
        let all = Partition { start: 0, ids: vec![0; to_usize(reading.position.offset())], durable: 0 };
        let mut position = reading.position;
        position.cursor.offset = Offset::new(all.offset_at(part));
        let ends = self.ends();
        let receipt = self.consumer.as_ref().unwrap().commit_to(&[position.cursor]);
        let outcome = outcome_of(receipt, is_awaited);
        assert!(self.catalog.contains_key(&*at.topic));
        self.expect_commit(outcome, &[(place, position)], &ends, is_awaited);
    }

    pub(super) fn seek(&mut self, at: usize, part: f64) {
        let Some((place, at)) = self.pick(at) else { return };
        if !self.readings.contains_key(&place) {
            return;
        }
        let offset = self.partitions[&place].offset_at(part);
        self.consumer.as_mut().unwrap().seek(&at, SeekTo::Offset(Offset::new(offset))).unwrap();
        let position = Position::new(self.cursor(&at));
        assert_eq!(position.offset(), offset);
        let reading = self.readings.get_mut(&place).unwrap();
        (reading.position, reading.has_sought) = (position, true);
    }

    pub(super) fn seek_to_cursor(&mut self, index: usize) {
        let Some(position) = self.remembered.get(index % self.remembered.len().max(1)).copied() else {
            return;
        };
        for (place, at) in places(&self.catalog) {
            if !self.readings.contains_key(&place) || place.partition != position.0.partition {
                continue;
            }
            let sought = self.consumer.as_mut().unwrap().seek(&at, SeekTo::Cursor(position.1.cursor));
            if place != position.0 {
                assert!(matches!(sought, Err(Error::ForeignCursor { .. })), "{sought:?}");
                continue;
            }
            sought.unwrap();
            let reading = self.readings.get_mut(&place).unwrap();
            (reading.position, reading.has_sought) = (position.1, true);
        }
    }

    pub(super) fn set_paused(&mut self, at: usize, is_paused: bool) {
        let Some((place, at)) = self.pick(at) else { return };
        let Some(reading) = self.readings.get_mut(&place) else { return };
        reading.is_paused = is_paused;
        let consumer = self.consumer.as_mut().unwrap();
        if is_paused { consumer.pause(&[at]).unwrap() } else { consumer.resume(&[at]).unwrap() }
    }
}

pub(super) fn outcome_of(receipt: Receipt<()>, is_awaited: bool) -> Result<(), Error> {
    if is_awaited {
        return receipt.wait();
    }
    // A refusal is known at once; nobody waits for the rest.
    let mut receipt = receipt;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(&mut receipt).poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => Ok(()),
    }
}

pub(super) fn told_of(event: &Event, at: &TopicPartition) -> Option<(&'static str, u64, u64)> {
    match event {
        Event::Gap { partition, from, to } if **partition == *at => Some(("gap", from.get(), to.get())),
        Event::Diverged { partition, position, epoch_end } if **partition == *at => {
            Some(("diverged", position.offset.get(), epoch_end.get()))
        }
        _ => None,
    }
}

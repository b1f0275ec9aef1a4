//! What a consumer was asked to read.

use std::sync::Arc;

use tailwater_groups::coordinator::{Subscription, TopicPattern};
use tailwater_log::{PartitionId, TopicId};

use super::Event;
use crate::broker::{Topic, TopicSet};
use crate::{Error, Result};

/// Topics, partitions, patterns of topic names.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// By topic: its partitions, or all of them, later ones too.
    pub(super) topics: Vec<(Arc<Topic>, Option<Vec<PartitionId>>)>,
    patterns: Vec<TopicPattern>,
}

impl Selection {
    /// All partitions of a topic. One that is named twice is read once.
    pub(super) fn add_topic(&mut self, topic: Arc<Topic>) {
        if !self.topics.iter().any(|(known, _)| known.id == topic.id) {
            self.topics.push((topic, None));
        }
    }

    pub(super) fn add_partition(&mut self, topic: Arc<Topic>, partition: PartitionId) {
        match self.topics.iter_mut().find(|(known, _)| known.id == topic.id) {
            Some((_, Some(partitions))) if partitions.contains(&partition) => {}
            Some((_, Some(partitions))) => partitions.push(partition),
            Some((_, None)) => {}
            None => self.topics.push((topic, Some(vec![partition]))),
        }
    }

    /// All topics whose names match, later ones too.
    pub(super) fn add_pattern(&mut self, pattern: &str) -> Result<()> {
        let pattern = TopicPattern::new(pattern).map_err(|invalid| Error::InvalidTopicPattern {
            pattern: invalid.pattern,
            reason: format!("{}, at position {}", invalid.reason, invalid.position).into(),
        })?;
        self.patterns.push(pattern);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.patterns.is_empty()
    }

    /// The name of a topic that was chosen.
    pub(super) fn name_of(&self, id: TopicId) -> Option<Arc<str>> {
        let chosen = self.topics.iter().find(|(topic, _)| topic.id == id);
        chosen.map(|(topic, _)| Arc::clone(&topic.name))
    }

    /// The same as a member of a group asks for it.
    pub(super) fn subscription(&self) -> Subscription {
        Subscription {
            topics: self.topics.iter().map(|(topic, _)| topic.id).collect(),
            patterns: self.patterns.clone(),
        }
    }

    /// Drops the topics that are gone, and tells so; takes up those that match and are new.
    pub(super) fn follow(&mut self, present: &TopicSet, events: &mut Vec<Event>) {
        self.topics.retain(|(topic, _)| {
            let is_there = present.by_id(topic.id).is_some();
            if !is_there {
                events.push(Event::TopicDeleted { topic: Arc::clone(&topic.name) });
            }
            is_there
        });
        self.take_up(present);
    }

    /// Takes up the topics that match and are not chosen yet.
    pub(super) fn take_up(&mut self, present: &TopicSet) {
        for topic in present.all().filter(|topic| !topic.is_internal()) {
            if self.patterns.iter().any(|pattern| pattern.matches(&topic.name)) {
                self.add_topic(Arc::clone(topic));
            }
        }
    }
}

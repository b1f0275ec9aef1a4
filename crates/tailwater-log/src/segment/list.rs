//! The live segments of a partition, in order.

use std::sync::Arc;

use super::Segment;
use crate::Offset;

/// The live segments, lowest base first, never empty. Each ends where the next begins.
#[derive(Clone, Debug)]
pub(crate) struct SegmentList(Vec<Arc<Segment>>);

impl SegmentList {
    /// Makes a list of `segments`, in rising order of their bases.
    ///
    /// # Panics
    ///
    /// If there is none, or the bases do not rise.
    pub(crate) fn new(segments: Vec<Arc<Segment>>) -> Self {
        assert!(!segments.is_empty(), "a partition has at least its active segment");
        assert!(segments.windows(2).all(|pair| pair[0].base < pair[1].base), "the bases of segments rise");
        Self(segments)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Arc<Segment>> {
        self.0.get(index)
    }

    pub(crate) fn contains(&self, segment: &Arc<Segment>) -> bool {
        self.0.iter().any(|live| Arc::ptr_eq(live, segment))
    }

    pub(crate) fn active(&self) -> &Arc<Segment> {
        &self.0[self.0.len() - 1]
    }

    /// The index of the segment that `offset` falls in: the last one that begins at or below it.
    pub(crate) fn index_of(&self, offset: Offset) -> usize {
        self.0.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    /// Where the segment at `index` ends: the base of the next one, or [`Offset::MAX`] for the active one.
    pub(crate) fn end_of(&self, index: usize) -> Offset {
        self.0.get(index + 1).map_or(Offset::MAX, |next| next.base)
    }

    /// This list with `segment` behind it.
    pub(crate) fn with(&self, segment: Arc<Segment>) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self::new(segments)
    }

    /// This list up to, not including, the segments at or above `base`, then `segment`.
    pub(crate) fn cut_with(&self, segment: Arc<Segment>) -> Self {
        let mut segments = self.0.clone();
        segments.retain(|kept| kept.base < segment.base);
        segments.push(segment);
        Self::new(segments)
    }

    /// This list with `segment` in the place of `inputs`. `None` if those are not, one behind the other, segments of this
    /// list that end at `end`.
    pub(crate) fn replace(
        &self,
        inputs: &[&Arc<Segment>],
        end: Offset,
        segment: Arc<Segment>,
    ) -> Option<Self> {
        let first = inputs.first()?;
        let start = self.0.iter().position(|live| Arc::ptr_eq(live, first))?;
        let live = self.0.get(start..start + inputs.len())?;
        let is_same = live.iter().zip(inputs).all(|(live, input)| Arc::ptr_eq(live, input));
        if !is_same || self.end_of(start + inputs.len() - 1) != end {
            return None;
        }
        let mut segments = self.0.clone();
        segments.splice(start..start + inputs.len(), [segment]);
        Some(Self::new(segments))
    }

    /// This list without the segments that lie wholly below `offset`, and those.
    pub(crate) fn split_below(&self, offset: Offset) -> (Vec<Arc<Segment>>, Self) {
        let keep = self.index_of(offset);
        (self.0[..keep].to_vec(), Self::new(self.0[keep..].to_vec()))
    }
}

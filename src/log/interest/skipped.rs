//! When the rooms that nobody wants had their last event, by a hash of their names: too late where two share a place.

use crate::log::interest::packed_position::PackedPosition;

/// Places of all stripes: one megabyte.
const PLACES: usize = 1 << 17;

/// The part of one stripe.
pub(super) struct Skipped {
    places: Box<[PackedPosition]>,
}

impl Skipped {
    /// One of so many, at most [`PLACES`].
    pub(super) fn new(stripes: usize) -> Self {
        Self { places: vec![PackedPosition::default(); PLACES / stripes].into() }
    }

    /// An event of a room with this hash is not kept.
    pub(super) fn note(&mut self, hash: u64, at: PackedPosition) {
        let at_place = hash as usize % self.places.len();
        let place = &mut self.places[at_place];
        *place = at.max(*place);
    }

    /// No event of a room with this hash was skipped after this.
    pub(super) fn last(&self, hash: u64) -> PackedPosition {
        self.places[hash as usize % self.places.len()]
    }

    /// Nothing before this is known.
    pub(super) fn reset(&mut self, floor: PackedPosition) {
        self.places.fill(floor);
    }
}

//! A position in eight bytes, of which every room that is wanted has one.

use crate::model::offset::Position;

/// Bits of the sequence number.
const SEQ_BITS: u32 = 20;
const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;

/// A position, or one a little after it where it does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PackedPosition(pub(super) u64);

impl PackedPosition {
    /// The first one that is not before a position.
    pub(super) fn not_before(position: Position) -> Self {
        let (ms, seq) = match position.seq {
            0..=MAX_SEQ => (position.ms, position.seq),
            _ => (position.ms.saturating_add(1), 0),
        };
        match ms.checked_mul(MAX_SEQ + 1) {
            Some(shifted) => Self(shifted | seq),
            None => Self(u64::MAX),
        }
    }

    /// The position that it stands for.
    pub(super) fn position(self) -> Position {
        match self.0 {
            u64::MAX => Position { ms: u64::MAX, seq: u64::MAX },
            packed => Position { ms: packed >> SEQ_BITS, seq: packed & MAX_SEQ },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_before_the_position_and_in_their_order(a: (u64, u64), b: (u64, u64)) {
            let [a, b] = [a, b].map(|(ms, seq)| Position { ms, seq });
            let (packed, other) = (PackedPosition::not_before(a), PackedPosition::not_before(b));
            prop_assert!(packed.position() >= a);
            prop_assert!(a > b || packed <= other);
        }

        #[test]
        fn exact_for_usual_positions(ms in 0..1_u64 << 43, seq in 0..1_u64 << 20) {
            let position = Position { ms, seq };
            prop_assert_eq!(PackedPosition::not_before(position).position(), position);
        }
    }
}

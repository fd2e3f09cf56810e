//! Why a live session loses a room without having asked for it.

/// The `reason` label of `roomcast_memberships_lost_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipLoss {
    /// Its new token does not give the room.
    Token,
    /// New rules do not.
    Rules,
}

impl MembershipLoss {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Token, Self::Rules];

    /// Its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Rules => "rules",
        }
    }
}

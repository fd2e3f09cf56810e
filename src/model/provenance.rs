//! Why a session is in a room. When its token changes, this says who decides again (docs/rules.md).

/// Why a session is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Provenance {
    /// A rule with `join = "auto"`.
    Auto,
    /// A rule lets the client in, which asked for it.
    Rule,
    /// The token's rooms claim.
    Grant,
    /// The backend was asked about this room, by a rule with `join = "ask"`.
    Asked,
    /// The backend's answer to a forwarded event.
    Answered,
    /// A command of the backend, `/join`.
    Command,
}

impl Provenance {
    const ALL: [Self; 6] = [Self::Auto, Self::Rule, Self::Grant, Self::Asked, Self::Answered, Self::Command];
    /// Bits that hold one.
    pub const BITS: u32 = 3;

    /// Whether a token brings such rooms by itself.
    pub fn is_of_token(self) -> bool {
        matches!(self, Self::Auto | Self::Grant)
    }

    /// From its discriminant; other numbers do not occur.
    pub fn from_bits(bits: u32) -> Self {
        Self::ALL.get(bits as usize).copied().unwrap_or(Self::Answered)
    }

    /// Its name, for operators.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Rule => "rule",
            Self::Grant => "grant",
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Command => "command",
        }
    }

    /// One character, for session records.
    pub fn code(self) -> char {
        match self {
            Self::Auto => 'a',
            Self::Rule => 'r',
            Self::Grant => 'g',
            Self::Asked => 'q',
            Self::Answered => 'e',
            Self::Command => 'c',
        }
    }

    /// From [`Self::code`]. A code of a newer release counts as the backend's answer, which no rule confirms.
    pub fn from_code(code: char) -> Self {
        Self::ALL.into_iter().find(|known| known.code() == code).unwrap_or(Self::Answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_back_as_written() {
        for one in Provenance::ALL {
            assert_eq!((Provenance::from_bits(one as u32), Provenance::from_code(one.code())), (one, one));
            assert!((one as u32) < 1 << Provenance::BITS);
        }
        assert_eq!(
            (Provenance::from_code('?'), Provenance::from_bits(7)),
            (Provenance::Answered, Provenance::Answered)
        );
    }
}

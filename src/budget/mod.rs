//! What belongs to all, with an owner for each share: the memory of the node, and what one user, one anonymous address or one
//! tenant may use of it.
//!
//! [`MemoryBudget`] counts what is held for clients by its [`Holding`] and compares it with `limits.memory`. [`Accounts`] has
//! one [`Account`] for each user with connections here: how many, and how fast they send and join. Nothing here waits or
//! reads a clock: whoever asks says what time it is, and does what follows from the answer.

pub mod account;
pub mod accounts;
pub mod machine;
pub mod memory;
pub mod pace;
pub mod relief;
pub mod sign_ins;

pub use account::{Account, AccountPermit};
pub use accounts::Accounts;
pub use memory::{Held, Holding, Level, MemoryBudget};

//! Whether entries that were read are of the epoch that the tail knows.
//!
//! Redis says that the epoch was changed before it sends what it read from then on. So where it says so (`CLIENT CACHING`),
//! the epoch is read once, and again when it was changed; otherwise with every page.

use crate::log::redis::keys::Keys;
use crate::model::offset::Epoch;
use crate::redis::command::CommandWriter;
use crate::redis::connection::RedisConnection;
use crate::redis::direct::Replies;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use crate::redis::resp::Token;

#[derive(Default)]
pub(super) struct EpochWatch {
    /// Whether Redis says when the epoch was changed.
    is_tracked: bool,
    /// Whether it was read and not changed since.
    is_known: bool,
}

impl EpochWatch {
    /// Begins on a connection.
    pub(super) fn new(is_tracked: bool) -> Self {
        Self { is_tracked, is_known: false }
    }

    /// The epoch is to be read again.
    pub(super) fn forget(&mut self) {
        self.is_known = false;
    }

    /// Adds the commands that read the epoch, unless it is known. How many they are.
    pub(super) fn ask(&self, keys: &Keys, commands: &mut Vec<u8>) -> usize {
        if self.is_known {
            return 0;
        }
        if self.is_tracked {
            CommandWriter::write(commands, &["CLIENT", "CACHING", "YES"]);
        }
        CommandWriter::write(commands, &["GET", &keys.epoch]);
        1 + usize::from(self.is_tracked)
    }

    /// The epoch after these replies, of which the last ones answer [`EpochWatch::ask`]. `epoch` is the one that was read last.
    pub(super) async fn after(
        &mut self,
        replies: &Replies,
        epoch: Epoch,
        keys: &Keys,
        connection: &mut RedisConnection,
    ) -> Result<Option<String>, RedisError> {
        let is_changed = connection.take_changed();
        let known = format!("{:x}", epoch.0);
        if std::mem::take(&mut self.is_known) {
            if is_changed {
                let epoch = connection.call(redis::cmd("GET").arg(&keys.epoch)).await?;
                return Ok(text(&epoch).map(ToOwned::to_owned));
            }
            self.is_known = true;
            return Ok(Some(known));
        }
        let mut sent = replies.last_two().into_iter().map(|reply| reply.and_then(|mut tokens| tokens.next()));
        // Without the right to it, nobody says when what was read is changed.
        self.is_tracked &= sent.next().flatten() == Some(Token::Simple(b"OK"));
        let epoch = match sent.next().flatten() {
            Some(Token::Bulk(epoch)) => std::str::from_utf8(epoch).ok(),
            Some(Token::Error(error)) => return Err(RedisError::of_reply(error)),
            _ => None,
        };
        self.is_known = self.is_tracked && !is_changed && epoch == Some(&known);
        Ok(epoch.map(ToOwned::to_owned))
    }
}

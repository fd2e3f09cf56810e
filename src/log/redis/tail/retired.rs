//! Following a stream that was renewed: the rest of the old one is delivered before the new one is read.

use crate::log::redis::generation::{Observed, TailState, successor};
use crate::log::redis::tail::Tail;
use crate::log::redis::{careful_read, epoch, reply};
use crate::model::offset::Epoch;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;

impl Tail<'_> {
    /// Delivers what is left in the streams between this tail's and the present one. Whether nothing of them is missing:
    /// then the state is that of a tail at the beginning of the present stream.
    pub(super) async fn follow_renewals(
        &mut self,
        connection: &mut RedisConnection,
        present: Epoch,
    ) -> Result<bool, RedisError> {
        while let Some(state) = &self.state
            && state.epoch != present
        {
            let is_whole = self.read_retired(connection).await?;
            let Some(state) = self.state.as_mut().filter(|_| is_whole) else { return Ok(false) };
            *state = TailState::renewed(successor(state.epoch));
        }
        Ok(self.state.is_some())
    }

    /// Delivers what is left in the retired stream of this tail's epoch. Whether it is there and nothing of it is missing.
    async fn read_retired(&mut self, connection: &mut RedisConnection) -> Result<bool, RedisError> {
        let key = self.log.keys.retired(self.offset().epoch);
        if !self.is_same(connection, &key).await? {
            return Ok(false);
        }
        loop {
            let count = self.page.count();
            let position = self.offset().position;
            let read = match self.page.is_careful() {
                true => careful_read::after(self.log, connection, &key, position, count).await,
                false => {
                    let mut command = redis::cmd("XREAD");
                    command.arg("COUNT").arg(count).arg("STREAMS").arg(&key).arg(position.to_string());
                    connection.call(&command).await.and_then(reply::read_entries)
                }
            };
            let entries = read?;
            self.page.proceed();
            if entries.is_empty() {
                // It may have expired meanwhile.
                return self.is_same(connection, &key).await;
            }
            let page = self.take_all(&entries);
            self.deliver(page).await;
        }
    }

    /// Whether a stream has all that this tail has not read.
    async fn is_same(&self, connection: &mut RedisConnection, key: &str) -> Result<bool, RedisError> {
        let Some(state) = &self.state else { return Ok(false) };
        let expected = state.last_read.as_slice();
        let Some(stream) = epoch::observe_stream(connection, key, expected).await? else { return Ok(false) };
        let observed = Observed { epoch_text: format!("{:x}", state.epoch.0), stream: Some(stream) };
        Ok(state.discontinuity(&observed).is_none())
    }
}

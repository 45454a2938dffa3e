//! One archive's parts, on their way to all its storages at once.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::catalog::list::Place;
use crate::stage;
use crate::storage::{Error, Upload};

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
            join_all(uploads.iter_mut().map(|upload| send(upload, part.clone()))).await;
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
        Ok(key) => place.store().upload(&key).await,
        Err(error) => Err(error),
    };
    Uploaded { place, result }
}

async fn send(upload: &mut Uploaded, part: Bytes) {
    let Ok(open) = &mut upload.result else { return };
    if let Err(error) = open.part(part).await
        && let Ok(open) = std::mem::replace(&mut upload.result, Err(error))
    {
        open.abort().await;
    }
}

/// Removes what was sent of an archive that is not to be.
pub(super) async fn abandon(uploads: Vec<Uploaded>) {
    join_all(
        uploads
            .into_iter()
            .filter_map(|upload| upload.result.ok())
            .map(|open| open.abort()),
    )
    .await;
}

//! One archive's parts, on their way to all its storages at once.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc::Receiver;

use super::relay::{Relay, Route};
use crate::catalog::list::Place;

/// Gives every part to every storage. One that fails is left behind, and the others go on; when none is left, or it is
/// stopped, the channel is closed, which stops the packer. The storages may be at work still when this has ended.
pub(super) async fn upload(
    places: Vec<Place>,
    mut parts: Receiver<Bytes>,
    route: Route,
) -> Vec<Relay> {
    let start = |place| Relay::start(place, route.clone());
    let mut relays: Vec<Relay> = places.into_iter().map(start).collect();
    while relays.iter().any(Relay::is_open) {
        let giving = async {
            let part = parts.recv().await?;
            join_all(relays.iter_mut().map(|relay| relay.take(part.clone()))).await;
            Some(())
        };
        tokio::select! {
            given = giving => if given.is_none() { break },
            () = route.stop.cancelled() => break,
        }
    }
    for relay in &mut relays {
        relay.end();
    }
    relays
}

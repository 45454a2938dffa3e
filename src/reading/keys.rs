//! Reading one copy of a backup key by key: what is to be known when that fails is whether another copy may do.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::{Error, read_async};
use crate::catalog::selector::Subject;
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::{Keys, inbound};
use crate::rdb::value::DecodeError;
use crate::rdb::{DbIndex, Event, Handler, ScanError};
use crate::selection::{KeyNames, shown};

/// Why a copy of a backup was not read.
#[derive(Clone, Debug)]
pub enum Unread {
    /// It is not whole, or its storage does not give it: another copy may do.
    Copy(Failure),
    /// Anything else: no other copy would help.
    Other(Failure),
}

impl<E: Into<Failure>> From<Error<E>> for Unread {
    fn from(error: Error<E>) -> Unread {
        let of_copy = match &error {
            Error::Open(_) => true,
            Error::Panicked => false,
            Error::Read { error, .. } => match error {
                inbound::Error::Storage(_) | inbound::Error::Damaged(_) => true,
                inbound::Error::Consumer(ScanError::File(_)) => true,
                inbound::Error::Consumer(ScanError::Handler(_)) => false,
                inbound::Error::Key(_) | inbound::Error::Thread(_) => false,
            },
        };
        match of_copy {
            true => Unread::Copy(error.into()),
            false => Unread::Other(error.into()),
        }
    }
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Unread {
        Unread::Other(failure)
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Failure {
        match unread {
            Unread::Copy(failure) | Unread::Other(failure) => failure,
        }
    }
}

/// The failure of a value that passed as bytes and can't be decoded, for those who are shown the names of keys.
pub fn damaged_value(db: DbIndex, key: &[u8], error: &DecodeError) -> Failure {
    let key = shown(key, KeyNames::Shown);
    let message = format!("the value of the key {key} in database {db} is damaged");
    Failure::new(Kind::Damaged, message)
        .caused_by(error)
        .hint("take another backup, or leave the key out with --exclude")
}

/// Reads all of a copy, until it is told to stop by a token.
///
/// After a damaged value it reads on: only at the end it is known whether the copy is what was written, and so whether
/// another one may have the value whole.
///
/// # Errors
/// It can't be read whole, or the handler wants no more.
pub async fn read_keys<H>(
    subject: Subject,
    keys: Keys,
    handler: H,
    meter: Meter,
    cancel: CancellationToken,
) -> Result<H, Unread>
where
    H: Handler<Error = Failure> + Send + 'static,
{
    let damaged = Arc::new(OnceLock::new());
    let watched = Watched {
        inner: handler,
        cancel: cancel.clone(),
        bytes: 0,
        damaged: Arc::clone(&damaged),
    };
    let read = read_async(subject, keys, watched, meter).await;
    let damaged = damaged.get().cloned();
    match read {
        Ok((watched, _)) => {
            // What came last may have been too little to look at the token.
            may_go_on(&cancel)?;
            damaged.map_or(Ok(watched.inner), |damaged| Err(damaged.into()))
        }
        Err(error) => Err(match (Unread::from(error), damaged) {
            (Unread::Copy(failure), Some(damaged)) => Unread::Copy(failure.cause(damaged.message)),
            (unread, _) => unread,
        }),
    }
}

fn may_go_on(cancel: &CancellationToken) -> Result<(), Failure> {
    match cancel.is_cancelled() {
        false => Ok(()),
        true => Err(Failure::interrupted()),
    }
}

/// The token is looked at every so many bytes.
const ATTENTION: usize = 1 << 20;

/// A handler that stops before long when a token says so, whatever the file holds, and that hears of nothing more when
/// it has found damage.
#[derive(Debug)]
struct Watched<H> {
    inner: H,
    cancel: CancellationToken,
    bytes: usize,
    /// The first damage.
    damaged: Arc<OnceLock<Failure>>,
}

impl<H: Handler<Error = Failure>> Handler for Watched<H> {
    type Error = Failure;

    #[inline]
    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        self.bytes += event.raw().len();
        if self.bytes >= ATTENTION {
            self.bytes = 0;
            may_go_on(&self.cancel)?;
        }
        if self.damaged.get().is_some() {
            return Ok(());
        }
        match self.inner.event(event) {
            Err(failure) if failure.kind == Kind::Damaged => {
                self.damaged.get_or_init(|| failure);
                Ok(())
            }
            other => other,
        }
    }
}

//! A backup of which several storages have a copy: when one can't be read, the next is taken.

use std::fmt;

use super::args::{IdentityArg, StorageArg};
use super::backup::{find_copies, keys_of, storage_name};
use super::context::App;
use crate::catalog::selector::Subject;
use crate::failure::{Failure, Kind};
use crate::pipeline::Keys;
use crate::reading::Unread;
use crate::setup;

/// The copies of a backup, the nearest first, and the keys that may open them.
pub(super) struct Copies<'a> {
    app: &'a App,
    copies: Vec<Subject>,
    given: Option<Keys>,
}

impl<'a> Copies<'a> {
    /// Finds those that a selector means.
    pub(super) async fn find(
        app: &'a App,
        selector: &str,
        storage: &StorageArg,
        identity: &IdentityArg,
    ) -> Result<Copies<'a>, Failure> {
        let given = identity.identity.as_deref();
        let given = given.map(setup::identity).transpose()?;
        let storage = storage_name(storage);
        let finding = find_copies(app, selector, storage.as_deref());
        Ok(Copies {
            app,
            copies: app.stoppable(finding).await?,
            given,
        })
    }

    /// The nearest.
    pub(super) fn nearest(&self) -> Result<Subject, Failure> {
        self.copies.first().cloned().ok_or_else(none)
    }

    /// The keys that may open one of them.
    pub(super) fn keys(&self, copy: &Subject) -> Keys {
        keys_of(self.app, copy, self.given.as_ref())
    }

    /// Leaves out what is far away.
    pub(super) fn only_on_this_host(&mut self) {
        self.copies.retain(|copy| match copy {
            Subject::Stored(backup) => !backup.place.store().is_remote(),
            Subject::File(_) => true,
        });
    }

    /// Does the work with the nearest copy that can be read, as long as it `may_begin_again`.
    pub(super) async fn with_nearest<T>(
        self,
        may_begin_again: impl Fn() -> bool,
        mut work: impl AsyncFnMut(Subject, Keys) -> Result<T, Unread>,
    ) -> Result<T, Failure> {
        let several = self.copies.len() > 1;
        let mut copies = self.copies.iter().peekable();
        let mut first = None;
        while let Some(copy) = copies.next() {
            let storage = copy.storage().map(str::to_owned);
            let keys = self.keys(copy);
            let mut failure = match work(copy.clone(), keys).await {
                Ok(done) => return Ok(done),
                Err(Unread::Other(failure)) => return Err(failure),
                Err(Unread::Copy(failure)) => failure,
            };
            // Of several copies it has to be known which one is meant.
            if let (true, Some(storage)) = (several, storage) {
                failure = failure.cause(format!("it lies in storage {storage}"));
            }
            if let Some(other) = copies.peek() {
                if !may_begin_again() {
                    return Err(failure.hint(elsewhere(other)));
                }
                tracing::warn!("{}; another copy is taken", Told(&failure));
            }
            first.get_or_insert(failure);
        }
        Err(first.unwrap_or_else(none))
    }
}

fn none() -> Failure {
    Failure::new(Kind::NotFound, "there is no such backup")
}

/// Where another copy is.
fn elsewhere(other: &Subject) -> String {
    let storage = other.storage().unwrap_or_default();
    format!("storage {storage} has another copy: add `--storage {storage}`")
}

/// A failure in one line.
struct Told<'a>(&'a Failure);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.message, self.0.causes.join(": "))
    }
}

//! The server's own compression (`rdbcompression`), off while it makes a dump, and put back.
//!
//! The child that writes the file keeps the setting that it was forked with, so it is off only until the file is
//! saved or begins to come. What is to be put back is recorded before it is changed (`record`), for this process may
//! be killed in between: whoever works with the server next puts it back. A record is also the lock by which the
//! dumps of one server that are made at once know of each other: the last to end puts it back. It is put back only
//! where it still is `no`, and nothing is ever written into the server's configuration file.

mod record;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{sleep, timeout};

use crate::server::{self, Control, Endpoint, Facts};
use crate::stage;

use super::error::chain;
use record::{Entry, Held, Record};

/// The server's parameter, and its value that is off.
const NAME: &str = "rdbcompression";
const OFF: &str = "no";

/// How long somebody else of this host may take to turn it off or on, before we go on without.
const OTHERS: Duration = Duration::from_secs(10);
/// How often we look whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// How long it may take to put it back; less when the run was stopped.
const BACK: Duration = Duration::from_secs(10);
const BACK_STOPPED: Duration = Duration::from_secs(2);

/// Why it can't be turned off or put back.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The server does not let us, or broke off.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// The server has no such parameter.
    #[error("the server has no {NAME}")]
    Unknown,
    /// The record can't be kept.
    #[error("what is to be put back cannot be kept in {folder}")]
    Record {
        folder: String,
        #[source]
        source: std::io::Error,
    },
    /// Others of this host are at it all the time.
    #[error("another run on this host has been changing it for {OTHERS:?}")]
    Busy,
    /// It took too long.
    #[error("the server did not answer in time")]
    Late,
}

/// Turned off, for as long as this lives or its process does. [`Off::put_back`] is its end.
#[derive(Debug)]
pub(super) struct Off {
    held: Held,
    endpoint: Box<Endpoint>,
}

/// What came of turning it off.
#[derive(Debug, Default)]
pub(super) enum State {
    /// It was not tried.
    #[default]
    Untouched,
    /// It was off anyway, or cannot be turned off.
    Left,
    /// It is off.
    Off(Off),
}

/// Turns it off. Gives a warning where that cannot be done: the dump is as good with it.
pub(super) async fn turn_off(
    state: &mut State,
    state_dir: &Path,
    control: &mut Control,
    endpoint: &Endpoint,
    facts: &Facts,
) -> Option<String> {
    if !matches!(state, State::Untouched) {
        return None;
    }
    *state = State::Left;
    let place = endpoint.place();
    match try_turn_off(state, state_dir, control, endpoint, facts).await {
        Ok(()) => None,
        Err(trouble) => Some(format!(
            "the compression of {place} stays as it is: {}",
            chain(&trouble)
        )),
    }
}

async fn try_turn_off(
    state: &mut State,
    state_dir: &Path,
    control: &mut Control,
    endpoint: &Endpoint,
    facts: &Facts,
) -> Result<(), Trouble> {
    let folder = record::folder(state_dir);
    let unkept = |source| Trouble::Record {
        folder: folder.display().to_string(),
        source,
    };
    let off = |held| {
        State::Off(Off {
            held,
            endpoint: Box::new(endpoint.clone()),
        })
    };
    let looking = async {
        loop {
            match record::enter(&folder, &facts.run_id).map_err(unkept)? {
                Entry::Alone(held) | Entry::Joined(held) => return Ok::<Held, Trouble>(held),
                Entry::Busy => sleep(LOOK).await,
            }
        }
    };
    let mut held: Held = timeout(OTHERS, looking)
        .await
        .map_err(|_| Trouble::Busy)??;
    if !held.is_alone() {
        *state = off(held);
        return Ok(());
    }
    let was = match held.record().map(|record| record.was) {
        // Of a run that was killed since we looked.
        Some(was) => was,
        None => match value(control).await {
            Ok(was) => was,
            Err(trouble) => {
                held.remove();
                return Err(trouble);
            }
        },
    };
    if was == OFF {
        held.remove();
        return Ok(());
    }
    let at_s = now_s();
    let record = Record {
        run_id: facts.run_id.clone(),
        address: endpoint.place(),
        was,
        at_s,
    };
    if let Err(source) = held.write(&record) {
        held.remove();
        return Err(unkept(source));
    }
    stage::reached("compression-recorded");
    // From here on whatever ends us leaves the record: it is not known whether the server has heard.
    *state = off(held);
    let set = set(control, OFF).await;
    stage::reached("compression-off");
    if let State::Off(off) = state {
        match set {
            Ok(()) => off.held.share(),
            // It said no, so there is nothing to put back. Without an answer nobody knows.
            Err(error) if error.code().is_some() => {
                off.held.remove();
                *state = State::Left;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    tracing::debug!("the server's own compression is off");
    Ok(())
}

async fn value(control: &mut Control) -> Result<String, Trouble> {
    control.config_get(NAME).await?.ok_or(Trouble::Unknown)
}

async fn set(control: &mut Control, value: &str) -> Result<(), server::Error> {
    let _ok: redis::Value = control.call(&["CONFIG", "SET", NAME, value]).await?;
    Ok(())
}

impl Off {
    /// Puts it back, unless another dump of the server still goes on: that one will. Gives a warning where it cannot be.
    pub(super) async fn put_back(mut self, stopped: bool) -> Option<String> {
        if !self.held.take_alone() {
            return None;
        }
        let limit = if stopped { BACK_STOPPED } else { BACK };
        let (held, endpoint) = (&mut self.held, &self.endpoint);
        let work = async {
            let mut control = endpoint.control().await?;
            let facts = control.info().await?;
            put_back(held, &mut control, &facts).await
        };
        let result = timeout(limit, work).await;
        match result.unwrap_or(Err(Trouble::Late)) {
            Ok(_) => None,
            Err(trouble) => Some(format!(
                "{NAME} of {} could not be put back: {}; the next backup of this server does it",
                endpoint.place(),
                chain(&trouble)
            )),
        }
    }
}

/// Puts back what is recorded, to the server that it is recorded for. Gives the value that was put back.
async fn put_back(
    held: &mut Held,
    control: &mut Control,
    facts: &Facts,
) -> Result<Option<String>, Trouble> {
    let record = held.record().filter(|record| record.run_id == facts.run_id);
    let mut put = None;
    // Another process begins with what its configuration file says.
    if let Some(record) = record
        && value(control).await? == OFF
    {
        set(control, &record.was).await?;
        put = Some(record.was);
        stage::reached("compression-back");
    }
    held.remove();
    Ok(put)
}

/// Puts back what a run that was killed has left off on this server. Gives what a person should know of it.
pub(super) async fn recover(
    state_dir: &Path,
    control: &mut Control,
    place: &str,
    facts: &Facts,
) -> Option<String> {
    let folder = record::folder(state_dir);
    for record in record::all(&folder) {
        if record.run_id == facts.run_id {
            // Where it is held a dump goes on, which will put it back.
            let Some(mut held) = record::enter_left(&folder, &record.run_id) else {
                continue;
            };
            return match put_back(&mut held, control, facts).await {
                Ok(Some(was)) => Some(format!(
                    "{NAME} of {place} is {was} again: a backup that was killed had left it off"
                )),
                Ok(None) => None,
                Err(trouble) => Some(format!(
                    "{NAME} of {place} was left off by a backup that was killed, and could not be put back to {}: {}",
                    record.was,
                    chain(&trouble)
                )),
            };
        }
        if record.address == place
            && began_since(facts, record.at_s)
            && let Some(mut held) = record::enter_left(&folder, &record.run_id)
        {
            held.remove();
        }
    }
    None
}

/// What a run that was killed has left off on this server, and nobody is at.
pub(super) fn left_off(state_dir: &Path, facts: &Facts) -> Option<String> {
    let folder = record::folder(state_dir);
    let mut all = record::all(&folder).into_iter();
    let record = all.find(|record| record.run_id == facts.run_id)?;
    record::enter_left(&folder, &record.run_id)?;
    Some(format!(
        "{NAME} was left off by a backup that was killed; the next one puts it back to {}",
        record.was
    ))
}

/// Whether this server was started after a moment. One that runs for longer is not the restarted one, but another that
/// has taken its address over.
fn began_since(facts: &Facts, at_s: u64) -> bool {
    let up: Option<u64> = facts
        .get("uptime_in_seconds")
        .and_then(|text| text.parse().ok());
    up.is_some_and(|up| up <= now_s().saturating_sub(at_s))
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Puts back what runs that were killed have left off on these servers. Where nothing is recorded no server is asked.
pub async fn recover_all(state_dir: &Path, endpoints: &[Endpoint]) -> Vec<String> {
    let folder = record::folder(state_dir);
    let mut told = Vec::new();
    for endpoint in endpoints {
        if record::all(&folder).is_empty() {
            break;
        }
        let Ok(mut control) = endpoint.control().await else {
            continue;
        };
        if let Ok(facts) = control.info().await {
            told.extend(recover(state_dir, &mut control, &endpoint.place(), &facts).await);
        }
    }
    told
}

/// Whether a user may turn it off and on, tried in a form that changes nothing; `Err` says what is in the way.
pub(super) async fn may(control: &mut Control) -> Result<(), String> {
    if let Err(trouble) = value(control).await {
        return Err(chain(&trouble));
    }
    // No server takes this value, and the ACL is asked before the value is looked at.
    match set(control, "rdbkeeper-probe").await {
        Err(error) if error.code() == Some(&server::Code::Err) => Ok(()),
        Err(error) => Err(chain(&error)),
        Ok(()) => Ok(()),
    }
}

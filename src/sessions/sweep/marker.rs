//! Markers of live sessions: what would be deleted is asked for its marker, and spared while that stands.
//!
//! Whoever acts asks again, in one step with the deletion. Asked only there, such a session would be announced by
//! every dry run and be found changed by every run that follows, for ever.

use super::Mode;
use super::guard::{Server, is_refused};
use super::look::Key;
use crate::server;
use crate::sessions::{Action, Decision, Reason};

/// Asks for the marker of every key that is to be deleted and has one beside it.
pub(super) async fn spare(
    server: &mut Server,
    mode: Mode,
    keys: &mut [Key],
) -> Result<(), server::Error> {
    let mut asked: Vec<&mut Key> = Vec::new();
    for key in keys {
        if key.deletes() && key.companions.is_some() {
            asked.push(key);
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let wire = server.pipe.now().await?;
    for companions in asked.iter().filter_map(|key| key.companions.as_ref()) {
        wire.queue(&[b"EXISTS", &companions.marker]);
    }
    wire.flush().await?;
    let mut failed = None;
    // Every answer is read, for the next question would get what is left.
    for key in asked {
        match wire.reply().await?.ok("EXISTS") {
            Ok(reply) if reply.as_int() == Some(0) => {}
            Ok(_) => {
                key.decision = Some(Decision {
                    action: Action::Leave,
                    reason: Reason::MarkerLive,
                });
            }
            // A report needs no more than reading.
            Err(error) if mode == Mode::Report && is_refused(&error) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

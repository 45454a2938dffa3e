//! What is done on a live target before the first key is written.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::plan::{LibraryFate, LibraryPlan};
use super::survey::Library;
use crate::failure::Failure;
use crate::server::Endpoint;
use crate::target::{Error, TargetFacts};

/// Empties databases. Their memory is given back behind the scenes; where there is a limit to it, that is awaited.
pub(super) async fn flush(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    databases: &[u32],
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    if databases.is_empty() {
        return Ok(());
    }
    let wrap = |source| Error::target(&facts.place, source);
    let mut wire = endpoint.wire().await.map_err(wrap)?;
    for db in databases {
        wire.call(&[b"SELECT", db.to_string().as_bytes()])
            .await
            .map_err(wrap)?;
        // ASYNC is of Redis 4.0.
        let asynchronous: &[&[u8]] = &[b"FLUSHDB", b"ASYNC"];
        let words = if facts.info.version.0 >= 4 {
            asynchronous
        } else {
            &asynchronous[..1]
        };
        wire.call(words).await.map_err(wrap)?;
    }
    // Without a limit there is nothing to wait for.
    let mut waiting = facts.info.maxmemory > 0;
    while waiting {
        let text = wire
            .call(&[b"INFO", b"memory"])
            .await
            .map_err(wrap)?
            .into_bytes()
            .unwrap_or_default();
        let info = crate::server::Facts::parse(&String::from_utf8_lossy(&text));
        let pending = info
            .get("lazyfree_pending_objects")
            .is_some_and(|pending| pending != "0");
        waiting = pending && !cancel.is_cancelled();
        if waiting {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Loads the function libraries that the plan says. Returns how many.
pub(super) async fn load(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    libraries: &[Library],
    plans: &[LibraryPlan],
) -> Result<u64, Failure> {
    let wanted: Vec<(&Library, LibraryFate)> = libraries
        .iter()
        .zip(plans)
        .map(|(library, plan)| (library, plan.fate))
        .filter(|(_, fate)| matches!(fate, LibraryFate::Load | LibraryFate::Replace))
        .collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let mut wire = endpoint
        .wire()
        .await
        .map_err(|source| Error::target(&facts.place, source))?;
    for (library, fate) in &wanted {
        let mut words: Vec<&[u8]> = vec![b"FUNCTION", b"LOAD"];
        if *fate == LibraryFate::Replace {
            words.push(b"REPLACE");
        }
        words.push(&library.code);
        wire.call(&words).await.map_err(|source| Error::Function {
            place: facts.place.clone(),
            name: library.name.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(wanted.len() as u64)
}

//! What a server is, what this user may ask it, and whether a sweep of it is refused.

use super::error::{Error, Guard};
use super::idle::{self, Abilities, Look, Memory, Trusted};
use super::pipe::Pipe;
use super::{Job, Mode};
use crate::server::info::{Role, Version};
use crate::server::{self, Code, Facts};

/// A server that may be swept, with the connection to it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) pipe: Pipe,
    /// The database that is selected.
    pub(super) db: u32,
    /// INFO; `None` where it is refused.
    pub(super) facts: Option<Facts>,
    /// PEXPIRETIME, from 7.0 on.
    pub(super) pexpiretime: bool,
    /// EVAL works.
    pub(super) scripts: bool,
    /// TIME works.
    pub(super) clock: bool,
    /// For rules with `idle`.
    pub(super) idle: Option<Trusted>,
    /// Its time when it was looked at.
    pub(super) now_ms: i64,
}

/// Unix time in milliseconds by this machine's clock.
pub(super) fn own_clock() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Whether a command is refused to this user or unknown to this server.
pub(super) fn is_refused(error: &server::Error) -> bool {
    matches!(error.code(), Some(Code::NoPerm | Code::Err))
}

/// Connects, and looks whether this server may be swept.
pub(super) async fn open(job: &Job, warnings: &mut Vec<String>) -> Result<Server, Error> {
    let place = job.endpoint.place();
    let failed = |source| Error::server(&place, "look at the server", source);
    let report = job.mode == Mode::Report;
    let mut wire = job.endpoint.wire().await.map_err(failed)?;

    let before = wire.call(&[b"TIME"]).await;
    let before_ms = match before {
        Ok(reply) => Some(reply.as_time_ms().ok_or_else(|| {
            failed(server::Error::Unexpected {
                command: "TIME".to_owned(),
            })
        })?),
        Err(error) if report && is_refused(&error) => {
            warn(
                warnings,
                "TIME is refused to this user: this machine's clock has to do",
            );
            None
        }
        Err(error) => return Err(failed(error)),
    };
    let facts = match wire.call(&[b"INFO"]).await {
        Ok(reply) => {
            let text = reply.into_bytes().unwrap_or_default();
            Some(Facts::parse(&String::from_utf8_lossy(&text)))
        }
        Err(error) if report && is_refused(&error) => {
            warn(
                warnings,
                "INFO is refused to this user: the server's version and role are not known",
            );
            None
        }
        Err(error) => return Err(failed(error)),
    };
    if let Some(facts) = &facts {
        if facts.role == Role::Replica && !report {
            forget(job)?;
        }
        suitable(facts, &place, report, warnings)?;
    }
    let at_least = |version| {
        facts
            .as_ref()
            .is_some_and(|f| f.is_at_least(version, version))
    };
    let mut no_touch = at_least(Version(7, 2, 0));
    if no_touch && let Err(error) = wire.call(&[b"CLIENT", b"NO-TOUCH", b"ON"]).await {
        if error.is_disconnect() {
            return Err(failed(error));
        }
        no_touch = false;
        if report {
            tracing::debug!(%error, "CLIENT NO-TOUCH");
        } else {
            warn(
                warnings,
                "CLIENT NO-TOUCH is refused to this user: values that are read count as used",
            );
        }
    }
    let mut scripts = !report;
    if scripts && let Err(error) = wire.call(&[b"EVAL", b"return 1", b"0"]).await {
        if !is_refused(&error) {
            return Err(failed(error));
        }
        scripts = false;
    }
    let mut server = Server {
        pexpiretime: at_least(Version(7, 0, 0)),
        scripts,
        clock: before_ms.is_some(),
        idle: None,
        now_ms: before_ms.unwrap_or_else(own_clock),
        facts,
        pipe: Pipe::new(wire),
        db: 0,
    };
    if job.rules.iter().any(|rule| rule.idle) {
        match trusted(job, &mut server, no_touch, warnings).await {
            Ok(trusted) => server.idle = Some(trusted),
            Err(Error::Idle { guard, .. }) if report => warn(
                warnings,
                &format!("`idle` cannot be trusted now, and nothing counts as idle: {guard}"),
            ),
            Err(error) => return Err(error),
        }
    }
    Ok(server)
}

/// Refuses what a sweep must not touch; a report only warns.
fn suitable(
    facts: &Facts,
    place: &str,
    report: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let place = place.to_owned();
    if facts.loading {
        return Err(Error::Loading { place });
    }
    if facts.role == Role::Replica {
        if !report {
            let primary = facts.get("master_host").zip(facts.get("master_port"));
            return Err(Error::Replica {
                place,
                primary: primary.map(|(host, port)| format!("{host}:{port}")),
            });
        }
        warn(
            warnings,
            "this is a replica: `sessions expire` works on its primary",
        );
        if !facts.master_link_up {
            warn(
                warnings,
                "its link to its primary is down: what it has may be old",
            );
        }
    }
    if facts.cluster_enabled {
        if !report {
            return Err(Error::Cluster { place });
        }
        warn(
            warnings,
            "this is a node of a cluster: only its own keys are seen, and `sessions expire` refuses it",
        );
    }
    Ok(())
}

/// Forgets what is known of the server's idle times: what is read while it is a replica it does not see.
fn forget(job: &Job) -> Result<(), Error> {
    let (Some(state_dir), true) = (&job.state_dir, job.rules.iter().any(|rule| rule.idle)) else {
        return Ok(());
    };
    let memory = Memory::of(state_dir, &job.name);
    memory.forget().map_err(|source| Error::State {
        path: memory.path,
        source,
    })
}

/// Idle times, as far as they can be trusted here. What is seen of the server's forks is kept before it is judged.
async fn trusted(
    job: &Job,
    server: &mut Server,
    no_touch: bool,
    warnings: &mut Vec<String>,
) -> Result<Trusted, Error> {
    let place = job.endpoint.place();
    let refused = |guard| Error::Idle {
        place: place.clone(),
        guard,
    };
    let report = job.mode == Mode::Report;
    let Some(facts) = &server.facts else {
        return Err(refused(Guard::ForksUncounted));
    };
    if facts.role == Role::Replica {
        return Err(refused(Guard::Replica));
    }
    let after_ms = match server.clock {
        true => {
            let failed = |source| Error::server(&place, "look at the server", source);
            let wire = server.pipe.now().await.map_err(failed)?;
            let reply = wire.call(&[b"TIME"]).await.map_err(failed)?;
            reply.as_time_ms().unwrap_or(server.now_ms)
        }
        false => return Err(refused(Guard::NoClock)),
    };
    let Some(state_dir) = &job.state_dir else {
        return Err(refused(Guard::NoState));
    };
    let memory = Memory::of(state_dir, &job.name);
    let unusable = |source| Error::State {
        path: memory.path.clone(),
        source,
    };
    let look = match Look::of(facts, server.now_ms, after_ms) {
        Ok(look) => look,
        Err(guard) => {
            // Idle times from under such a server are of no use later, either.
            if !report {
                forget(job)?;
            }
            return Err(refused(guard));
        }
    };
    let watch = memory.add(&look).map_err(unusable)?;
    if !report {
        memory.keep(&watch).map_err(unusable)?;
    }
    if facts.connected_replicas > 0 {
        warn(
            warnings,
            "it has replicas: a session that is read there alone looks idle here",
        );
    }
    let abilities = Abilities {
        scripts: server.scripts || report,
        no_touch,
    };
    idle::judge(&job.rules, facts, abilities, watch, &look).map_err(refused)
}

/// Adds a warning that was not given yet.
pub(super) fn warn(warnings: &mut Vec<String>, text: &str) {
    if !warnings.iter().any(|given| given == text) {
        warnings.push(text.to_owned());
    }
}

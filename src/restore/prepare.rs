//! Before a restore: the target is asked, the backup read, and what can be done decided. Nothing is changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::plan::{self, Plan};
use super::{
    Backup, Depth, Holds, OnProgress, Prepared, Request, Stage, before, fit, route_of, settings_of,
    survey_of,
};
use crate::failure::{Failure, Kind};
use crate::rdb::DbIndex;
use crate::server::Endpoint;
use crate::target::Error;
use crate::target::commands::Dialect;
use crate::target::facts::TargetFacts;
use crate::target::live::{self, Conflicts, OnConflict, Ways};
use crate::target::way::{Abilities, May, Mode};

/// Looks at the target and reads the backup, and decides. Changes nothing. What the plan refuses is in the plan; [`Prepared::run`]
/// will not do it.
///
/// # Errors
/// The target can't be asked or is no place to restore to, the backup is damaged, or the request makes no sense for it.
pub async fn prepare<B: Backup>(
    backup: Arc<B>,
    endpoint: Endpoint,
    request: Request,
    progress: OnProgress,
    cancel: CancellationToken,
) -> Result<Prepared<B>, Failure> {
    let decided = decide(backup, endpoint, request, progress, cancel).await;
    decided.map_err(|failure| match failure.kind {
        Kind::Refused | Kind::Unavailable | Kind::Forbidden => failure.cause("nothing was written"),
        _ => failure,
    })
}

async fn decide<B: Backup>(
    backup: Arc<B>,
    endpoint: Endpoint,
    request: Request,
    progress: OnProgress,
    cancel: CancellationToken,
) -> Result<Prepared<B>, Failure> {
    let facts = TargetFacts::of(&endpoint).await?;
    fit::suitable(&facts)?;
    let mut holds = Holds {
        abilities: Abilities {
            mode: request.mode,
            rdb: facts.rdb,
            dialect: Dialect::of(&facts.info, facts.max_bulk),
            restore: May::Yes,
        },
        modules: facts.modules.clone(),
        loss: request.loss,
        depth: Depth::Needed,
    };
    let ask = Ask {
        backup,
        endpoint,
        facts,
        request,
        progress,
        cancel,
    };
    let mut first = None;
    loop {
        match attempt(&ask, &holds, first.as_ref()).await? {
            Attempt::Prepared(prepared) => return Ok(*prepared),
            Attempt::TooShallow => holds.depth = Depth::Everything,
            Attempt::NoRestore(failure) => {
                holds.abilities.restore = May::No;
                first = Some(failure);
            }
        }
    }
}

/// What is to be prepared.
struct Ask<B> {
    backup: Arc<B>,
    endpoint: Endpoint,
    facts: TargetFacts,
    request: Request,
    progress: OnProgress,
    cancel: CancellationToken,
}

/// What came of preparing.
enum Attempt<B> {
    Prepared(Box<Prepared<B>>),
    /// Some streams are too long to go as they are, and more must be known of them before anything is written.
    TooShallow,
    /// The target does not let us RESTORE, for this reason, so that all must go by commands.
    NoRestore(Failure),
}

/// `first`: why RESTORE is not allowed, where that is known.
async fn attempt<B: Backup>(
    ask: &Ask<B>,
    holds: &Holds,
    first: Option<&Failure>,
) -> Result<Attempt<B>, Failure> {
    let Ask {
        backup,
        endpoint,
        facts,
        request,
        progress,
        cancel,
    } = ask;
    let abilities = holds.abilities;
    let mut route = route_of(request, facts.clock.now_ms());
    let now = facts.clock.now_ms();
    let survey = survey_of(
        backup,
        &route,
        Some(now),
        Some(holds.clone()),
        request,
        progress,
        cancel,
    )
    .await?;
    if survey.too_shallow {
        return Ok(Attempt::TooShallow);
    }
    route.snapshot_ms = survey.snapshot_ms;
    route.check_snapshot(now)?;
    fit::known(&route.map, &survey)?;
    if let Some(into) = request.into {
        fit::into_one(&mut route, into, &survey.meant_databases(&request.filters))?;
    }
    let targets = plan::target_databases(&survey, &route);
    let list: Vec<DbIndex> = targets.iter().copied().collect();
    let lacking = facts.lacks(endpoint, &list).await?;
    let mut ingredients = plan::Ingredients {
        place: &facts.place,
        facts: Some(facts),
        lacking: &lacking,
        survey: &survey,
        route: &route,
        on_conflict: request.on_conflict,
        flush: request.flush,
        mode: request.mode,
        loss: request.loss,
        conflicts: None,
    };
    let mut plan = Plan::of(&ingredients);
    let mut forbidden: Option<Failure> = None;
    if plan.refusal.is_none() {
        let place = |first: &Option<(DbIndex, Vec<u8>)>| {
            let first = first.as_ref();
            first.map(|(db, name)| (route.database(*db), name.clone()))
        };
        let wants = before::Wants {
            restore: place(&survey.first_restored),
            commands: place(&survey.first).filter(|_| !survey.by_commands.is_empty()),
            types: &survey.by_commands,
            in_pieces: survey.in_pieces,
            dialect: abilities.dialect,
            flush: plan.flush.keys().copied().collect(),
            functions: plan.loads(),
            looks: request.on_conflict == OnConflict::Fail && !request.flush,
            check: request.check,
        };
        match before::may(endpoint, facts, &wants).await {
            Ok(()) => {}
            Err(error)
                if request.mode == Mode::Auto
                    && abilities.restore == May::Yes
                    && error.refuses("RESTORE") =>
            {
                let mut failure = Failure::from(error);
                if failure.kind != Kind::Forbidden {
                    failure.message = format!("{} knows no RESTORE", facts.place);
                }
                return Ok(Attempt::NoRestore(failure));
            }
            Err(error @ Error::Forbidden { .. }) => {
                forbidden = Some(wants.forbidden(error, first, facts));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let conflicts;
    if forbidden.is_none()
        && plan.refusal.is_none()
        && (request.on_conflict == OnConflict::Fail || request.always_look)
    {
        let occupied: BTreeSet<DbIndex> = targets
            .into_iter()
            .filter(|db| !request.flush && facts.info.keyspace.contains_key(&db.0))
            .collect();
        conflicts = if occupied.is_empty() {
            Conflicts::default()
        } else {
            let settings = settings_of(request, Stage::Looking, plan.keys, progress, cancel);
            let reader = Arc::clone(backup);
            let read = move |handler| reader.read(handler).map(|(handler, _)| handler);
            live::look(endpoint, facts, &route, occupied, &settings, read).await?
        };
        ingredients.conflicts = Some(&conflicts);
        plan = Plan::of(&ingredients);
    }
    if let Some(first) = first {
        let why = &first.message;
        plan.warnings
            .push(format!("{why}: the keys are written by plain commands"));
    }
    if let Some(failure) = forbidden {
        plan.refuse(failure);
    }
    let largest = survey.scales.largest();
    let libraries = survey.libraries;
    Ok(Attempt::Prepared(Box::new(Prepared {
        backup: Arc::clone(backup),
        endpoint: endpoint.clone(),
        facts: facts.clone(),
        route,
        ways: Ways {
            abilities,
            known: Arc::new(survey.known),
        },
        request: request.clone(),
        libraries,
        largest,
        plan,
        progress: Arc::clone(progress),
        cancel: cancel.clone(),
    })))
}

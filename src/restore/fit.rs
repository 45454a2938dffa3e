//! Whether a target may be written to at all, and what the number in its URL means.

use std::collections::{BTreeMap, BTreeSet};

use super::found::Survey;
use crate::failure::{Failure, Kind};
use crate::rdb::DbIndex;
use crate::server::info::Role;
use crate::target::Route;
use crate::target::facts::TargetFacts;
use crate::units::listed;

/// Refuses a target that is not to be written to: a replica, a cluster node, a server that loads.
///
/// # Errors
/// [`Kind::Refused`].
pub(super) fn suitable(facts: &TargetFacts) -> Result<(), Failure> {
    let place = &facts.place;
    let refused =
        |message: String, hint: String| Err(Failure::new(Kind::Refused, message).hint(hint));
    if facts.info.role == Role::Replica {
        let master = match (facts.info.get("master_host"), facts.info.get("master_port")) {
            (Some(host), Some(port)) => format!("restore to its primary, {host}:{port}"),
            _ => "restore to its primary".to_owned(),
        };
        return refused(format!("{place} is a replica"), master);
    }
    if facts.info.cluster_enabled {
        return refused(
            format!("{place} is a node of a cluster"),
            "restore to a server that is not in cluster mode".to_owned(),
        );
    }
    if facts.info.loading {
        return refused(
            format!("{place} is loading its data"),
            "try again when it is done".to_owned(),
        );
    }
    Ok(())
}

/// Whether the backup has each database that is mapped: a mistyped number would leave keys where they are not wanted. A
/// backup without any keys, or one that can't be read to its end, tells nothing about that.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn known(map: &BTreeMap<DbIndex, DbIndex>, survey: &Survey) -> Result<(), Failure> {
    let found = &survey.databases;
    if found.is_empty() || survey.opaque.is_some() {
        return Ok(());
    }
    match map.iter().find(|(from, _)| !found.contains_key(from)) {
        None => Ok(()),
        Some((from, to)) => Err(Failure::new(
            Kind::Usage,
            format!("--map {from}:{to} maps database {from}, which has no keys in the backup"),
        )
        .cause(format!(
            "the backup has keys in {} {}",
            if found.len() == 1 {
                "database"
            } else {
                "databases"
            },
            listed(found.keys())
        ))
        .hint("leave it out, or map a database that is there")),
    }
}

/// Applies the `/N` of a target: every key goes into that database, if there is only one to put there.
///
/// # Errors
/// [`Kind::Refused`] when the backup has several, [`Kind::Usage`] when the map says otherwise.
pub(super) fn into_one(
    route: &mut Route,
    into: DbIndex,
    found: &BTreeSet<DbIndex>,
) -> Result<(), Failure> {
    let targets: BTreeSet<DbIndex> = found
        .iter()
        .map(|db| {
            route
                .map
                .get(db)
                .copied()
                .unwrap_or(if found.len() == 1 { into } else { *db })
        })
        .collect();
    if targets.len() > 1 {
        return Err(Failure::new(
            Kind::Refused,
            format!(
                "the target names database {into}, but the backup has the databases {}",
                listed(found)
            ),
        )
        .hint("choose one with --db, map each with --map, or leave the number out of the target"));
    }
    if let Some(target) = targets.iter().next().filter(|target| **target != into) {
        return Err(Failure::new(
            Kind::Usage,
            format!("the target names database {into}, but --map says {target}"),
        )
        .hint("leave the number out of the target, or map to it"));
    }
    for db in found {
        route.map.insert(*db, into);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn databases(list: &[u32]) -> BTreeSet<DbIndex> {
        list.iter().copied().map(DbIndex).collect()
    }

    fn apply(map: &[(u32, u32)], into: u32, found: &[u32]) -> Result<Vec<(u32, u32)>, Kind> {
        let mut route = Route {
            map: map
                .iter()
                .map(|(from, to)| (DbIndex(*from), DbIndex(*to)))
                .collect(),
            ..Route::default()
        };
        into_one(&mut route, DbIndex(into), &databases(found)).map_err(|failure| failure.kind)?;
        Ok(route.map.iter().map(|(from, to)| (from.0, to.0)).collect())
    }

    #[test]
    fn a_number_in_the_target_takes_a_single_database() {
        assert_eq!(apply(&[], 2, &[7]), Ok(vec![(7, 2)]));
        assert_eq!(apply(&[], 2, &[]), Ok(vec![]));
        assert_eq!(apply(&[(7, 2)], 2, &[7]), Ok(vec![(7, 2)]));
        assert_eq!(
            apply(&[(1, 2), (3, 2)], 2, &[1, 3]),
            Ok(vec![(1, 2), (3, 2)])
        );
        // 2 stays where it is, and 1 joins it there.
        assert_eq!(apply(&[(1, 2)], 2, &[1, 2]), Ok(vec![(1, 2), (2, 2)]));
    }

    #[test]
    fn a_number_in_the_target_is_refused_for_several_databases_and_for_another_map() {
        assert_eq!(apply(&[], 2, &[1, 3]), Err(Kind::Refused));
        assert_eq!(apply(&[(1, 2)], 2, &[1, 3]), Err(Kind::Refused));
        assert_eq!(apply(&[(1, 5)], 2, &[1]), Err(Kind::Usage));
    }
}

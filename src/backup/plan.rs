//! Which databases share a dump.

use std::collections::BTreeSet;

use super::Job;
use crate::server::Endpoint;
use crate::source;

/// Groups jobs that can be served by one dump: the same server as the same user by the same method.
/// Groups and the jobs in them keep the order in which they came.
pub fn group(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut groups: Vec<Vec<Job>> = Vec::new();
    for job in jobs {
        let alike = |group: &&mut Vec<Job>| share_a_dump(&group[0].source, &job.source);
        match groups.iter_mut().find(alike) {
            Some(group) => group.push(job),
            None => groups.push(vec![job]),
        }
    }
    groups
}

/// What is asked of the source for a whole group: the databases of all its jobs together.
pub(super) fn request(group: &[Job]) -> Option<source::Request> {
    let mut request = group.first()?.source.clone();
    request.databases = group.iter().try_fold(BTreeSet::new(), |mut all, job| {
        all.extend(job.databases.as_ref()?);
        Some(all)
    });
    // One dump for all of them: the strictest guard holds, and what one wants off does the others no harm.
    for job in group {
        request.fork_guard = request.fork_guard.max(job.source.fork_guard);
        request.disable_server_compression |= job.source.disable_server_compression;
    }
    Some(request)
}

/// Whether one dump serves both.
fn share_a_dump(one: &source::Request, other: &source::Request) -> bool {
    let same_server = |a: &Endpoint, b: &Endpoint| {
        a.address.transport() == b.address.transport()
            && a.username == b.username
            && a.password == b.password
            && a.tls == b.tls
    };
    let same_replica = match (&one.replica, &other.replica) {
        (None, None) => true,
        (Some(a), Some(b)) => same_server(a, b),
        _ => false,
    };
    same_server(&one.endpoint, &other.endpoint)
        && same_replica
        && one.choice == other.choice
        && one.rdb_path == other.rdb_path
        && one.scan == other.scan
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::{Choice, Method, Request};

    fn job(name: &str, url: &str, databases: Option<&[u32]>) -> Job {
        Job {
            name: name.to_owned(),
            source: Request::new(Endpoint::new(url.parse().unwrap())),
            databases: databases.map(|databases| databases.iter().copied().collect()),
            storages: Vec::new(),
            compression: crate::pipeline::Compression::default(),
            encryption: crate::config::Encryption::None,
            shared: false,
            shrink_guard: 0.5,
            timeout: std::time::Duration::from_secs(1),
        }
    }

    fn names(groups: &[Vec<Job>]) -> Vec<Vec<&str>> {
        groups
            .iter()
            .map(|group| group.iter().map(|job| job.name.as_str()).collect())
            .collect()
    }

    #[test]
    fn databases_of_one_server_share_a_dump_and_others_do_not() {
        let mut by_scan = job("scan", "redis://a/5", None);
        by_scan.source.choice = Choice::Only(Method::Scan);
        let groups = group(vec![
            job("one", "redis://a/1", Some(&[1])),
            job("other", "redis://b/1", Some(&[1])),
            job("three", "redis://a/3", Some(&[3])),
            job("user", "redis://someone@a/3", None),
            by_scan,
        ]);
        assert_eq!(
            names(&groups),
            [
                vec!["one", "three"],
                vec!["other"],
                vec!["user"],
                vec!["scan"]
            ]
        );
    }

    #[test]
    fn a_group_asks_for_the_databases_of_all_its_jobs() {
        let some = [
            job("a", "redis://a", Some(&[1])),
            job("b", "redis://a", Some(&[3])),
        ];
        let asked = request(&some).unwrap().databases.unwrap();
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), [1, 3]);
        let all = [
            job("a", "redis://a", Some(&[1])),
            job("b", "redis://a", None),
        ];
        assert_eq!(request(&all).unwrap().databases, None);
    }
}

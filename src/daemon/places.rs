//! Who may work: so many databases at once, and one dump at a time on a server. Pure.
//!
//! Databases that share a dump take a place each while there are free ones, and make do with one: a group that
//! waited for as many free places as it has databases would wait behind one slow job, and for ever behind two.

use std::collections::BTreeSet;

/// The places there are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    all: usize,
    taken: usize,
    servers: BTreeSet<String>,
}

/// What a piece of work holds while it is done; to be given back.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Place {
    count: usize,
    server: Option<String>,
}

impl Places {
    /// So many.
    pub(super) fn new(all: usize) -> Places {
        Places {
            all,
            taken: 0,
            servers: BTreeSet::new(),
        }
    }

    /// So many from now on; those who hold one keep it.
    pub(super) fn resize(&mut self, all: usize) {
        self.all = all;
    }

    /// Takes places for so many databases, and the right to dump the server, if there is one to dump.
    pub(super) fn take(&mut self, databases: usize, server: Option<&str>) -> Option<Place> {
        let free = self.all.saturating_sub(self.taken);
        if free == 0 || server.is_some_and(|server| self.servers.contains(server)) {
            return None;
        }
        let count = databases.clamp(1, free);
        self.taken += count;
        self.servers.extend(server.map(str::to_owned));
        Some(Place {
            count,
            server: server.map(str::to_owned),
        })
    }

    /// Gives a place back.
    pub(super) fn give(&mut self, place: Place) {
        self.taken = self.taken.saturating_sub(place.count);
        if let Some(server) = place.server {
            self.servers.remove(&server);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_server_is_dumped_once_at_a_time_and_others_go_on() {
        let mut places = Places::new(3);
        let first = places.take(1, Some("a")).unwrap();
        assert_eq!(places.take(1, Some("a")), None);
        let other = places.take(1, Some("b")).unwrap();
        let sessions = places.take(1, None).unwrap();
        assert_eq!(places.take(1, None), None);
        places.give(first);
        let again = places.take(1, Some("a")).unwrap();
        for place in [other, sessions, again] {
            places.give(place);
        }
        assert_eq!(places.taken, 0);
    }

    #[test]
    fn a_group_makes_do_with_one_place_and_takes_no_more_than_there_are() {
        let mut places = Places::new(2);
        let slow = places.take(1, Some("slow")).unwrap();
        let group = places.take(5, Some("a")).unwrap();
        assert_eq!(places.take(1, Some("b")), None);
        places.give(group);
        places.give(slow);
        let group = places.take(5, Some("a")).unwrap();
        assert_eq!(group.count, 2);
        places.resize(1);
        assert_eq!(places.take(1, None), None);
        places.give(group);
        let one = places.take(2, None).unwrap();
        assert_eq!(one.count, 1);
    }
}

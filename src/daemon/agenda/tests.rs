#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(database: &str, task: Task) -> JobId {
    JobId {
        database: database.to_owned(),
        task,
    }
}

fn job(database: &str, task: Task, cron: &str) -> Scheduled {
    Scheduled {
        id: id(database, task),
        cron: cron.parse().unwrap(),
        jitter: Duration::ZERO,
        catch_up: true,
    }
}

/// What the stores say when all of them answer.
fn known(newest: Option<Timestamp>) -> Known {
    Known {
        newest,
        all_answered: true,
    }
}

type Memory = BTreeMap<JobId, Remembered>;

fn served(database: &str, task: Task, served: &str, open: u32) -> Memory {
    let remembered = Remembered {
        served: at(served),
        open,
    };
    BTreeMap::from([(id(database, task), remembered)])
}

fn agenda(jobs: Vec<Scheduled>, memory: &Memory, now: &str) -> Agenda {
    let mut agenda = Agenda::new("web1");
    agenda.configure(jobs, TimeZone::UTC, memory, at(now));
    agenda
}

/// What begins now, without names where there is one job.
fn begins(agenda: &mut Agenda, now: &str) -> Vec<Why> {
    let due = agenda.due(at(now));
    due.begin.into_iter().map(|(_, why)| why).collect()
}

const NIGHTLY: &str = "0 2 * * *";

#[test]
fn what_was_missed_is_known_from_the_state_and_the_stores() {
    // served, newest backup, what begins at 10:00
    let cases: &[(Option<&str>, Option<&str>, &[Why])] = &[
        (
            Some("2026-11-23T02:00:00Z"),
            Some("2026-11-23T02:00:00Z"),
            &[],
        ),
        (
            Some("2026-11-22T02:00:00Z"),
            Some("2026-11-22T02:00:01Z"),
            &[Why::Missed],
        ),
        // Three were missed: one run.
        (Some("2026-11-20T02:00:00Z"), None, &[Why::Missed]),
        // A backup by hand since the due time.
        (
            Some("2026-11-22T02:00:00Z"),
            Some("2026-11-23T07:00:00Z"),
            &[],
        ),
        // State is lost: the store says it.
        (None, Some("2026-11-23T02:00:03Z"), &[]),
        (None, Some("2026-11-22T02:00:03Z"), &[Why::Missed]),
        // Neither: a database without any backup is not protected.
        (None, None, &[Why::Missed]),
        // Made with a wrong clock: that one does not count.
        (None, Some("2027-11-23T02:00:00Z"), &[Why::Missed]),
        (
            Some("2026-11-22T02:00:00Z"),
            Some("2027-11-23T02:00:00Z"),
            &[Why::Missed],
        ),
        (
            Some("2027-11-22T02:00:00Z"),
            Some("2026-11-23T02:00:05Z"),
            &[],
        ),
    ];
    for (state, newest, expected) in cases {
        let memory = state.map_or(Memory::new(), |state| served("a", Task::Backup, state, 0));
        let now = "2026-11-23T10:00:00Z";
        let mut agenda = agenda(vec![job("a", Task::Backup, NIGHTLY)], &memory, now);
        assert_eq!(agenda.unknown(), ["a"]);
        assert_eq!(
            begins(&mut agenda, now),
            [],
            "before the stores have answered"
        );
        assert_eq!(agenda.next(at(now))[&id("a", Task::Backup)].0, None);
        agenda.learn("a", known(newest.map(at)), at(now));
        assert_eq!(begins(&mut agenda, now), *expected, "{state:?} {newest:?}");
        assert_eq!(begins(&mut agenda, "2026-11-23T10:00:01Z"), []);
    }
}

#[test]
fn without_catch_up_what_was_missed_is_passed_over() {
    for memory in [
        Memory::new(),
        served("a", Task::Backup, "2026-11-20T02:00:00Z", 1),
    ] {
        let mut nightly = job("a", Task::Backup, NIGHTLY);
        nightly.catch_up = false;
        let mut agenda = agenda(vec![nightly], &memory, "2026-11-23T10:00:00Z");
        assert!(agenda.unknown().is_empty());
        assert_eq!(begins(&mut agenda, "2026-11-23T10:00:00Z"), []);
        assert_eq!(begins(&mut agenda, "2026-11-24T01:59:59Z"), []);
        assert_eq!(begins(&mut agenda, "2026-11-24T02:00:00Z"), [Why::Due]);
    }
}

#[test]
fn verify_and_sessions_are_made_up_for_with_state_and_wait_without() {
    for task in [Task::Verify, Task::Sessions] {
        let now = "2026-11-23T10:00:00Z";
        let mut without = agenda(vec![job("a", task, NIGHTLY)], &Memory::new(), now);
        assert_eq!(begins(&mut without, now), []);
        let memory = served("a", task, "2026-11-22T02:00:00Z", 0);
        let mut with = agenda(vec![job("a", task, NIGHTLY)], &memory, now);
        assert_eq!(begins(&mut with, now), [Why::Missed]);
    }
}

/// An agenda that has one job and is up to date at `now`.
fn settled(cron: &str, now: &str) -> Agenda {
    let mut agenda = agenda(vec![job("a", Task::Backup, cron)], &Memory::new(), now);
    agenda.learn("a", known(Some(at(now))), at(now));
    assert_eq!(begins(&mut agenda, now), []);
    agenda
}

#[test]
fn a_failure_that_may_pass_is_tried_again_ever_later_but_not_beyond_the_next_due_time() {
    let a = id("a", Task::Backup);
    let mut agenda = settled("0 */2 * * *", "2026-11-23T09:00:00Z");
    assert_eq!(begins(&mut agenda, "2026-11-23T10:00:00Z"), [Why::Due]);
    let mut now = at("2026-11-23T10:00:00Z");
    for minutes in [1, 2, 4, 8, 16, 30, 30] {
        agenda.ended(&a, Ended::Failed(Kind::Unreachable), now);
        let again = now + SignedDuration::from_mins(minutes);
        assert_eq!(agenda.next(now)[&a], (Some(again), true));
        assert_eq!(agenda.due(again - SignedDuration::from_secs(1)).begin, []);
        assert_eq!(agenda.due(again).begin, [(a.clone(), Why::Again)]);
        now = again;
    }
    // 11:31: half an hour later it is due anyway.
    agenda.ended(&a, Ended::Failed(Kind::Unreachable), now);
    assert_eq!(
        agenda.next(now)[&a],
        (Some(at("2026-11-23T12:00:00Z")), false)
    );
    assert_eq!(begins(&mut agenda, "2026-11-23T12:00:00Z"), [Why::Due]);
    // What will not pass by itself is not tried again; neither is what succeeded.
    for ended in [
        Ended::Failed(Kind::Auth),
        Ended::Failed(Kind::Refused),
        Ended::Kept,
        Ended::Well,
    ] {
        agenda.ended(&a, ended, at("2026-11-23T12:01:00Z"));
        assert_eq!(
            agenda.next(at("2026-11-23T12:01:00Z"))[&a],
            (Some(at("2026-11-23T14:00:00Z")), false)
        );
        assert_eq!(agenda.remembered()[&a].open, 0);
    }
}

#[test]
fn a_run_that_was_killed_is_made_up_for_once_and_one_that_kills_us_with_a_pause() {
    let a = id("a", Task::Backup);
    let mut agenda = settled(NIGHTLY, "2026-11-22T10:00:00Z");
    assert_eq!(begins(&mut agenda, "2026-11-23T02:00:00Z"), [Why::Due]);
    let mut memory = agenda.remembered();
    assert_eq!(memory[&a].open, 1);
    let mut now = at("2026-11-23T02:05:00Z");
    for minutes in [0, 1, 2, 4] {
        agenda = self::agenda(
            vec![job("a", Task::Backup, NIGHTLY)],
            &memory,
            &now.to_string(),
        );
        agenda.learn("a", known(Some(at("2026-11-22T02:00:00Z"))), now);
        let again = now + SignedDuration::from_mins(minutes);
        if minutes > 0 {
            assert_eq!(agenda.due(again - SignedDuration::from_secs(1)).begin, []);
        }
        assert_eq!(agenda.due(again).begin, [(a.clone(), Why::Again)]);
        memory = agenda.remembered();
        now = again;
    }
    // It was killed behind the manifest: the store has it.
    let mut agenda = self::agenda(
        vec![job("a", Task::Backup, NIGHTLY)],
        &memory,
        &now.to_string(),
    );
    agenda.learn("a", known(Some(at("2026-11-23T02:12:00Z"))), now);
    assert_eq!(agenda.due(now).begin, []);
    assert_eq!(agenda.remembered()[&a].open, 0);
}

#[test]
fn what_is_open_stays_open_when_a_storage_does_not_say_what_it_has() {
    let now = "2026-11-23T02:20:00Z";
    let memory = served("a", Task::Backup, "2026-11-23T02:00:00Z", 1);
    for (all_answered, expected) in [(false, &[Why::Again][..]), (true, &[])] {
        let mut agenda = agenda(vec![job("a", Task::Backup, NIGHTLY)], &memory, now);
        // The storages that do answer have a backup that was begun for the last due time.
        let known = Known {
            newest: Some(at("2026-11-23T02:00:01Z")),
            all_answered,
        };
        agenda.learn("a", known, at(now));
        assert_eq!(begins(&mut agenda, now), *expected, "{all_answered}");
    }
}

#[test]
fn the_clock_set_back_an_hour_runs_nothing_twice_and_far_ahead_times_are_put_back() {
    let a = id("a", Task::Backup);
    let mut agenda = settled("*/15 * * * *", "2026-11-23T09:50:00Z");
    assert_eq!(begins(&mut agenda, "2026-11-23T10:00:00Z"), [Why::Due]);
    agenda.ended(&a, Ended::Well, at("2026-11-23T10:00:05Z"));
    for minute in 0..60 {
        let now = at("2026-11-23T09:01:00Z") + SignedDuration::from_mins(minute);
        assert_eq!(agenda.due(now), Due::default(), "{now}");
    }
    assert_eq!(begins(&mut agenda, "2026-11-23T10:15:00Z"), [Why::Due]);
    agenda.ended(&a, Ended::Well, at("2026-11-23T10:15:05Z"));
    // A year forward: one run. And back again: from now on.
    assert_eq!(begins(&mut agenda, "2027-11-23T10:16:00Z"), [Why::Due]);
    agenda.ended(&a, Ended::Well, at("2027-11-23T10:16:05Z"));
    let due = agenda.due(at("2026-11-23T10:17:00Z"));
    assert_eq!((due.begin, due.set_back), (vec![], vec![a.clone()]));
    assert_eq!(agenda.due(at("2026-11-23T10:18:00Z")), Due::default());
    assert_eq!(begins(&mut agenda, "2026-11-23T10:30:00Z"), [Why::Due]);
    // A second try does not wait a year for its time either.
    agenda.ended(&a, Ended::Failed(Kind::Timeout), at("2026-11-23T10:30:10Z"));
    assert_eq!(begins(&mut agenda, "2026-11-23T10:10:00Z"), []);
    assert_eq!(begins(&mut agenda, "2026-11-23T10:11:00Z"), [Why::Again]);
}

#[test]
fn a_job_that_takes_longer_than_its_schedule_runs_one_at_a_time_and_is_told_once() {
    let a = id("a", Task::Backup);
    let mut agenda = settled("* * * * *", "2026-11-23T10:00:30Z");
    assert_eq!(begins(&mut agenda, "2026-11-23T10:01:00Z"), [Why::Due]);
    let due = agenda.due(at("2026-11-23T10:02:00Z"));
    assert_eq!((due.begin, due.passed_over), (vec![], vec![a.clone()]));
    assert_eq!(agenda.due(at("2026-11-23T10:03:00Z")), Due::default());
    agenda.ended(&a, Ended::Well, at("2026-11-23T10:03:30Z"));
    assert_eq!(begins(&mut agenda, "2026-11-23T10:03:31Z"), []);
    assert_eq!(begins(&mut agenda, "2026-11-23T10:04:00Z"), [Why::Due]);
    // Another episode is told anew.
    assert_eq!(agenda.due(at("2026-11-23T10:05:00Z")).passed_over, [a]);
}

#[test]
fn jitter_is_the_same_for_all_databases_of_a_host_and_never_passes_the_next_due_time() {
    let now = "2026-11-23T01:00:00Z";
    let mut seen = BTreeSet::new();
    for host in ["web1", "web2", "web3", "web4"] {
        let mut agenda = Agenda::new(host);
        let jobs = ["a", "b"].map(|name| Scheduled {
            jitter: Duration::from_secs(3600),
            ..job(name, Task::Sessions, NIGHTLY)
        });
        agenda.configure(jobs.to_vec(), TimeZone::UTC, &Memory::new(), at(now));
        let next = agenda.next(at(now));
        let begin = next[&id("a", Task::Sessions)].0.unwrap();
        assert_eq!(next[&id("b", Task::Sessions)].0, Some(begin));
        let due = at("2026-11-23T02:00:00Z");
        assert!(begin >= due && begin <= due + SignedDuration::from_hours(1));
        assert_eq!(agenda.due(begin - SignedDuration::from_millis(1)).begin, []);
        assert_eq!(
            agenda.next(begin - SignedDuration::from_millis(1))[&id("a", Task::Sessions)].0,
            Some(begin)
        );
        assert_eq!(agenda.due(begin).begin.len(), 2);
        seen.insert(begin);
    }
    assert!(seen.len() > 1, "all hosts begin at once");
    let mut often = Agenda::new("web1");
    let job = Scheduled {
        jitter: Duration::from_secs(7200),
        ..job("a", Task::Sessions, "*/10 * * * *")
    };
    often.configure(vec![job], TimeZone::UTC, &Memory::new(), at(now));
    let mut runs = 0;
    for second in 0..3600 {
        let now = at(now) + SignedDuration::from_secs(second);
        for (id, _) in often.due(now).begin {
            runs += 1;
            often.ended(&id, Ended::Well, now);
        }
    }
    assert!((4..=6).contains(&runs), "{runs}");
}

#[test]
fn a_reload_keeps_what_was_served_and_a_new_schedule_says_nothing_about_the_past() {
    let a = id("a", Task::Backup);
    let mut agenda = settled("0 22 * * *", "2026-11-22T21:00:00Z");
    assert_eq!(begins(&mut agenda, "2026-11-22T22:00:00Z"), [Why::Due]);
    // Its run goes on over two reloads: away, and back with another schedule.
    let now = at("2026-11-23T14:00:00Z");
    agenda.configure(vec![], TimeZone::UTC, &Memory::new(), now);
    assert!(agenda.is_empty());
    agenda.configure(
        vec![job("a", Task::Backup, "0 12 * * *")],
        TimeZone::UTC,
        &Memory::new(),
        now,
    );
    assert_eq!(agenda.unknown(), [""; 0]);
    assert_eq!(agenda.due(now), Due::default());
    agenda.ended(&a, Ended::Well, now);
    assert_eq!(agenda.due(now), Due::default());
    assert_eq!(agenda.next(now)[&a].0, Some(at("2026-11-24T12:00:00Z")));
    // A new database without any backup is backed up at once.
    let jobs = vec![
        job("a", Task::Backup, "0 12 * * *"),
        job("b", Task::Backup, "0 12 * * *"),
    ];
    agenda.configure(jobs, TimeZone::UTC, &Memory::new(), now);
    assert_eq!(agenda.unknown(), ["b"]);
    agenda.learn("b", known(None), now);
    assert_eq!(
        agenda.due(now).begin,
        [(id("b", Task::Backup), Why::Missed)]
    );
    // What is gone is gone when its run has ended.
    agenda.configure(vec![], TimeZone::UTC, &Memory::new(), now);
    agenda.ended(&id("b", Task::Backup), Ended::Well, now);
    assert!(agenda.next(now).is_empty() && agenda.remembered().is_empty());
}

/// What happens to the simulated machine.
#[derive(Clone, Debug)]
enum Event {
    /// The daemon goes on for so many seconds.
    Run(u16),
    /// It is not there, or asleep, for so many minutes.
    Away(u16),
    /// It is killed and started again; with its state, or without.
    Restart { state: bool },
    /// The clock is set on or back by so many seconds.
    Set(i32),
}

fn events(set: bool) -> impl Strategy<Value = Vec<Event>> {
    let set = match set {
        true => 2,
        false => 0,
    };
    let event = prop_oneof![
        6 => (1_u16..7200).prop_map(Event::Run),
        2 => (1_u16..2000).prop_map(Event::Away),
        2 => prop::bool::weighted(0.7).prop_map(|state| Event::Restart { state }),
        set => (-500_i32..500).prop_map(Event::Set),
    ];
    prop::collection::vec(event, 1..20)
}

/// A machine with one daemon and one store, whose backups take no time and always succeed.
struct Machine {
    agenda: Agenda,
    scheduled: Scheduled,
    zone: TimeZone,
    now: Timestamp,
    backups: Vec<Timestamp>,
    /// The due time that each of them served.
    served: Vec<Timestamp>,
}

impl Machine {
    fn start(&mut self, memory: &Memory) {
        self.agenda = Agenda::new("web1");
        let jobs = vec![self.scheduled.clone()];
        self.agenda
            .configure(jobs, self.zone.clone(), memory, self.now);
        self.agenda
            .learn("a", known(self.backups.iter().max().copied()), self.now);
    }

    fn tick(&mut self) {
        for (id, _) in self.agenda.due(self.now).begin {
            self.backups.push(self.now);
            self.served.push(self.agenda.jobs[&id].served.unwrap());
            self.agenda.ended(&id, Ended::Well, self.now);
        }
    }

    fn go(&mut self, event: &Event) {
        match event {
            Event::Run(seconds) => {
                // A tick may be late.
                let end = self.now + SignedDuration::from_secs(i64::from(*seconds));
                while self.now < end {
                    self.now += SignedDuration::from_millis(20_300);
                    self.tick();
                }
            }
            Event::Away(minutes) => {
                self.now += SignedDuration::from_mins(i64::from(*minutes));
                self.tick();
            }
            Event::Restart { state } => {
                let memory = match state {
                    true => self.agenda.remembered(),
                    false => Memory::new(),
                };
                self.start(&memory);
                self.tick();
            }
            Event::Set(by) => {
                self.now += SignedDuration::from_secs(i64::from(*by));
                self.tick();
            }
        }
    }
}

fn machine(cron: &str, zone: &str, now: &str, jitter: u64) -> Machine {
    let mut scheduled = job("a", Task::Backup, cron);
    scheduled.jitter = Duration::from_secs(jitter);
    let mut machine = Machine {
        agenda: Agenda::new("web1"),
        scheduled,
        zone: TimeZone::get(zone).unwrap(),
        now: at(now),
        backups: Vec::new(),
        served: Vec::new(),
    };
    machine.start(&Memory::new());
    machine.tick();
    machine
}

fn world() -> impl Strategy<Value = (&'static str, &'static str, &'static str, u64)> {
    let crons = [
        "0 2 * * *",
        "30 2 * * *",
        "*/15 * * * *",
        "0 */6 * * *",
        "0 * * * *",
        "0 3 1 * 1",
    ];
    let zones = [
        // Before the clocks change there, either way.
        ("Europe/Berlin", "2026-03-27T20:00:00Z"),
        ("Europe/Berlin", "2026-10-23T20:00:00Z"),
        ("America/New_York", "2026-03-07T00:00:00Z"),
        ("America/New_York", "2026-10-31T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T00:00:00Z"),
        ("Asia/Beirut", "2026-03-28T00:00:00Z"),
        ("UTC", "2026-11-23T00:00:00Z"),
    ];
    (
        prop::sample::select(crons.to_vec()),
        prop::sample::select(zones.to_vec()),
        prop::sample::select(vec![0_u64, 0, 300, 7200]),
    )
        .prop_map(|(cron, (zone, now), jitter)| (cron, zone, now, jitter))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to the daemon, as long as the clock is right: after each due time there is a backup as soon
    /// as the daemon is there, and never two for one.
    #[test]
    fn no_due_time_is_lost_and_none_runs_twice((cron, zone, now, jitter) in world(), events in events(false)) {
        let mut machine = machine(cron, zone, now, jitter);
        let host = "web1";
        for event in &events {
            machine.go(event);
            let job = machine.agenda.jobs.values().next().unwrap().clone();
            let newest = *machine.backups.last().unwrap();
            // Not lost: every due time whose run has begun by now has a backup behind it.
            if let Some(due) = job.last_begun(host, &machine.zone, machine.now) {
                prop_assert!(newest >= due, "{due} is not served by {newest}");
            }
        }
        // Not twice.
        prop_assert!(machine.served.is_sorted_by(|one, other| one < other), "{:?}", machine.served);
    }

    /// The clock leaps by minutes, too, by up to three hours in all: no due time runs twice, and some time after the
    /// last leap everything is served.
    #[test]
    fn leaps_of_the_clock_neither_repeat_nor_stop_anything((cron, zone, now, _) in world(), events in events(true)) {
        let mut machine = machine(cron, zone, now, 0);
        for event in &events {
            machine.go(event);
        }
        prop_assert!(machine.served.is_sorted_by(|one, other| one < other), "{:?}", machine.served);
        // Three hours and two periods later nothing is owed.
        machine.go(&Event::Run(60 * 60 * 4));
        let cron: Cron = cron.parse().unwrap();
        let due = cron.last(machine.now, &machine.zone).unwrap();
        let job = machine.agenda.jobs.values().next().unwrap();
        prop_assert!(job.served.unwrap() >= due);
    }
}

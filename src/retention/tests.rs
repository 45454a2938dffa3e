#![allow(clippy::unwrap_used)]

mod properties;

use jiff::ToSpan as _;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn utc() -> TimeZone {
    TimeZone::UTC
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn good(began: Timestamp, id: &str) -> Fact {
    Fact {
        id: id.to_owned(),
        began,
        standing: Standing::Good,
        keys: 100,
        pinned: false,
        accepted: false,
    }
}

/// Backups at these times, named by them.
fn taken(times: &[&str]) -> Vec<Fact> {
    times.iter().map(|time| good(at(time), time)).collect()
}

fn rules<'a>(policy: Option<&'a Keep>, zone: &'a TimeZone) -> Rules<'a> {
    Rules {
        policy,
        zone,
        shrink_guard: 0.5,
    }
}

/// The reasons of each, as texts; `-` for one that goes.
fn told(fates: &[Fate]) -> Vec<String> {
    let text = |fate: &Fate| match fate {
        Fate::Goes => "-".to_owned(),
        Fate::Stays(reasons) => {
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            reasons.join(", ")
        }
    };
    fates.iter().map(text).collect()
}

/// What is told in the middle of 2030, when all of the tables' backups are past.
fn judged(facts: &[Fact], policy: &Keep, zone: &TimeZone) -> Vec<String> {
    let now = at("2030-06-15T12:00:00Z");
    told(&judge(facts, rules(Some(policy), zone), now, Guard::Clear))
}

fn left(facts: &[Fact], fates: &[Fate]) -> Vec<Fact> {
    let stays = |(_, fate): &(&Fact, &Fate)| **fate != Fate::Goes;
    let both = facts.iter().zip(fates).filter(stays);
    both.map(|(fact, _)| fact.clone()).collect()
}

fn policy(text: &str) -> Keep {
    let mut keep = Keep::default();
    for part in text.split_whitespace() {
        let (rule, count) = part.split_once('=').unwrap();
        if rule == "within" {
            keep.within = crate::units::parse_duration(count).unwrap();
            continue;
        }
        let count = count.parse().unwrap();
        match rule {
            "last" => keep.last = count,
            "hourly" => keep.hourly = count,
            "daily" => keep.daily = count,
            "weekly" => keep.weekly = count,
            "monthly" => keep.monthly = count,
            "yearly" => keep.yearly = count,
            other => panic!("{other}"),
        }
    }
    keep
}

/// Marks as the catalog does: fewer than half the keys of the newest one before that is not shrunk.
fn mark(archive: &mut [Fact]) {
    archive.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut before = None;
    for one in archive {
        let shrunk = !one.accepted && before.is_some_and(|before| is_shrunk(one.keys, before, 0.5));
        one.standing = match shrunk {
            true => Standing::Shrunk,
            false => Standing::Good,
        };
        if !shrunk {
            before = Some(one.keys);
        }
    }
}

/// Marks, prunes, marks what is left, and gives both.
fn pruned(
    mut archive: Vec<Fact>,
    policy: &Keep,
    zone: &TimeZone,
    now: Timestamp,
) -> (Vec<Fact>, Vec<Fact>) {
    mark(&mut archive);
    let fates = judge(&archive, rules(Some(policy), zone), now, Guard::Clear);
    let mut left = left(&archive, &fates);
    mark(&mut left);
    (archive, left)
}

fn ids(archive: &[Fact]) -> Vec<&str> {
    archive.iter().map(|fact| fact.id.as_str()).collect()
}

#[test]
fn of_every_period_the_newest_good_backup_stays_and_says_why() {
    let facts = taken(&[
        "2025-12-28T23:00:00Z",
        "2025-12-31T23:00:00Z",
        "2026-01-01T01:00:00Z",
        "2026-11-21T10:00:00Z",
        "2026-11-22T14:10:00Z",
        "2026-11-22T14:50:00Z",
        "2026-11-22T15:00:00Z",
    ]);
    assert_eq!(
        judged(
            &facts,
            &policy("last=1 hourly=2 daily=2 weekly=2 monthly=3 yearly=2"),
            &utc()
        ),
        [
            "-",
            "monthly 2025-12, yearly 2025",
            // Both the last of 2025 and the first of 2026 lie in the first week of 2026.
            "weekly 2026-W01, monthly 2026-01",
            "daily 2026-11-21",
            "-",
            "hourly 2026-11-22 14h",
            "last 1, hourly 2026-11-22 15h, daily 2026-11-22, weekly 2026-W47, monthly 2026-11, yearly 2026, newest good",
        ]
    );
}

#[test]
fn periods_without_a_backup_do_not_count() {
    let facts = taken(&[
        "2019-03-01T00:00:00Z",
        "2021-07-01T00:00:00Z",
        "2026-01-05T00:00:00Z",
        "2026-06-05T00:00:00Z",
    ]);
    assert_eq!(
        judged(&facts, &policy("yearly=2 monthly=3"), &utc()),
        [
            "-",
            "monthly 2021-07, yearly 2021",
            "monthly 2026-01",
            "monthly 2026-06, yearly 2026, newest good",
        ]
    );
}

#[test]
fn a_period_is_the_time_zones_own() {
    let facts = taken(&["2026-06-30T21:30:00Z", "2026-06-30T22:30:00Z"]);
    assert_eq!(
        judged(&facts, &policy("monthly=2"), &utc()),
        ["-", "monthly 2026-06, newest good"]
    );
    assert_eq!(
        judged(&facts, &policy("monthly=2"), &zone("Europe/Berlin")),
        ["monthly 2026-06", "monthly 2026-07, newest good"]
    );
}

#[test]
fn an_hour_that_the_clock_shows_twice_is_two_hours() {
    let berlin = taken(&[
        "2026-10-24T23:30:00Z", // 01:30
        "2026-10-25T00:30:00Z", // 02:30, summer
        "2026-10-25T01:30:00Z", // 02:30, winter
        "2026-10-25T02:30:00Z", // 03:30
    ]);
    assert_eq!(
        judged(&berlin, &policy("hourly=3 daily=1"), &zone("Europe/Berlin")),
        [
            "-",
            "hourly 2026-10-25 02h+02:00",
            "hourly 2026-10-25 02h+01:00",
            "hourly 2026-10-25 03h, daily 2026-10-25, newest good",
        ]
    );
    // There the clock goes back by half an hour: the first part of the hour is not shown twice.
    let lord_howe = taken(&[
        "2026-04-04T14:10:00Z", // 01:10, summer
        "2026-04-04T14:40:00Z", // 01:40, summer
        "2026-04-04T15:10:00Z", // 01:40, winter
        "2026-04-04T15:40:00Z", // 02:10
    ]);
    assert_eq!(
        judged(
            &lord_howe,
            &policy("hourly=3"),
            &zone("Australia/Lord_Howe")
        ),
        [
            "-",
            "hourly 2026-04-05 01h+11:00",
            "hourly 2026-04-05 01h+10:30",
            "hourly 2026-04-05 02h, newest good",
        ]
    );
}

#[test]
fn a_day_that_is_short_or_missing_or_comes_back_is_one_day() {
    // The hour from two to three is missing.
    let spring = taken(&["2026-03-28T23:30:00Z", "2026-03-29T21:30:00Z"]);
    assert_eq!(
        judged(&spring, &policy("daily=2"), &zone("Europe/Berlin")),
        ["-", "daily 2026-03-29, newest good"]
    );
    // There was no 30th of December 2011 in Samoa.
    let samoa = taken(&["2011-12-30T09:30:00Z", "2011-12-30T10:30:00Z"]);
    assert_eq!(
        judged(&samoa, &policy("daily=2"), &zone("Pacific/Apia")),
        ["daily 2011-12-29", "daily 2011-12-31, newest good"]
    );
    // A minute after midnight the clock went back into the day before.
    let newfoundland = taken(&[
        "2006-10-29T02:00:00Z", // 28th, 23:30
        "2006-10-29T02:30:30Z", // 29th, 00:00:30
        "2006-10-29T03:00:00Z", // 28th, 23:30 again
        "2006-10-29T05:00:00Z", // 29th
    ]);
    assert_eq!(
        judged(&newfoundland, &policy("daily=3"), &zone("America/St_Johns")),
        [
            "-",
            "-",
            "daily 2006-10-28",
            "daily 2006-10-29, newest good"
        ]
    );
}

#[test]
fn within_counts_back_from_the_newest_good_backup() {
    let mut facts = taken(&[
        "2026-10-22T11:59:59Z",
        "2026-10-22T12:00:00Z",
        "2026-11-21T12:00:00Z",
        "2026-11-25T12:00:00Z",
    ]);
    facts[3].standing = Standing::Shrunk;
    let now = at("2027-01-01T00:00:00Z");
    // The guard is tripped: nothing goes, and each still has its own reason.
    let policy = policy("within=30d");
    let fates = judge(&facts, rules(Some(&policy), &utc()), now, Guard::Clear);
    assert_eq!(
        told(&fates),
        [
            "guard",
            "within 30d",
            "within 30d, newest good",
            "shrunk beside within 30d"
        ]
    );
}

#[test]
fn backups_of_the_same_moment_are_ordered_by_their_ids() {
    let moment = at("2026-11-22T12:00:00Z");
    let facts = [
        good(moment, "b"),
        good(moment, "c"),
        good(moment, "a"),
        good(moment, "d"),
    ];
    assert_eq!(
        judged(&facts, &policy("last=2"), &utc()),
        ["-", "last 2", "-", "last 1, newest good"]
    );
}

#[test]
fn a_shrunk_backup_takes_no_good_ones_place_and_trips_the_guard_while_it_is_the_newest() {
    let mut facts = taken(&[
        "2026-11-20T01:00:00Z",
        "2026-11-20T02:00:00Z",
        "2026-11-20T23:00:00Z",
        "2026-11-21T12:00:00Z",
        "2026-11-22T12:00:00Z",
    ]);
    facts[2].standing = Standing::Shrunk;
    facts[4].standing = Standing::Shrunk;
    let daily = policy("daily=2");
    assert_eq!(
        judged(&facts, &daily, &utc()),
        [
            "guard",
            "daily 2026-11-20",
            "guard",
            "daily 2026-11-21, newest good",
            "shrunk beside daily 2026-11-22",
        ]
    );
    // A good one after it: the guard is clear.
    facts.push(good(at("2026-11-23T12:00:00Z"), "x"));
    assert_eq!(
        judged(&facts, &daily, &utc()),
        [
            "-",
            "-",
            "-",
            "daily 2026-11-21",
            "shrunk beside daily 2026-11-22",
            "daily 2026-11-23, newest good",
        ]
    );
    // A newer, shrunk one in another storage holds these, too.
    let now = at("2027-01-01T00:00:00Z");
    let fates = judge(&facts, rules(Some(&daily), &utc()), now, Guard::Tripped);
    assert_eq!(told(&fates)[..3], ["guard", "guard", "guard"]);
}

#[test]
fn an_accepted_backup_does_not_end_the_weeks_before_it() {
    // Fourteen days of shrunk backups; the last one was accepted, which makes it good.
    let day = |n: i64| at("2026-11-01T00:00:00Z") + (n * 24).hours();
    let mut facts: Vec<Fact> = (0..21).map(|n| good(day(n), &format!("{n:02}"))).collect();
    for fact in &mut facts[6..20] {
        fact.standing = Standing::Shrunk;
    }
    let fates = judge(
        &facts,
        rules(Some(&policy("daily=7")), &utc()),
        day(21),
        Guard::Clear,
    );
    let left: Vec<String> = left(&facts, &fates)
        .into_iter()
        .map(|fact| fact.id)
        .collect();
    assert_eq!(
        left,
        [
            "00", "01", "02", "03", "04", "05", "14", "15", "16", "17", "18", "19", "20"
        ]
    );
}

#[test]
fn a_database_that_shrinks_slowly_keeps_the_steps_that_make_it_good() {
    let day = |n: i64| at("2026-01-01T00:00:00Z") + (n * 24).hours();
    // From a thousand keys by one percent a day; the first day is pinned.
    let mut facts: Vec<Fact> = (0..200i32)
        .map(|n| Fact {
            keys: (1000.0 * 0.99f64.powi(n)) as u64,
            ..good(day(n.into()), &format!("{n:03}"))
        })
        .collect();
    facts[0].pinned = true;
    mark(&mut facts);
    assert!(facts.iter().all(|fact| fact.standing == Standing::Good));
    let (_, once) = pruned(facts, &policy("last=2"), &utc(), day(200));
    assert!(once.iter().all(|fact| fact.standing == Standing::Good));
    assert_eq!(ids(&once).len(), 5, "{:?}", ids(&once));
    assert_eq!(ids(&once)[0], "000");
    let fates = judge(
        &once,
        rules(Some(&policy("last=2")), &utc()),
        day(200),
        Guard::Clear,
    );
    assert!(
        told(&fates)[2].starts_with("baseline of "),
        "{:?}",
        told(&fates)
    );
}

#[test]
fn a_backup_from_the_future_stays_and_counts_for_nothing() {
    let facts = taken(&[
        "2026-11-20T12:00:00Z",
        "2026-11-21T12:00:00Z",
        "2026-11-22T12:04:59Z",
        "2027-11-22T12:00:00Z",
    ]);
    let now = at("2026-11-22T12:00:00Z");
    let policy = policy("last=2 within=1h");
    let fates = judge(&facts, rules(Some(&policy), &utc()), now, Guard::Clear);
    assert_eq!(
        told(&fates),
        [
            "-",
            "last 2",
            "last 1, within 1h, newest good",
            "from the future"
        ]
    );
    // A shrunk one from the future does not trip the guard.
    let mut facts = facts;
    facts[3].standing = Standing::Shrunk;
    assert_eq!(guard(&facts, now), Guard::Clear);
    assert_eq!(guard(&facts, at("2028-01-01T00:00:00Z")), Guard::Tripped);
}

#[test]
fn what_cannot_be_judged_stays_for_a_person_to_look_at() {
    let mut facts = taken(&[
        "2020-01-01T00:00:00Z",
        "2020-01-02T00:00:00Z",
        "2020-01-03T00:00:00Z",
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
    ]);
    facts[0].standing = Standing::Damaged;
    facts[1].standing = Standing::Newer;
    facts[2].pinned = true;
    facts[4].standing = Standing::Damaged;
    assert_eq!(
        judged(&facts, &policy("last=1"), &utc()),
        [
            "damaged",
            "newer format",
            "pinned",
            "last 1, newest good",
            "damaged"
        ]
    );
}

#[test]
fn without_a_policy_nothing_goes() {
    let facts = taken(&["2000-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]);
    let now = at("2030-01-01T00:00:00Z");
    let fates = judge(&facts, rules(None, &utc()), now, Guard::Clear);
    assert_eq!(told(&fates), ["no policy", "newest good"]);
    assert!(judge(&[], rules(None, &utc()), now, Guard::Clear).is_empty());
}

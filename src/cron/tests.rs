#![allow(clippy::unwrap_used)]

use jiff::SignedDuration;
use jiff::civil::date;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn cron(text: &str) -> Cron {
    text.parse().unwrap()
}

/// The due times after `from`, as wall clock times with their offset.
fn due(text: &str, zone_name: &str, from: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(text), zone(zone_name));
    let mut time = from
        .parse::<DateTime>()
        .unwrap()
        .to_zoned(zone.clone())
        .unwrap()
        .timestamp();
    let mut all = Vec::new();
    for _ in 0..count {
        time = cron.next(time, &zone).unwrap();
        let zoned = time.to_zoned(zone.clone());
        all.push(zoned.strftime("%m-%d %H:%M %:z").to_string());
    }
    all
}

#[test]
fn day_of_month_and_weekday_are_joined_by_or() {
    let cron = cron("0 3 13 * FRI");
    let utc = TimeZone::UTC;
    let first = cron.next(at("2026-11-01T00:00:00Z"), &utc).unwrap();
    assert_eq!(first, at("2026-11-06T03:00:00Z"));
    let next = cron.next(at("2026-11-20T04:00:00Z"), &utc).unwrap();
    assert_eq!(next, at("2026-11-27T03:00:00Z"));
    let sunday = cron.next(at("2026-12-12T00:00:00Z"), &utc).unwrap();
    assert_eq!(sunday, at("2026-12-13T03:00:00Z"));
    assert_eq!(
        cron.last(at("2026-12-13T02:59:59Z"), &utc),
        Some(at("2026-12-11T03:00:00Z"))
    );
}

#[test]
fn what_is_no_expression_or_never_due_is_refused() {
    for text in [
        "",
        "every hour",
        "* * * *",
        "61 * * * *",
        "0 0 0 0 0 0 0",
        "@reboot",
        "*/0 * * * *",
    ] {
        let error = text.parse::<Cron>().unwrap_err();
        assert!(matches!(error, CronError::Malformed(_)), "{text}: {error}");
    }
    assert_eq!("0 0 30 2 *".parse::<Cron>(), Err(CronError::Never));
    assert!("0 0 29 2 *".parse::<Cron>().is_ok());
}

#[test]
fn five_fields_six_fields_and_names_are_read() {
    let utc = TimeZone::UTC;
    let from = at("2026-11-23T10:17:33.5Z"); // a Monday
    for (text, next, last) in [
        (
            "*/15 * * * *",
            "2026-11-23T10:30:00Z",
            "2026-11-23T10:15:00Z",
        ),
        (
            "*/10 * * * * *",
            "2026-11-23T10:17:40Z",
            "2026-11-23T10:17:30Z",
        ),
        (
            "* * * * * *",
            "2026-11-23T10:17:34Z",
            "2026-11-23T10:17:33Z",
        ),
        (
            "30 0 2 * * *",
            "2026-11-24T02:00:30Z",
            "2026-11-23T02:00:30Z",
        ),
        ("@hourly", "2026-11-23T11:00:00Z", "2026-11-23T10:00:00Z"),
        ("@daily", "2026-11-24T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("@weekly", "2026-11-29T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("@monthly", "2026-12-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("0 5 * * 0", "2026-11-29T05:00:00Z", "2026-11-22T05:00:00Z"),
        ("0 5 * * 7", "2026-11-29T05:00:00Z", "2026-11-22T05:00:00Z"),
        (
            "0 5 * * mon-fri",
            "2026-11-24T05:00:00Z",
            "2026-11-23T05:00:00Z",
        ),
        (
            "0 9-17/4 * jan,nov *",
            "2026-11-23T13:00:00Z",
            "2026-11-23T09:00:00Z",
        ),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("0 0 L * *", "2026-11-30T00:00:00Z", "2026-10-31T00:00:00Z"),
    ] {
        assert_eq!(cron(text).next(from, &utc), Some(at(next)), "{text}");
        assert_eq!(cron(text).last(from, &utc), Some(at(last)), "{text}");
    }
}

#[test]
fn a_due_time_itself_is_the_last_and_not_the_next() {
    let (cron, utc) = (cron("0 2 * * *"), TimeZone::UTC);
    let due = at("2026-11-23T02:00:00Z");
    assert_eq!(cron.last(due, &utc), Some(due));
    assert_eq!(cron.next(due, &utc), Some(at("2026-11-24T02:00:00Z")));
}

#[test]
fn a_time_that_is_skipped_runs_once_when_the_clocks_go_on() {
    for (text, zone, from, expected) in [
        // 02:00 to 03:00.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00",
            ["03-29 03:00 +02:00", "03-30 02:30 +02:00"],
        ),
        (
            "0 2,14 * * *",
            "Europe/Berlin",
            "2026-03-28T15:00",
            ["03-29 03:00 +02:00", "03-29 14:00 +02:00"],
        ),
        (
            "*/15 2 * * *",
            "Europe/Berlin",
            "2026-03-28T15:00",
            ["03-29 03:00 +02:00", "03-30 02:00 +02:00"],
        ),
        (
            "0 */2 * * *",
            "Europe/Berlin",
            "2026-03-29T00:30",
            ["03-29 03:00 +02:00", "03-29 04:00 +02:00"],
        ),
        (
            "0 2,3 * * *",
            "Europe/Berlin",
            "2026-03-29T00:30",
            ["03-29 03:00 +02:00", "03-30 02:00 +02:00"],
        ),
        (
            "0 1 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00",
            ["03-29 01:00 +01:00", "03-30 01:00 +02:00"],
        ),
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00",
            ["03-08 03:00 -04:00", "03-09 02:30 -04:00"],
        ),
        // 02:00 to 02:30.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00",
            ["10-04 02:30 +11:00", "10-05 02:15 +11:00"],
        ),
        // Midnight itself is skipped.
        (
            "0 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03T12:00",
            ["11-04 01:00 -02:00", "11-05 00:00 -02:00"],
        ),
        (
            "0 0 * * *",
            "Asia/Beirut",
            "2026-03-28T12:00",
            ["03-29 01:00 +03:00", "03-30 00:00 +03:00"],
        ),
        (
            "0 */6 * * *",
            "Asia/Beirut",
            "2026-03-28T20:00",
            ["03-29 01:00 +03:00", "03-29 06:00 +03:00"],
        ),
        // Its gap ends on the next day, which is not the day that was meant.
        (
            "45 23 * * 0",
            "America/Toronto",
            "1919-03-30T12:00",
            ["03-31 00:30 -04:00", "04-06 23:45 -04:00"],
        ),
        // 02:00 to 03:00 after Ramadan.
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-03-21T12:00",
            ["03-22 03:00 +01:00", "03-23 02:30 +01:00"],
        ),
        // Two hours, and a whole day.
        (
            "0 1,2 * * *",
            "Antarctica/Troll",
            "2026-03-28T12:00",
            ["03-29 03:00 +02:00", "03-30 01:00 +02:00"],
        ),
        (
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T13:00",
            ["12-31 00:00 +14:00", "12-31 12:00 +14:00"],
        ),
    ] {
        assert_eq!(due(text, zone, from, 2), expected, "{text} in {zone}");
    }
}

#[test]
fn a_time_that_comes_twice_runs_once_at_the_first() {
    for (text, zone, from, expected) in [
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00",
            ["10-25 02:30 +02:00", "10-26 02:30 +01:00"],
        ),
        (
            "0 */2 * * *",
            "Europe/Berlin",
            "2026-10-25T01:00",
            ["10-25 02:00 +02:00", "10-25 04:00 +01:00"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00",
            ["11-01 01:30 -04:00", "11-02 01:30 -05:00"],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00",
            ["04-05 01:45 +11:00", "04-06 01:45 +10:30"],
        ),
        (
            "0 0 * * *",
            "Asia/Beirut",
            "2026-10-24T12:00",
            ["10-25 00:00 +02:00", "10-26 00:00 +02:00"],
        ),
        (
            "30 23 * * *",
            "Asia/Beirut",
            "2026-10-24T12:00",
            ["10-24 23:30 +03:00", "10-25 23:30 +02:00"],
        ),
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-02-14T12:00",
            ["02-15 02:30 +01:00", "02-16 02:30 +00:00"],
        ),
    ] {
        assert_eq!(due(text, zone, from, 2), expected, "{text} in {zone}");
    }
    // Seen from its second coming it is over.
    let berlin = zone("Europe/Berlin");
    let second = at("2026-10-25T01:40:00Z");
    let daily = cron("30 2 * * *");
    assert_eq!(
        daily.last(second, &berlin),
        Some(at("2026-10-25T00:30:00Z"))
    );
    assert_eq!(
        daily.next(second, &berlin),
        Some(at("2026-10-26T01:30:00Z"))
    );
    // What is later on the wall clock came in the first pass, too.
    let later = cron("45 2 * * *");
    assert_eq!(
        later.last(at("2026-10-25T01:10:00Z"), &berlin),
        Some(at("2026-10-25T00:45:00Z"))
    );
}

#[test]
fn a_job_of_every_hour_goes_by_the_time_that_passes() {
    for zone_name in [
        "Europe/Berlin",
        "America/New_York",
        "Africa/Casablanca",
        "Asia/Beirut",
    ] {
        let zone = zone(zone_name);
        for (text, step) in [
            ("*/15 * * * *", 900),
            ("0 * * * *", 3600),
            ("*/20 * * * * *", 20),
        ] {
            let cron = cron(text);
            for change in zone.following(at("2026-01-01T00:00:00Z")).take(2) {
                let mut time = change.timestamp() - SignedDuration::from_hours(4);
                for _ in 0..(8 * 3600 / step) {
                    let next = cron.next(time, &zone).unwrap();
                    assert_eq!(
                        next.duration_since(time).as_secs(),
                        step,
                        "{text} {zone_name} {next}"
                    );
                    assert_eq!(cron.last(next, &zone), Some(next));
                    time = next;
                }
            }
        }
    }
    // Half an hour is skipped there: the hour that has no full hour on the wall clock has none.
    let hours = due("0 * * * *", "Australia/Lord_Howe", "2026-10-04T00:30", 3);
    assert_eq!(
        hours,
        [
            "10-04 01:00 +10:30",
            "10-04 03:00 +11:00",
            "10-04 04:00 +11:00"
        ]
    );
}

#[test]
fn over_twenty_years_a_daily_job_runs_once_on_each_day() {
    for zone_name in [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "Asia/Beirut",
        "Africa/Casablanca",
    ] {
        let zone = zone(zone_name);
        for text in ["0 0 * * *", "30 1 * * *", "30 2 * * *", "59 23 * * *"] {
            let cron = cron(text);
            let mut day = date(2010, 1, 1);
            let mut time =
                day.to_zoned(zone.clone()).unwrap().timestamp() - SignedDuration::from_secs(1);
            while day.year() < 2030 {
                time = cron.next(time, &zone).unwrap();
                assert_eq!(zone.to_datetime(time).date(), day, "{text} in {zone_name}");
                day = day.tomorrow().unwrap();
            }
        }
    }
}

#[test]
fn a_due_time_long_ago_is_found_at_once() {
    let started = std::time::Instant::now();
    let zone = zone("Europe/Berlin");
    let time = at("2026-11-23T10:00:00Z");
    for text in [
        "* * * * * *",
        "0 0 29 2 *",
        "* * 29 2 *",
        "0 0 1 1 *",
        "0 2 29 2 1#1",
    ] {
        let cron = cron(text);
        for _ in 0..20 {
            let last = cron.last(time, &zone).unwrap();
            assert!(last <= time, "{text}");
        }
    }
    assert!(started.elapsed().as_secs() < 20);
}

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => (low..=high).prop_map(|one| one.to_string()),
        1 => (2..=high.max(3)).prop_map(|step| format!("*/{step}")),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

fn expression() -> impl Strategy<Value = Cron> {
    let seconds =
        prop_oneof![3 => Just(String::new()), 1 => field(0, 59).prop_map(|field| field + " ")];
    (
        seconds,
        field(0, 59),
        field(0, 23),
        field(1, 31),
        field(1, 12),
        field(0, 7),
    )
        .prop_map(|(s, m, h, d, month, weekday)| format!("{s}{m} {h} {d} {month} {weekday}"))
        .prop_filter_map("never due", |text| text.parse().ok())
}

fn somewhere() -> impl Strategy<Value = TimeZone> {
    let names = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "Asia/Beirut",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Pacific/Apia",
        "Antarctica/Troll",
        "Africa/Cairo",
        "Asia/Gaza",
    ];
    prop::sample::select(names.to_vec()).prop_map(zone)
}

/// Anywhere in thirty years, or close to a change of the clocks.
fn sometime() -> impl Strategy<Value = (TimeZone, Timestamp)> {
    let years = 1_000_000_000_000_i64..1_950_000_000_000;
    (
        somewhere(),
        years,
        prop::option::of(-10_000_000_i64..10_000_000),
    )
        .prop_map(|(zone, millis, near)| {
            let time = Timestamp::from_millisecond(millis).unwrap();
            let change = zone.following(time).next().map(|change| change.timestamp());
            let time = match (near, change) {
                (Some(near), Some(change)) => change + SignedDuration::from_millis(near),
                _ => time,
            };
            (zone, time)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn last_and_next_agree((zone, time) in sometime(), cron in expression()) {
        let next = cron.next(time, &zone).unwrap();
        prop_assert!(next > time);
        let last = cron.last(time, &zone).unwrap();
        prop_assert!(last <= time, "{last}");
        // Nothing is between them, from either side.
        prop_assert_eq!(cron.next(last, &zone), Some(next));
        prop_assert_eq!(cron.last(next, &zone), Some(next));
        let just_before = next - SignedDuration::from_nanos(1);
        prop_assert_eq!(cron.last(just_before, &zone), Some(last));
    }

    #[test]
    fn a_due_time_fits_on_the_wall_clock_or_is_when_the_clocks_changed((zone, time) in sometime(), cron in expression()) {
        let next = cron.next(time, &zone).unwrap();
        let wall = zone.to_datetime(next);
        let changed = changes_until(next, &zone).next() == Some(next);
        prop_assert!(changed || cron.cron.is_time_matching(&wall).unwrap(), "{wall}");
    }
}

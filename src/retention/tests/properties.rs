//! What holds whatever the backups, the policy and the zone are.

use jiff::ToSpan as _;
use proptest::prelude::*;

use super::*;

const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/St_Johns",
];

fn any_policy() -> impl Strategy<Value = Keep> {
    (
        0u32..4,
        0u32..5,
        0u32..5,
        0u32..4,
        0u32..4,
        0u32..3,
        0u64..20,
    )
        .prop_map(
            |(last, hourly, daily, weekly, monthly, yearly, hours)| Keep {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                within: Duration::from_secs(hours * 3 * 3600),
            },
        )
}

fn any_standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        6 => Just(Standing::Good),
        2 => Just(Standing::Shrunk),
        1 => Just(Standing::Damaged),
        1 => Just(Standing::Newer),
    ]
}

/// Backups within three years before and a little after the start of 2027, some at the same moment.
fn any_facts() -> impl Strategy<Value = Vec<Fact>> {
    let one = (0i64..27_000, any_standing(), 0u8..8);
    prop::collection::vec(one, 0..40).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(n, (hour, standing, pin))| Fact {
                id: format!("{n:03}"),
                began: at("2024-01-01T00:00:00Z") + hour.hours(),
                standing,
                keys: 100,
                pinned: pin == 0,
                accepted: false,
            })
            .collect()
    })
}

fn any_zone() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(&ZONES[..]).prop_map(zone)
}

proptest! {
    #[test]
    fn the_newest_good_backup_and_what_a_person_must_see_to_never_go(
        facts in any_facts(), policy in any_policy(), zone in any_zone(),
    ) {
        let now = at("2027-01-01T00:00:00Z");
        let fates = judge(&facts, rules(Some(&policy), &zone), now, Guard::Clear);
        let newest_good = facts
            .iter()
            .filter(|fact| fact.standing == Standing::Good && fact.began <= now)
            .max_by_key(|fact| (fact.began, fact.id.clone()));
        let tripped = guard(&facts, now) == Guard::Tripped;
        for (fact, fate) in facts.iter().zip(&fates) {
            let must_stay = Some(fact) == newest_good
                || fact.pinned
                || tripped
                || fact.began > now
                || matches!(fact.standing, Standing::Damaged | Standing::Newer);
            if must_stay {
                prop_assert_ne!(fate, &Fate::Goes);
            }
        }
        for fate in judge(&facts, rules(Some(&policy), &zone), now, Guard::Tripped)
            .iter()
            .chain(&judge(&facts, rules(None, &zone), now, Guard::Clear))
        {
            prop_assert_ne!(fate, &Fate::Goes);
        }
    }

    #[test]
    fn pruning_again_removes_nothing(
        facts in any_facts(), policy in any_policy(), zone in any_zone(),
    ) {
        let now = at("2027-01-01T00:00:00Z");
        let fates = judge(&facts, rules(Some(&policy), &zone), now, Guard::Clear);
        let left = left(&facts, &fates);
        let again = judge(&left, rules(Some(&policy), &zone), now, Guard::Clear);
        prop_assert!(!again.contains(&Fate::Goes));
    }

    #[test]
    fn pruning_makes_no_good_backup_shrunk_and_pruning_again_removes_nothing(
        all in prop::collection::vec((0i64..2_000, 1u64..1_000, 0u8..12), 0..40),
        policy in any_policy(),
        zone in any_zone(),
    ) {
        let now = at("2027-01-01T00:00:00Z");
        let archive = all.into_iter().enumerate().map(|(n, (hour, keys, marker))| Fact {
            pinned: marker == 0,
            accepted: marker == 1,
            keys,
            ..good(at("2026-01-01T00:00:00Z") + hour.hours(), &format!("{n:03}"))
        });
        let (archive, once) = pruned(archive.collect(), &policy, &zone, now);
        for fact in &once {
            let before = archive.iter().find(|before| before.id == fact.id).unwrap();
            prop_assert!(before.standing == Standing::Shrunk || fact.standing == Standing::Good);
        }
        let (_, twice) = pruned(once.clone(), &policy, &zone, now);
        prop_assert_eq!(ids(&once), ids(&twice));
    }

    #[test]
    fn the_order_in_which_backups_are_given_does_not_matter(
        (facts, shuffled) in any_facts().prop_flat_map(|facts| {
            let order: Vec<usize> = (0..facts.len()).collect();
            (Just(facts), Just(order).prop_shuffle())
        }),
        policy in any_policy(),
        zone in any_zone(),
    ) {
        let now = at("2027-01-01T00:00:00Z");
        let fates = judge(&facts, rules(Some(&policy), &zone), now, Guard::Clear);
        let mixed: Vec<Fact> = shuffled.iter().map(|&at| facts[at].clone()).collect();
        let other = judge(&mixed, rules(Some(&policy), &zone), now, Guard::Clear);
        for (place, &at) in shuffled.iter().enumerate() {
            prop_assert_eq!(&fates[at], &other[place]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What pruning after every backup leaves is what the policy would pick from all that were ever made.
    #[test]
    fn a_backup_is_not_dropped_while_a_rule_still_needs_it(
        gaps in prop::collection::vec(prop_oneof![
            6 => 1i64..40, 2 => 40i64..300, 1 => 300i64..9_000,
        ], 1..150),
        policy in any_policy(),
        zone in any_zone(),
    ) {
        let mut now = at("2023-02-27T03:17:00Z");
        let mut ever: Vec<Fact> = Vec::new();
        let mut archive: Vec<Fact> = Vec::new();
        for (n, gap) in gaps.into_iter().enumerate() {
            now += gap.hours();
            let made = good(now, &format!("{n:04}"));
            ever.push(made.clone());
            archive.push(made);
            let fates = judge(&archive, rules(Some(&policy), &zone), now, Guard::Clear);
            archive = left(&archive, &fates);
            let promised = left(&ever, &judge(&ever, rules(Some(&policy), &zone), now, Guard::Clear));
            prop_assert_eq!(&archive, &promised);
        }
    }
}

#[test]
fn years_of_a_schedule_leave_what_the_policy_promises() {
    let policy = policy("last=4 hourly=6 daily=7 weekly=4 monthly=6 yearly=2 within=2d");
    for name in ["Europe/Berlin", "America/St_Johns"] {
        let zone = zone(name);
        let (mut archive, mut ever): (Vec<Fact>, Vec<Fact>) = Default::default();
        let mut now = at("2004-12-20T00:10:00Z");
        for n in 0..3 * 365 * 4 {
            now += 6.hours();
            let made = good(now, &format!("{n:05}"));
            ever.push(made.clone());
            archive.push(made);
            let fates = judge(&archive, rules(Some(&policy), &zone), now, Guard::Clear);
            archive = left(&archive, &fates);
        }
        let fates = judge(&ever, rules(Some(&policy), &zone), now, Guard::Clear);
        assert_eq!(archive, left(&ever, &fates), "{name}");
        let kept = judge(&archive, rules(Some(&policy), &zone), now, Guard::Clear);
        for (rule, count) in [
            (Rule::Hourly, 6),
            (Rule::Daily, 7),
            (Rule::Weekly, 4),
            (Rule::Monthly, 6),
            (Rule::Yearly, 2),
        ] {
            let of_rule = kept.iter().filter(|fate| match fate {
                Fate::Stays(reasons) => reasons
                    .iter()
                    .any(|reason| matches!(reason, Reason::Newest(of, _) if *of == rule)),
                Fate::Goes => false,
            });
            assert_eq!(of_rule.count(), count, "{rule} in {name}");
        }
    }
}

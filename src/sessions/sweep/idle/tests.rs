use super::*;

fn look(seconds: i64, forks: u32, child: bool) -> Look {
    let info = format!(
        "run_id:r\r\nrole:master\r\nmaster_replid:p\r\nmaxmemory_policy:noeviction\r\n\
         uptime_in_seconds:{seconds}\r\ntotal_forks:{forks}\r\nlatest_fork_usec:9\r\nused_cpu_sys_children:0.{forks}\r\n\
         rdb_bgsave_in_progress:{}\r\n",
        u8::from(child)
    );
    Look::of(&Facts::parse(&info), seconds * 1000, seconds * 1000).unwrap()
}

fn watch(looks: &[Look]) -> Watch {
    let known = looks
        .iter()
        .fold(None, |known, look| Some(Watch::after(known, look)));
    known.unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_key_is_unused_for_no_longer_than_there_was_no_fork() {
    let calm = watch(&[look(1000, 3, false), look(1100, 3, false)]);
    assert_eq!(calm.unused(50, 1_100_000), Some(Duration::from_secs(48)));
    assert_eq!(calm.unused(5000, 1_100_000), Some(Duration::from_secs(100)));
    assert_eq!(calm.unused(0, 1_100_000), Some(Duration::ZERO));
    assert_eq!(calm.judge(MINUTE), Ok(()));
}

#[test]
fn after_a_fork_the_time_begins_anew_and_while_a_child_lives_nothing_is_known() {
    let mut looks = vec![look(1000, 3, false), look(1100, 3, false)];
    looks.push(look(1110, 4, true));
    assert_eq!(watch(&looks).unused(5000, 1_110_000), None);
    looks.push(look(1120, 4, false));
    let after = watch(&looks);
    assert_eq!(after.unused(5000, 1_125_000), Some(Duration::from_secs(5)));
    // It was long enough once, and will be again.
    assert!(matches!(after.judge(MINUTE), Err(Guard::Watching { .. })));
}

#[test]
fn a_fork_between_two_looks_is_seen_by_the_count_or_by_other_traces() {
    let begin = look(1000, 3, false);
    let counted = watch(&[begin.clone(), look(1100, 4, false)]);
    assert_eq!(
        counted.unused(5000, 1_101_000),
        Some(Duration::from_secs(1))
    );
    // CONFIG RESETSTAT, and three forks since.
    let mut reset = look(1100, 3, false);
    reset.traces[2] = "used_cpu_sys_children:0.9".to_owned();
    let reset = watch(&[begin, reset]);
    assert_eq!(reset.unused(5000, 1_101_000), Some(Duration::from_secs(1)));
}

#[test]
fn another_run_or_standing_or_policy_of_the_server_or_a_clock_set_back_begins_anew() {
    let begin = look(1000, 3, false);
    let mut other = look(1100, 3, false);
    other.identity.run_id = "s".to_owned();
    let mut promoted = look(1100, 3, false);
    promoted.identity.replid = "q".to_owned();
    let mut policy = look(1100, 3, false);
    policy.identity.policy = "allkeys-lru".to_owned();
    for other in [other, promoted, policy] {
        let other = watch(&[begin.clone(), other]);
        assert_eq!((other.watched_since_ms, other.longest_ms), (1_100_000, 0));
    }
    let back = watch(&[begin, look(900, 3, false)]);
    assert_eq!(back.calm_since_ms, Some(900_000));
}

/// Trust in a server that was started at 0, and looked at when it was a day old and a day later.
fn trusted(timeouts_s: &[u64]) -> Trusted {
    use crate::config::{KeyRegex, SessionStore};
    let rule = |seconds: &u64| SessionRule {
        idle: true,
        grace: Duration::ZERO,
        ..SessionRule::new(
            SessionStore::Opaque,
            KeyRegex::new("^o").unwrap(),
            Duration::from_secs(*seconds),
        )
    };
    let rules: Vec<SessionRule> = timeouts_s.iter().map(rule).collect();
    let look = |at| look(at, 3, false);
    let abilities = Abilities {
        scripts: true,
        no_touch: true,
    };
    let facts = Facts::parse("uptime_in_seconds:172800\r\n");
    let seen = watch(&[look(86_400), look(172_800)]);
    judge(&rules, &facts, abilities, seen, &look(172_800)).unwrap()
}

#[test]
fn an_idle_time_that_cannot_be_is_no_evidence() {
    let mut young = trusted(&[60]);
    let now = 172_800_000;
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(young.unused(3602, now), hour);
    assert!(young.unused(172_800, now).is_some());
    // The bits of an LFU counter; a key that was used a second before the clock was set back by ten.
    for idle_s in [172_803, 7_026_865, 16_777_207] {
        assert_eq!(young.unused(idle_s, now), None, "{idle_s}");
    }
    // As long as it has run it may be idle later, too.
    assert!(young.unused(172_803, now + 1000).is_some());
    let year = 365 * 86_400;
    let old = Trusted {
        started_s: -year,
        ..young.clone()
    };
    assert!(old.unused(181 * 86_400, now).is_some());
    for idle_s in [188 * 86_400, 16_777_207] {
        assert_eq!(old.unused(idle_s, now), None, "{idle_s}");
    }
    assert_eq!(young.waits(), None);
    young.at(now + 10_000);
    young.at(now + 9_999);
    young.at(now + 20_000);
    assert_eq!(young.unused(3602, now + 20_000), None);
    assert!(young.waits().unwrap().contains("set back"));
}

#[test]
fn a_rule_that_must_wait_holds_up_no_other() {
    let both = trusted(&[60, 100_000]);
    let waits = both.waits().unwrap();
    assert!(waits.starts_with("rule 2: while it forks"), "{waits}");
    assert!(
        waits.contains("without a fork until 1970-01-03 03:46:41 UTC"),
        "{waits}"
    );
    assert!(both.unused(200, 172_800_000).unwrap() > MINUTE);
    // Not run for long enough, either.
    let young = trusted(&[400_000]).waits().unwrap();
    assert!(young.starts_with("it has run for 2d"), "{young}");
}

#[test]
fn it_is_said_when_it_will_work_and_when_it_cannot() {
    let first = watch(&[look(1000, 3, false)]);
    let Err(Guard::Watching { since, able, .. }) = first.judge(MINUTE) else {
        panic!("not refused")
    };
    assert_eq!(since, "1970-01-01 00:16:40 UTC");
    assert_eq!(able, "1970-01-01 00:17:41 UTC");
    let often: Vec<Look> = (0..10)
        .map(|at| look(1000 + i64::from(at) * 30, at, false))
        .collect();
    assert!(matches!(
        watch(&often).judge(MINUTE),
        Err(Guard::ForksTooOften { .. })
    ));
    assert_eq!(
        watch(&[look(1000, 3, true)]).judge(MINUTE),
        Err(Guard::ChildAtWork)
    );
}

#[test]
fn what_is_kept_is_found_again_and_what_makes_no_sense_is_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::of(folder.path(), "sessions");
    memory
        .keep(&memory.add(&look(1000, 3, false)).unwrap())
        .unwrap();
    let again = memory.add(&look(1100, 3, false)).unwrap();
    assert_eq!(again.calm_since_ms, Some(1_000_000));
    memory.keep(&again).unwrap();
    std::fs::write(&memory.path, b"{").unwrap();
    let anew = memory.add(&look(1200, 3, false)).unwrap();
    assert_eq!(anew.calm_since_ms, Some(1_200_000));
    memory.forget().unwrap();
    memory.forget().unwrap();
    assert!(!memory.path.exists());
}

#[test]
fn lfu_and_servers_that_count_no_forks_are_refused() {
    let of = |info: &str| Look::of(&Facts::parse(info), 0, 0);
    assert!(matches!(
        of("run_id:r\r\ntotal_forks:0\r\nmaxmemory_policy:allkeys-lfu\r\n"),
        Err(Guard::Lfu { .. })
    ));
    assert_eq!(of("run_id:r\r\n"), Err(Guard::ForksUncounted));
}

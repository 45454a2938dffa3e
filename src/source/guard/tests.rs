use super::*;

const GIB: u64 = 1 << 30;

/// A server of ten GiB on this host, where all is well.
fn well() -> Situation {
    Situation {
        used: 10 * GIB,
        resident: 11 * GIB,
        save: Duration::from_secs(100),
        host: Some(Host {
            available: 20 * GIB,
            overcommit: 1,
            ..Host::default()
        }),
        total: Some(40 * GIB),
        ..Situation::default()
    }
}

fn on(change: impl FnOnce(&mut Host)) -> Situation {
    let mut situation = well();
    if let Some(host) = &mut situation.host {
        change(host);
    }
    situation
}

fn over_the_network(total_gib: u64) -> Situation {
    Situation {
        host: None,
        total: Some(total_gib * GIB),
        ..well()
    }
}

fn limited(hard: u64, soft: u64, seconds: u64) -> Situation {
    Situation {
        input_per_second: 1 << 20,
        buffer: Some(BufferLimit {
            hard,
            soft,
            soft_for: Duration::from_secs(seconds),
        }),
        ..well()
    }
}

#[test]
fn each_danger_is_found_and_what_is_well_is_left_alone() {
    type Row<'a> = (&'a str, Situation, &'a [(bool, &'a str)]);
    let table: [Row<'_>; 21] = [
        ("all is well", well(), &[]),
        (
            "overcommitting, never refused",
            on(|h| h.available = 2 * GIB),
            &[(false, "not for the worst case (10")],
        ),
        (
            "as the kernel sees fit, enough",
            on(|h| h.overcommit = 0),
            &[],
        ),
        (
            "as the kernel sees fit, too little",
            on(|h| (h.overcommit, h.available, h.swap_free) = (0, 8 * GIB, GIB)),
            &[
                (true, "vm.overcommit_memory is 0, 9"),
                (false, "worst case"),
            ],
        ),
        (
            "swap may be promised, too",
            on(|h| (h.overcommit, h.available, h.swap_free) = (0, 8 * GIB, 2 * GIB)),
            &[(false, "worst case")],
        ),
        (
            "strict, and not known what is left",
            on(|h| h.overcommit = 2),
            &[],
        ),
        (
            "strict, enough",
            on(|h| (h.overcommit, h.commit_left) = (2, Some(10 * GIB))),
            &[],
        ),
        (
            "strict, too little",
            on(|h| (h.overcommit, h.commit_left) = (2, Some(9 * GIB))),
            &[(true, "vm.overcommit_memory is 2, 9")],
        ),
        // A tenth is the least that is expected.
        (
            "no memory for a tenth",
            on(|h| h.available = GIB / 2),
            &[(true, "this host has 512")],
        ),
        (
            "a control group is tighter than the host",
            on(|h| h.group_left = Some(GIB / 2)),
            &[(true, "control group")],
        ),
        (
            "a control group that is wider",
            on(|h| h.group_left = Some(30 * GIB)),
            &[],
        ),
        (
            "the last save copied more than there is",
            Situation {
                last_copied: 6 * GIB,
                ..on(|h| h.available = 5 * GIB)
            },
            &[(true, "about 6")],
        ),
        (
            "many changes: 20 000 a second for 100 s, a page each, are 7.6 GiB",
            Situation {
                changes_per_second: 20_000,
                ..on(|h| h.available = 7 * GIB)
            },
            &[(true, "about 7.6")],
        ),
        (
            "the same with more memory",
            Situation {
                changes_per_second: 20_000,
                ..on(|h| h.available = 8 * GIB)
            },
            &[(false, "worst case")],
        ),
        (
            "huge pages: 20 changes a second copy as much as a lot",
            Situation {
                changes_per_second: 40,
                ..on(|h| (h.available, h.huge_pages) = (7 * GIB, true))
            },
            &[(true, "about 7.8")],
        ),
        (
            "never more than all of it",
            Situation {
                changes_per_second: u64::MAX,
                last_copied: u64::MAX,
                ..well()
            },
            &[],
        ),
        ("over the network, room", over_the_network(40), &[]),
        (
            "over the network, less",
            over_the_network(16),
            &[(false, "at most 5")],
        ),
        (
            "over the network, none",
            over_the_network(11),
            &[(true, "at most 0")],
        ),
        (
            "nothing is known",
            Situation {
                host: None,
                total: None,
                ..well()
            },
            &[],
        ),
        (
            "what else is worth knowing",
            Situation {
                last_fork: Duration::from_millis(1500),
                rewrites_aof: true,
                diskless: Some(false),
                ..well()
            },
            &[
                (false, "held up"),
                (false, "AOF"),
                (false, "repl-diskless-sync is no"),
            ],
        ),
    ];
    for (what, situation, expected) in table {
        let found = judge(&situation);
        assert_eq!(found.len(), expected.len(), "{what}: {found:?}");
        for (finding, (grave, part)) in found.iter().zip(expected) {
            assert_eq!(finding.grave, *grave, "{what}: {found:?}");
            assert!(finding.text.contains(part), "{what}: {part}: {found:?}");
            assert_eq!(finding.cure.is_some(), *grave, "{what}");
        }
    }
}

#[test]
fn a_limit_counts_when_more_would_wait_than_it_allows() {
    const MIB: u64 = 1 << 20;
    // 100 MiB come in while the dump is made.
    for (hard, soft, seconds, expected) in [
        (0, 0, 0, None),
        (256 * MIB, 64 * MIB, 200, None),
        (256 * MIB, 64 * MIB, 60, Some("soft")),
        (256 * MIB, 128 * MIB, 60, None),
        (99 * MIB, 0, 0, Some("hard")),
        (100 * MIB, 0, 0, None),
    ] {
        let found = judge(&limited(hard, soft, seconds));
        let case = format!("{hard} {soft} {seconds}: {found:?}");
        match expected {
            None => assert!(found.is_empty(), "{case}"),
            Some(which) => {
                assert_eq!(found.len(), 1, "{case}");
                let text = format!("the {which} limit of client-output-buffer-limit");
                assert!(found[0].grave && found[0].text.contains(&text), "{case}");
            }
        }
    }
}

#[test]
fn the_limit_of_replicas_is_found_by_either_name() {
    let limit = BufferLimit {
        hard: 256,
        soft: 64,
        soft_for: Duration::from_secs(60),
    };
    for text in [
        "normal 0 0 0 slave 256 64 60 pubsub 32 8 60",
        "normal 0 0 0 replica 256 64 60 pubsub 32 8 60",
    ] {
        assert_eq!(BufferLimit::parse(text), Some(limit));
    }
    for text in ["", "slave", "slave 1 2", "normal 0 0 0", "slave a b c"] {
        assert_eq!(BufferLimit::parse(text), None, "{text}");
    }
}

#[test]
fn what_info_tells_becomes_a_situation() {
    let facts = Facts::parse(
        "redis_version:7.0.15\nused_memory:104857600\nused_memory_rss:209715200\nrdb_last_cow_size:7\n\
         rdb_changes_since_last_save:1000\nrdb_last_save_time:100\nrdb_last_bgsave_time_sec:-1\n\
         instantaneous_input_kbps:1.50\nlatest_fork_usec:1200000\ntotal_system_memory:0\naof_rewrite_in_progress:1",
    );
    let situation = Situation::new(&facts, None, 110);
    assert_eq!((situation.used, situation.resident), (100 << 20, 200 << 20));
    assert_eq!(situation.changes_per_second, 100);
    assert_eq!(situation.input_per_second, 1536);
    assert_eq!(situation.save, Duration::from_secs(2), "by its size");
    assert_eq!(situation.last_fork, Duration::from_millis(1200));
    assert_eq!((situation.total, situation.last_copied), (None, 7));
    assert!(situation.rewrites_aof);
    // A clock that is behind the server's makes no nonsense.
    assert_eq!(Situation::new(&facts, None, 0).changes_per_second, 1000);
    let told = Facts::parse("rdb_last_bgsave_time_sec:9\nused_memory:104857600");
    assert_eq!(Situation::new(&told, None, 0).save, Duration::from_secs(9));
}

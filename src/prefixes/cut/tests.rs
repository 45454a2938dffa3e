use super::*;
use proptest::prelude::*;

fn shown(key: &str) -> String {
    let cut = cut(key.as_bytes());
    let star = if cut.shape == Shape::Whole { "" } else { "*" };
    let sure = if cut.sure { "" } else { " ?" };
    format!("{}{star}{sure}", cut.prefix.escape_ascii())
}

#[test]
fn what_frameworks_write_is_cut_where_its_id_begins() {
    for (key, wanted) in [
        (
            "websauna_session13ee10fb5ea4667f18783e8403cd1e59cda62395721a27e75e4acdbf9c83997a",
            "websauna_session*",
        ),
        (
            "3cb7cd903affe26b03ca30836e6a3845f441afb9841565e82ae0ed3fd183ca98",
            "*",
        ),
        (
            "session:7b8f471ccd07bcf01771313425203e9015777f0adeea7f3623ec911a024547d4",
            "session:*",
        ),
        ("websauna_session_test", "websauna_session_test"),
        ("throttle_login", "throttle_login"),
        ("seo_assets", "seo_assets"),
        ("image:cat:100x100", "image:cat:*"),
        (
            "psr-default:vYQurvG7-Cw9dF5zCKQDO4zkRpdjZIY1mgzYgGN12vrxUvjmhfnE27ShyCDGcRRZ",
            "psr-default:*",
        ),
        (
            ":1:django.contrib.sessions.cacheazckc2j60o8erqrkclm2h5bsdmzrgaxk",
            ":1:django.contrib.sessions.cache*",
        ),
        (
            "site:1:django.contrib.sessions.cached_db2ucotbtchm73w1xt535rhxgg7p8n9xck",
            "site:1:django.contrib.sessions.cached_db*",
        ),
        (":1:counter", ":1:*"),
        (
            "session:x9CF3RlMUW4ATO7ERE4OYqkOhLTGbV1Wc6XL7tTOl_g",
            "session:*",
        ),
        ("sess:wJ4rG_q1Wkwt6COdy1PYVRESMPhrezG3", "sess:*"),
        ("sess:emptyempty", "sess:*"),
        (
            "PHPREDIS_SESSION:lockedlockedlockedlocked00_LOCK",
            "PHPREDIS_SESSION:*",
        ),
        (
            "rack:session:2::1615b484b05567b45e6af25243d384eb415b20aaaebe4ed082e4b59544e7a472",
            "rack:session:2::*",
        ),
        (
            "laravel_database_laravel_cache_q1X2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1Bz",
            "laravel_database_laravel_cache_* ?",
        ),
        (
            "celery-task-meta-11111111-1111-1111-1111-111111111111",
            "celery-task-meta-*",
        ),
        (
            "celery-taskset-meta-3d9a8047-37dc-464a-b8d4-efd3ae75cd45.d",
            "celery-taskset-meta-*",
        ),
        (
            "_kombu.binding.celery.pidbox",
            "_kombu.binding.celery.pidbox",
        ),
        ("celery\x06\x166", "celery\\x06\\x16*"),
        ("unacked_index", "unacked_index"),
        (
            "session_-x9CF3RlMUW4ATO7ERE4OYqkOhLTGbV1Wc6XL7tTOl_g",
            "session_* ?",
        ),
        ("x_9CF3RlMUW4ATO7ERE4OYqkOhLTGbV1Wc6XL7tTOl_g", "*"),
        (
            "spring:session:sessions:expires:11111111-1111-4111-8111-111111111111",
            "spring:session:sessions:expires:*",
        ),
        (
            "spring:session:expirations:1795384980000",
            "spring:session:expirations:*",
        ),
        ("order12345", "order*"),
        ("user@example.com", "* ?"),
        ("mail:user@example.com:state", "mail:*"),
        ("", ""),
    ] {
        let wanted = wanted.replace("* ?", if wanted == "* ?" { "*" } else { "* ?" });
        assert_eq!(shown(key), wanted, "{key}");
    }
}

#[test]
fn ids_without_a_prefix_are_not_shown() {
    for key in [
        "x9CF3RlMUW4ATO7ERE4OYqkOhLTGbV1Wc6XL7tTOlag",
        "abcdefghijklmnopqrstuvwxyzabcdefghijkl",
        "azckc2j60o8erqrkclm2h5bsdmzrgaxk",
        "11111111-1111-4111-8111-111111111111",
        "\u{e4}pfel",
    ] {
        assert_eq!(cut(key.as_bytes()).prefix, b"", "{key}");
    }
    assert_eq!(cut(&[0xff, 0xfe, 0x80]).prefix, b"");
    assert_eq!(cut(&b"ab/".repeat(100)).prefix, b"");
}

#[test]
fn parents_are_cut_at_separators() {
    assert_eq!(parent(b"a:b_c-"), Some(&b"a:b_"[..]));
    assert_eq!(parent(b"a:b_"), Some(&b"a:"[..]));
    assert_eq!(parent(b"a:"), None);
    assert_eq!(parent(b""), None);
}

#[test]
fn a_masked_name_shows_the_prefix_and_no_more() {
    let id = "13ee10fb5ea4667f18783e8403cd1e59cda62395721a27e75e4acdbf9c83997a";
    assert_eq!(
        masked(format!("websauna_session{id}").as_bytes()),
        "\"websauna_session…\" (80 bytes)"
    );
    assert_eq!(masked(id.as_bytes()), "\"13ee…\" (64 bytes)");
    assert_eq!(masked(b"unacked"), "\"u…\" (7 bytes)");
}

/// The IDs that frameworks make: a length, and the letters that they are of.
const MAKERS: [(usize, &str); 8] = [
    (64, "0123456789abcdef"),
    (32, "0123456789abcdef"),
    (
        40,
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    ),
    (32, "0123456789abcdefghijklmnopqrstuvwxyz"),
    (
        43,
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_",
    ),
    (
        32,
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_",
    ),
    (
        64,
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_",
    ),
    (
        26,
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,-",
    ),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_sure_prefix_holds_five_letters_of_an_id(
        maker in 0..MAKERS.len(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 64),
        head in prop::sample::select(vec!["", "session:", "sess:", "websauna_session", "PHPREDIS_SESSION:", "rack:2::", "app_cache_", "a:b:c:"]),
    ) {
        let (length, letters) = MAKERS[maker];
        let id: String = picks[..length].iter().map(|pick| char::from(*pick.get(letters.as_bytes()))).collect();
        let key = format!("{head}{id}");
        let cut = cut(key.as_bytes());
        if cut.sure {
            prop_assert!(cut.prefix.len() < head.len() + 5, "{} cut at {}", key, cut.prefix.len());
        }
        let shown = masked(key.as_bytes());
        prop_assert!(id.as_bytes().windows(5).all(|part| !shown.contains(std::str::from_utf8(part).unwrap())));
    }

    #[test]
    fn anything_can_be_cut(key in prop::collection::vec(any::<u8>(), 0..200)) {
        let cut = cut(&key);
        prop_assert_eq!([cut.prefix, cut.rest].concat(), key.clone());
        prop_assert!(cut.prefix.len() <= LONGEST_PREFIX);
        let _ = masked(&key);
    }
}

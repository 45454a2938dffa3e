#![allow(clippy::unwrap_used)]
use std::path::Path;

use age::secrecy::ExposeSecret as _;

use super::*;
use crate::config::{Encryption, FileRef, SecretSource};
use crate::pipeline::Compression;
use crate::pipeline::keys::{Holds, KeySource};
use crate::pipeline::outbound::{PackedFacts, Packer, Settings};
use crate::pipeline::seal::Seal;
use crate::pool::Pool;
use crate::secret::Secret;

fn pack(plain: &[u8], compression: Compression, threads: usize) -> (Vec<u8>, PackedFacts) {
    pack_sealed(plain, compression, threads, None)
}

fn pack_sealed(
    plain: &[u8],
    compression: Compression,
    threads: usize,
    seal: Option<Seal>,
) -> (Vec<u8>, PackedFacts) {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(2);
    let taking = std::thread::spawn(move || {
        let mut stored = Vec::<u8>::new();
        while let Some(part) = receiver.blocking_recv() {
            stored.extend_from_slice(&part);
        }
        stored
    });
    let settings = Settings {
        compression,
        threads,
        seal,
    };
    let mut packer = Packer::start(settings, Pool::new(100_000), sender).unwrap();
    for piece in plain.chunks(70_001) {
        packer.write(piece).unwrap();
    }
    let facts = packer.finish().unwrap();
    (taking.join().unwrap(), facts)
}

fn read_back(
    stored: &[u8],
    expected: Option<&Expected>,
) -> Result<Vec<u8>, Error<std::convert::Infallible>> {
    read_with(stored, expected, &Keys::default())
}

fn read_with(
    stored: &[u8],
    expected: Option<&Expected>,
    keys: &Keys,
) -> Result<Vec<u8>, Error<std::convert::Infallible>> {
    let (sender, receiver) = mpsc::channel(1);
    let stored = stored.to_vec();
    let feeding = std::thread::spawn(move || {
        for chunk in stored.chunks(33_333) {
            if sender
                .blocking_send(Ok(Bytes::copy_from_slice(chunk)))
                .is_err()
            {
                return;
            }
        }
    });
    let mut plain = Vec::new();
    let result = unpack(receiver, expected, keys, |piece| {
        plain.extend_from_slice(piece);
        Ok(())
    });
    feeding.join().unwrap();
    result.map(|_| plain)
}

fn sample() -> Vec<u8> {
    (0..5_300_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> (24 + (i >> 18) % 6)) as u8)
        .collect()
}

fn expected(facts: PackedFacts) -> Expected {
    Expected {
        bytes: facts.bytes,
        sha256: facts.sha256,
        plain_bytes: facts.plain_bytes,
        plain_sha256: facts.plain_sha256,
    }
}

#[test]
fn what_is_packed_unpacks_to_the_same_bytes_with_every_compression_and_thread_count() {
    let plain = sample();
    for compression in [
        Compression::None,
        Compression::Zstd(1),
        Compression::Gzip(1),
    ] {
        for threads in [1, 3] {
            let (stored, facts) = pack(&plain, compression, threads);
            assert_eq!(facts.bytes, stored.len() as u64);
            assert_eq!(facts.plain_sha256, crate::pipeline::sha256(&plain));
            assert_eq!(facts.sha256, crate::pipeline::sha256(&stored));
            let expected = expected(facts);
            assert!(read_back(&stored, Some(&expected)).unwrap() == plain);
        }
    }
}

#[test]
fn a_flip_a_cut_and_an_extension_are_damage_wherever_they_are() {
    let plain = &sample()[..300_000];
    for compression in [
        Compression::None,
        Compression::Zstd(3),
        Compression::Gzip(1),
    ] {
        let (stored, facts) = pack(plain, compression, 2);
        let expected = expected(facts);
        for at in (0..stored.len()).step_by(stored.len() / 97) {
            let mut flipped = stored.clone();
            flipped[at] ^= 1 << (at % 8);
            let read = read_back(&flipped, Some(&expected));
            assert!(
                matches!(read, Err(Error::Damaged(_))),
                "{compression} flipped at {at}"
            );
            let read = read_back(&stored[..at], Some(&expected));
            assert!(
                matches!(read, Err(Error::Damaged(_))),
                "{compression} cut at {at}"
            );
        }
        for tail in [&[0u8][..], &stored, b"x"] {
            let long = [&stored[..], tail].concat();
            assert!(matches!(
                read_back(&long, Some(&expected)),
                Err(Error::Damaged(_))
            ));
        }
    }
}

#[test]
fn a_storage_error_is_told_as_such() {
    let (sender, receiver) = mpsc::channel(2);
    let error = storage::Error::new(storage::Problem::Unavailable, "s", "read x");
    sender
        .try_send(Ok(Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 4])))
        .unwrap();
    sender.try_send(Err(error)).unwrap();
    let result = unpack(receiver, None, &Keys::default(), |_| Ok::<_, ()>(()));
    assert!(matches!(result, Err(Error::Storage(_))));
}

fn passphrase(text: &str) -> SecretSource {
    SecretSource::Inline(Secret::new(text))
}

fn identities(identities: &[&age::x25519::Identity]) -> Keys {
    let lines = identities
        .iter()
        .map(|identity| identity.to_string().expose_secret().to_owned());
    let text: Vec<String> = lines.collect();
    Keys::new(vec![KeySource {
        holds: Holds::Identities,
        secret: SecretSource::Inline(Secret::new(text.join("\n"))),
        name: "`identity` of x".to_owned(),
    }])
}

fn with_passphrase(text: &str) -> Keys {
    Keys::new(vec![KeySource {
        holds: Holds::Passphrase,
        secret: passphrase(text),
        name: "`passphrase` of x".to_owned(),
    }])
}

fn sealed_to(plain: &[u8], to: &[&age::x25519::Identity]) -> (Vec<u8>, PackedFacts) {
    let recipients = to
        .iter()
        .map(|identity| identity.to_public().to_string().parse().unwrap());
    let seal = Seal::new(&Encryption::Recipients(recipients.collect())).unwrap();
    pack_sealed(plain, Compression::Zstd(1), 2, seal)
}

fn two() -> [age::x25519::Identity; 2] {
    [(); 2].map(|()| age::x25519::Identity::generate())
}

#[test]
fn what_is_encrypted_opens_with_each_of_its_keys() {
    let plain = sample();
    let [one, other] = two();
    let (stored, facts) = sealed_to(&plain, &[&one, &other]);
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
    let header = facts.header.clone().unwrap();
    let first = &stored[..header.bytes as usize];
    assert_eq!(crate::pipeline::sha256(first), header.sha256);
    assert_eq!(facts.plain_sha256, crate::pipeline::sha256(&plain));
    let expected = expected(facts);
    let [stranger, _] = two();
    for keys in [&[&one][..], &[&other], &[&stranger, &one]] {
        let keys = identities(keys);
        keys.prove(&stored[..8192]).unwrap();
        assert!(read_with(&stored, Some(&expected), &keys).unwrap() == plain);
        // A file without a manifest.
        assert!(read_with(&stored, None, &keys).unwrap() == plain);
    }
}

#[test]
fn archives_of_every_length_around_a_chunk_come_back() {
    let [one, _] = two();
    let keys = identities(&[&one]);
    for length in [0usize, 1, 65_535, 65_536, 65_537, 131_072] {
        let plain = &sample()[..length];
        let seal = Seal::new(&Encryption::Recipients(vec![
            one.to_public().to_string().parse().unwrap(),
        ]))
        .unwrap();
        let (stored, facts) = pack_sealed(plain, Compression::None, 1, seal);
        let expected = expected(facts);
        assert!(read_with(&stored, Some(&expected), &keys).unwrap() == plain);
    }
}

#[test]
fn a_wrong_a_missing_and_an_unusable_key_are_told_apart_and_none_is_damage() {
    let [one, stranger] = two();
    let (stored, facts) = sealed_to(b"REDIS", &[&one]);
    let expected = expected(facts);
    let read = |keys: &Keys| match read_with(&stored, Some(&expected), keys) {
        Err(Error::Key(error)) => error,
        other => panic!("{other:?}"),
    };
    let public = stranger.to_public().to_string();
    assert!(matches!(
        read(&identities(&[&stranger])),
        KeyError::Wrong { passphrase: false, tried, .. } if tried == [public]
    ));
    let missing = KeyError::Missing { passphrase: false };
    assert_eq!(read(&Keys::default()), missing);
    // A passphrase opens nothing that is encrypted to recipients.
    assert_eq!(read(&with_passphrase("x")), missing);
    let unusable = Keys::new(vec![KeySource {
        holds: Holds::Identities,
        secret: SecretSource::File(FileRef::at(Path::new("/nowhere/key"))),
        name: "`identity_file` of x".to_owned(),
    }]);
    let error = read(&unusable);
    assert!(
        matches!(&error, KeyError::Unusable { problems } if problems[0].contains("/nowhere/key")),
        "{error}"
    );
}

#[test]
fn a_passphrase_opens_what_it_encrypted_and_its_work_is_done_once() {
    let plain = sample();
    let seal = Seal::new(&Encryption::Passphrase(passphrase("correct horse"))).unwrap();
    let (stored, facts) = pack_sealed(&plain, Compression::Gzip(1), 2, seal);
    let text = String::from_utf8_lossy(&stored[..200]).into_owned();
    let stanza = text.lines().nth(1).unwrap();
    assert!(
        stanza.starts_with("-> scrypt ") && stanza.ends_with(" 17"),
        "{stanza}"
    );
    let expected = expected(facts);
    let keys = with_passphrase("correct horse");
    keys.prove(&stored[..8192]).unwrap();
    assert!(keys.has_open(&stored[..8192]));
    assert!(read_with(&stored, Some(&expected), &keys).unwrap() == plain);
    let wrong = read_with(&stored, Some(&expected), &with_passphrase("correct horsf"));
    assert!(matches!(
        wrong,
        Err(Error::Key(KeyError::Wrong {
            passphrase: true,
            ..
        }))
    ));
    let missing = read_with(&stored, Some(&expected), &Keys::default());
    assert!(matches!(
        missing,
        Err(Error::Key(KeyError::Missing { passphrase: true }))
    ));
}

#[test]
fn a_flip_a_cut_and_an_extension_of_an_encrypted_archive_are_damage_with_any_key() {
    let [one, stranger] = two();
    let (stored, facts) = sealed_to(&sample()[..150_000], &[&one]);
    let header = facts.header.clone().unwrap().bytes as usize;
    let expected = expected(facts);
    let (keys, wrong) = (identities(&[&one]), identities(&[&stranger]));
    let places = (0..header).chain((header..stored.len()).step_by(997));
    for at in places {
        let mut flipped = stored.clone();
        flipped[at] ^= 1 << (at % 8);
        for (damaged, what) in [(&flipped[..], "flipped"), (&stored[..at], "cut")] {
            for keys in [&keys, &wrong] {
                let read = read_with(damaged, Some(&expected), keys);
                assert!(
                    matches!(read, Err(Error::Damaged(_))),
                    "{what} at {at}: {read:?}"
                );
            }
            // Without a manifest a flipped bit may look like a wrong key, but never like a whole archive.
            // What does not begin as an age file is for the scanner to judge.
            let begun = at >= b"age-encryption.org/".len();
            assert!(
                !begun || read_with(damaged, None, &keys).is_err(),
                "{what} at {at}"
            );
        }
    }
    for tail in [&[0u8][..], &stored, b"x"] {
        let long = [&stored[..], tail].concat();
        for expected in [Some(&expected), None] {
            let read = read_with(&long, expected, &keys);
            assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
        }
    }
}

#[test]
fn the_header_of_a_hostile_age_file_has_an_end() {
    let mut file = b"age-encryption.org/v1\n".to_vec();
    while file.len() < 1 << 20 {
        file.extend_from_slice(b"-> x\n\n");
    }
    let [one, _] = two();
    let read = read_with(&file, None, &identities(&[&one]));
    assert!(
        matches!(&read, Err(Error::Key(error)) if error.to_string().contains("longer than")),
        "{read:?}"
    );
    let armored = b"\n-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24=\n";
    let read = read_with(armored, None, &Keys::default());
    assert!(
        matches!(read, Err(Error::Key(KeyError::Armored))),
        "{read:?}"
    );
    let later = b"age-encryption.org/v2\n-> x\n\n--- \n";
    let read = read_with(later, None, &Keys::default());
    assert!(
        matches!(read, Err(Error::Key(KeyError::Format))),
        "{read:?}"
    );
    let work = "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 21\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n0123456789abcdef";
    let read = read_with(work.as_bytes(), None, &with_passphrase("x"));
    assert!(
        matches!(read, Err(Error::Key(KeyError::Excessive { work: 21 }))),
        "{read:?}"
    );
}

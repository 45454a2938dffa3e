//! Which keys of a backup are compared with the target: all, or some that are chosen evenly.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A number for a key, by its database and name on the target.
pub fn key_hash(db: u32, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, u64::from(db))
}

/// Which keys are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// All.
    All,
    /// Those whose hash is at most `up_to`, and this one; besides the first of each type and encoding.
    Some {
        /// The highest hash that is chosen.
        up_to: u64,
        /// The hash of a key that is chosen whatever it is: the largest.
        and: Option<u64>,
    },
}

impl Chosen {
    /// About `wanted` of `keys`; all of them when there are not many more.
    pub fn about(wanted: u64, keys: u64, and: Option<u64>) -> Chosen {
        if keys <= wanted {
            return Chosen::All;
        }
        let share = u128::from(u64::MAX) * u128::from(wanted) / u128::from(keys);
        Chosen::Some {
            up_to: u64::try_from(share).unwrap_or(u64::MAX),
            and,
        }
    }

    /// Whether a key with this hash is chosen.
    pub fn takes(self, hash: u64) -> bool {
        match self {
            Chosen::All => true,
            Chosen::Some { up_to, and } => hash <= up_to || and == Some(hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_about_as_large_as_wanted_whatever_the_names_are() {
        for keys in [1_001_u64, 2_000, 10_000, 300_000] {
            for prefix in ["", "websauna_session", "cart:"] {
                let chosen = Chosen::about(1000, keys, None);
                let taken = (0..keys)
                    .filter(|number| {
                        chosen.takes(key_hash(0, format!("{prefix}{number}").as_bytes()))
                    })
                    .count();
                assert!((850..=1150).contains(&taken), "{taken} of {keys} {prefix}");
            }
        }
    }

    #[test]
    fn of_few_keys_all_are_chosen_and_the_largest_always() {
        for keys in [0, 1, 999, 1000] {
            assert_eq!(Chosen::about(1000, keys, None), Chosen::All);
        }
        let chosen = Chosen::about(1000, u64::MAX, Some(u64::MAX));
        assert!(chosen.takes(u64::MAX) && chosen.takes(0));
        assert!(!chosen.takes(u64::MAX - 1));
    }

    #[test]
    fn a_key_is_another_one_in_another_database() {
        assert_ne!(key_hash(0, b"k"), key_hash(1, b"k"));
    }
}

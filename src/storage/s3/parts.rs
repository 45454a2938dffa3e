//! How large the parts of an upload are: small at first, for memory, and larger the longer it gets, for S3 takes no
//! more than 10 000 of them.

/// How many parts an upload may have.
pub(super) const MOST: u32 = 10_000;

const MIB: u64 = 1 << 20;

/// The last part of a stretch, and the size of each part in it.
const STRETCHES: [(u32, u64); 7] = [
    (2_000, 5 * MIB),
    (5_000, 8 * MIB),
    (6_500, 16 * MIB),
    (7_200, 32 * MIB),
    (8_000, 128 * MIB),
    (9_000, 768 * MIB),
    (MOST, 4608 * MIB),
];

/// The size of a part by its number, from 1; `None` where no more are taken.
pub(super) fn size(number: u32, fixed: Option<u64>) -> Option<u64> {
    let (_, size) = STRETCHES.iter().find(|(last, _)| number <= *last)?;
    Some(fixed.unwrap_or(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(parts: u32) -> u64 {
        (1..=parts).filter_map(|number| size(number, None)).sum()
    }

    #[test]
    fn ten_thousand_parts_hold_the_largest_object_and_small_ones_come_first() {
        assert!(total(MOST) >= 5 << 40, "{}", total(MOST));
        assert_eq!(size(MOST + 1, None), None);
        // Up to here no part is larger than 32 MiB.
        assert!(total(7_200) > 80_000_000_000);
        let sizes: Vec<u64> = (1..=MOST).filter_map(|number| size(number, None)).collect();
        assert!(sizes.is_sorted());
        // What S3 takes as a part.
        assert!(
            sizes
                .iter()
                .all(|size| (5 * MIB..=5120 * MIB).contains(size))
        );
    }

    #[test]
    fn a_size_that_is_configured_holds_for_every_part() {
        assert_eq!(size(1, Some(5 * MIB)), Some(5 * MIB));
        assert_eq!(size(MOST, Some(5 * MIB)), Some(5 * MIB));
        assert_eq!(size(MOST + 1, Some(5 * MIB)), None);
    }
}

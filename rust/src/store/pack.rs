//! LZ4 blocks: batches of the log and blocks of a snapshot become shorter before they are written.
//!
//! Objects repeat field names, and revisions of one object repeat nearly everything, so most of what a disk would write says nothing
//! new. A packed block is the length that it unpacks to, as four bytes, and an LZ4 block. What does not get an eighth shorter stays
//! as it is, and so does what is shorter than a page, because a disk writes whole pages.

/// Less is not packed: a page, or in tests what short histories reach.
const PAGE: usize = if cfg!(test) { 128 } else { 4096 };

const LENGTH_LEN: usize = 4;

/// No LZ4 block stands for more bytes per byte of its own than this.
const MOST: usize = 255;

/// Pack what stands behind `at` in `bytes`; return whether that was worth it, otherwise nothing was changed. `spare` is only memory.
pub(crate) fn pack(bytes: &mut Vec<u8>, at: usize, spare: &mut Vec<u8>) -> bool {
    let plain = bytes.get(at..).unwrap_or_default();
    let Ok(length) = u32::try_from(plain.len()) else {
        return false;
    };
    if plain.len() < PAGE {
        return false;
    }
    let begin = at + LENGTH_LEN;
    spare.resize(
        begin + lz4_flex::block::get_maximum_output_size(plain.len()),
        0,
    );
    let Some((head, packed)) = spare.split_at_mut_checked(begin) else {
        return false;
    };
    let Ok(packed) = lz4_flex::block::compress_into(plain, packed) else {
        return false;
    };
    if packed > plain.len() - plain.len() / 8 {
        return false;
    }
    if let Some(field) = head.last_chunk_mut::<LENGTH_LEN>() {
        *field = length.to_le_bytes();
    }
    spare.truncate(begin + packed);
    std::mem::swap(bytes, spare);
    true
}

/// Put into `plain` what `packed` stands for, and nothing else. None when it stands for nothing.
pub(crate) fn unpack(packed: &[u8], plain: &mut Vec<u8>) -> Option<()> {
    let (length, block) = packed.split_first_chunk::<LENGTH_LEN>()?;
    let length = u32::from_le_bytes(*length) as usize;
    // A length that is damaged must not take the memory that it names.
    (length <= block.len().saturating_mul(MOST)).then_some(())?;
    plain.resize(length, 0);
    let found = lz4_flex::block::decompress_into(block, plain).ok()?;
    (found == length).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: usize = 16;

    fn behind_a_header(plain: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b'h'; AT];
        bytes.extend_from_slice(plain);
        bytes
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(word in prop::collection::vec(any::<u8>(), 1..300), times in 0usize..400) {
            let plain = word.repeat(times);
            let mut bytes = behind_a_header(&plain);
            let mut spare = b"something else".to_vec();
            if pack(&mut bytes, AT, &mut spare) {
                prop_assert!(bytes.len() < AT + plain.len());
                let mut found = b"before".to_vec();
                prop_assert_eq!(unpack(bytes.get(AT..).unwrap_or_default(), &mut found), Some(()));
                prop_assert_eq!(found, plain);
            } else {
                prop_assert_eq!(bytes, behind_a_header(&plain));
            }
        }

        #[test]
        fn whatever_is_no_block_is_refused_or_as_long_as_it_says(packed in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut found = Vec::new();
            if unpack(&packed, &mut found).is_some() {
                prop_assert_eq!(packed.first_chunk(), Some(&(found.len() as u32).to_le_bytes()));
            }
        }
    }

    #[test]
    fn what_repeats_itself_is_packed_and_what_does_not_is_left() {
        let words = b"{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}".repeat(400);
        let mut bytes = behind_a_header(&words);
        assert!(pack(&mut bytes, AT, &mut Vec::new()));
        assert!(bytes.len() < words.len() / 10);
        // A linear congruential generator's high bits, which repeat nothing.
        let mut state = 1u64;
        let noise: Vec<u8> = (0..words.len())
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        assert!(!pack(&mut behind_a_header(&noise), AT, &mut Vec::new()));
        assert!(!pack(
            &mut behind_a_header(b"aaaaaaaaaaaaaaaa"),
            AT,
            &mut Vec::new()
        ));
    }

    #[test]
    fn a_length_that_no_block_can_have_takes_no_memory() {
        let mut packed = u32::MAX.to_le_bytes().to_vec();
        packed.extend_from_slice(&[0; 8]);
        let mut found = Vec::new();
        assert_eq!(unpack(&packed, &mut found), None);
        assert_eq!(found.capacity(), 0);
    }
}

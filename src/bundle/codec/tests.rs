//! Round trips, ratios and refusals of the codec as a whole.

use proptest::prelude::*;

use super::{Decoder, Encoded, Encoder};
use crate::bundle::manifest::{Encoding, max_stored};
use crate::weights::{Random, bf16, fp16, fp32, weights};

const BF16: Encoding = Encoding::Planes {
    width: 2,
    rotate: 4,
};
const FP32: Encoding = Encoding::Planes {
    width: 4,
    rotate: 4,
};

fn encode(raw: &[u8]) -> Encoded {
    Encoder::new().unwrap().encode(raw).unwrap()
}

fn decode(encoding: Encoding, stored: &[u8], len: usize) -> crate::error::Result<Vec<u8>> {
    let mut raw = Vec::new();
    Decoder::new()?.decode(encoding, stored, len, &mut raw)?;
    Ok(raw)
}

/// Encodes, checks the way back, and returns stored bytes per 1000 raw bytes.
fn per_mille(raw: &[u8]) -> (Encoding, usize) {
    let encoded = encode(raw);
    assert!(decode(encoded.encoding, &encoded.bytes, raw.len()).unwrap() == raw);
    (encoded.encoding, encoded.bytes.len() * 1000 / raw.len())
}

#[test]
fn weights_of_every_type_shrink_as_promised() {
    let weights = weights(1, 1 << 20);
    let (encoding, size) = per_mille(&bf16(&weights));
    assert_eq!(encoding, BF16);
    assert!(size <= 665, "bf16: {size}");
    let (encoding, size) = per_mille(&fp16(&weights));
    assert!(matches!(encoding, Encoding::Planes { width: 2, .. }));
    assert!(size <= 845, "fp16: {size}");
    let (encoding, size) = per_mille(&fp32(&weights));
    assert_eq!(encoding, FP32);
    assert!(size <= 835, "fp32: {size}");
}

#[test]
fn noise_is_stored_and_text_is_compressed() {
    assert_eq!(
        per_mille(&Random(2).bytes(1 << 20)),
        (Encoding::Stored, 1000)
    );
    let text = include_str!("encode.rs").repeat(50);
    let (encoding, size) = per_mille(text.as_bytes());
    assert_eq!(encoding, Encoding::Zstd);
    assert!(size < 200, "{size}");
    assert_eq!(per_mille(&vec![0; 1 << 20]).1, 0);
    assert_eq!(encode(b"").encoding, Encoding::Stored);
}

#[test]
fn a_used_encoder_gives_the_same_bytes_as_a_new_one() {
    let weights = bf16(&weights(3, 1 << 18));
    let fresh = encode(&weights);
    let mut used = Encoder::new().unwrap();
    used.encode(&Random(4).bytes(300_000)).unwrap();
    used.encode(b"text text text text text text text text")
        .unwrap();
    let again = used.encode(&weights).unwrap();
    assert_eq!(again.encoding, fresh.encoding);
    assert!(again.bytes == fresh.bytes);
}

#[test]
fn a_file_and_its_zst_never_become_the_same_blob() {
    let coded = encode(&include_bytes!("encode.rs")[..]);
    assert_eq!(coded.encoding, Encoding::Zstd);
    let stored = encode(&coded.bytes);
    assert_ne!(stored.bytes, coded.bytes);
    let back = decode(stored.encoding, &stored.bytes, coded.bytes.len()).unwrap();
    assert_eq!(back, coded.bytes);
}

#[test]
fn every_frame_is_plain_zstd() {
    let raw = bf16(&weights(5, 1 << 17));
    let encoded = encode(&raw);
    assert_eq!(encoded.encoding, BF16);
    let planes = zstd::decode_all(&encoded.bytes[..]).unwrap();
    let mut expected = vec![0; raw.len()];
    super::planes::split(&raw, 2, 4, &mut expected);
    assert!(planes == expected);
}

#[test]
fn hostile_bytes_are_refused_within_the_promised_length() {
    let raw = bf16(&weights(6, 1 << 17));
    let good = encode(&raw).bytes;
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &good].concat();
    let cases: [(&str, Encoding, Vec<u8>, usize); 10] = [
        ("nothing", BF16, vec![], raw.len()),
        (
            "truncated",
            BF16,
            good[..good.len() - 1].to_vec(),
            raw.len(),
        ),
        ("trailing", BF16, [&good[..], b"x"].concat(), raw.len()),
        ("too short", BF16, good.clone(), raw.len() + 2),
        ("too long", BF16, good.clone(), raw.len() - 2),
        ("bomb", Encoding::Zstd, bomb, 1 << 20),
        ("other layout", FP32, good.clone(), raw.len()),
        ("skippable", BF16, skippable, raw.len()),
        ("stored short", Encoding::Stored, vec![0; 9], 10),
        ("stored long", Encoding::Stored, vec![0; 11], 10),
    ];
    for (what, encoding, stored, len) in cases {
        let error = decode(encoding, &stored, len).expect_err(what);
        assert_eq!(error.exit_code(), 10, "{what}: {error}");
    }
}

/// Bytes of many textures, so that every encoding is met.
fn textures() -> impl Strategy<Value = Vec<u8>> {
    let texture = (0_u8..6, any::<u64>(), 0_usize..70_000);
    texture.prop_map(|(kind, seed, len)| {
        let floats = || weights(seed, 1 << 15);
        let mut bytes = match kind {
            0 => Random(seed).bytes(len),
            1 => bf16(&floats()),
            2 => fp16(&floats()),
            3 => fp32(&floats()),
            4 => Random(seed)
                .bytes(len)
                .iter()
                .map(|byte| byte & 0x11)
                .collect(),
            _ => vec![seed.to_le_bytes()[0]; len],
        };
        bytes.truncate(len);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_encoded_comes_back(raw in textures()) {
        let encoded = encode(&raw);
        prop_assert!(encoded.bytes.len() <= max_stored(u32::try_from(raw.len()).unwrap()) as usize);
        prop_assert!(decode(encoded.encoding, &encoded.bytes, raw.len()).unwrap() == raw);
    }

    #[test]
    fn every_layout_comes_back(raw in textures(), wide in any::<bool>(), rotate in 0_u8..8) {
        let width = if wide { 4 } else { 2 };
        let mut planes = vec![0; raw.len()];
        super::planes::split(&raw, width, rotate, &mut planes);
        let (mut stored, mut rest) = (Vec::new(), &planes[..]);
        for index in 0..usize::from(width) {
            let (plane, others) =
                rest.split_at(super::planes::plane_len(raw.len(), width.into(), index));
            stored.extend(zstd::bulk::compress(plane, 1).unwrap());
            rest = others;
        }
        let back = decode(Encoding::Planes { width, rotate }, &stored, raw.len()).unwrap();
        prop_assert!(back == raw);
    }

    #[test]
    fn flipped_bits_never_panic_or_grow(
        raw in textures(), at in any::<prop::sample::Index>(), bit in 0..8,
    ) {
        let mut encoded = encode(&raw);
        if !encoded.bytes.is_empty() {
            let at = at.index(encoded.bytes.len());
            encoded.bytes[at] ^= 1_u8 << bit;
        }
        if let Ok(back) = decode(encoded.encoding, &encoded.bytes, raw.len()) {
            prop_assert_eq!(back.len(), raw.len());
        }
    }
}

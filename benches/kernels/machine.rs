//! What this machine can do at best: how fast memory is read, and how many int8 products a core adds up in a second.

use std::hint::black_box;

/// Bytes read together: one cache line.
const LINE_BYTES: usize = 64;
/// How far ahead the probes that prefetch ask for memory.
const PREFETCH_BYTES: usize = 16 * 1024;
/// Products of one `vpdpbusd` on 512 bits.
#[cfg(target_arch = "x86_64")]
const PRODUCTS: usize = 64;
/// Independent sums, enough to hide the instruction's latency.
#[cfg(target_arch = "x86_64")]
const SUMS: usize = 16;
/// Instructions per sum in one measurement: some milliseconds.
#[cfg(target_arch = "x86_64")]
const STEPS: usize = 200_000;

/// A way to read memory: its name, and a function that reads every byte once.
pub type Probe = (&'static str, fn(&[u8]));

/// The read probes this CPU can run. Which is fastest depends on the machine: the best one counts.
pub fn probes() -> Vec<Probe> {
    let mut probes: Vec<Probe> = vec![
        ("read, 64 bits", words::<1, false>),
        ("read, 64 bits, prefetch", words::<1, true>),
        ("read, 64 bits, 4 streams", words::<4, false>),
        ("read, 64 bits, 4 streams, prefetch", words::<4, true>),
    ];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        probes.extend([
            ("read, 256 bits", wide::avx2::<1, false> as fn(&[u8])),
            ("read, 256 bits, prefetch", wide::avx2::<1, true>),
            ("read, 256 bits, 4 streams", wide::avx2::<4, false>),
            ("read, 256 bits, 4 streams, prefetch", wide::avx2::<4, true>),
        ]);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        probes.extend([
            ("read, 512 bits", wide::avx512::<1, false> as fn(&[u8])),
            ("read, 512 bits, prefetch", wide::avx512::<1, true>),
            ("read, 512 bits, 4 streams", wide::avx512::<4, false>),
            ("read, 512 bits, 4 streams, prefetch", wide::avx512::<4, true>),
        ]);
    }
    probes
}

/// The loop of a probe: `STREAMS` equal parts side by side, one line of each in turn. `$add` adds a line to a sum.
macro_rules! read {
    ($bytes:expr, $zero:expr, $add:expr) => {{
        let lines = $bytes.as_chunks::<LINE_BYTES>().0;
        let (parts, rest) = lines.split_at(lines.len() / STREAMS * STREAMS);
        let part_lines = parts.len() / STREAMS;
        let streams: [_; STREAMS] = std::array::from_fn(|s| &parts[s * part_lines..][..part_lines]);
        let mut sums = [$zero; STREAMS];
        for at in 0..part_lines {
            for (sum, stream) in sums.iter_mut().zip(streams) {
                if PREFETCH {
                    prefetch(&stream[at]);
                }
                *sum = $add(*sum, &stream[at]);
            }
        }
        rest.iter().fold(sums, |mut sums, line| {
            sums[0] = $add(sums[0], line);
            sums
        })
    }};
}

/// One word after the other.
fn words<const STREAMS: usize, const PREFETCH: bool>(bytes: &[u8]) {
    let add = |sum: u64, line: &[u8; LINE_BYTES]| {
        let words = line.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word));
        words.fold(sum, u64::wrapping_add)
    };
    black_box(read!(bytes, 0, add));
}

fn prefetch(line: &[u8; LINE_BYTES]) {
    let ahead = line.as_ptr().wrapping_add(PREFETCH_BYTES);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless, and SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    black_box(ahead);
}

/// With vector registers. [`probes`] gives these out only where the CPU has them.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{LINE_BYTES, prefetch};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub fn avx2<const STREAMS: usize, const PREFETCH: bool>(bytes: &[u8]) {
        #[target_feature(enable = "avx2")]
        fn inner<const STREAMS: usize, const PREFETCH: bool>(bytes: &[u8]) {
            let add = |sum, line: &[u8; LINE_BYTES]| {
                let line = line.as_ptr().cast::<__m256i>();
                // SAFETY: the two halves of the line.
                let (low, high) = unsafe { (_mm256_loadu_si256(line), _mm256_loadu_si256(line.add(1))) };
                _mm256_add_epi64(sum, _mm256_add_epi64(low, high))
            };
            black_box(read!(bytes, _mm256_setzero_si256(), add));
        }
        assert!(is_x86_feature_detected!("avx2"));
        // SAFETY: the CPU has AVX2, as asserted.
        unsafe { inner::<STREAMS, PREFETCH>(bytes) }
    }

    pub fn avx512<const STREAMS: usize, const PREFETCH: bool>(bytes: &[u8]) {
        #[target_feature(enable = "avx512f")]
        fn inner<const STREAMS: usize, const PREFETCH: bool>(bytes: &[u8]) {
            let add = |sum, line: &[u8; LINE_BYTES]| {
                // SAFETY: reads the line.
                _mm512_add_epi64(sum, unsafe { _mm512_loadu_si512(line.as_ptr().cast()) })
            };
            black_box(read!(bytes, _mm512_setzero_si512(), add));
        }
        assert!(is_x86_feature_detected!("avx512f"));
        // SAFETY: the CPU has AVX-512 F, as asserted.
        unsafe { inner::<STREAMS, PREFETCH>(bytes) }
    }
}

/// Multiplies and adds int8 in registers only, as fast as AVX-512 VNNI goes, and gives the number of products. `None` on a
/// CPU without it.
pub fn vnni_products() -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the CPU has both features.
        black_box(unsafe { vnni_loop() });
        return Some(STEPS * SUMS * PRODUCTS);
    }
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni_loop() -> i32 {
    use std::arch::x86_64::*;
    let (bytes, codes) = (black_box(_mm512_set1_epi8(1)), black_box(_mm512_set1_epi8(1)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, bytes, codes);
        }
    }
    sums.into_iter().fold(0i32, |all, sum| all.wrapping_add(_mm512_reduce_add_epi32(sum)))
}

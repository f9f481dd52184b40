//! How many of the true nearest neighbours a search finds by default, for each metric.
//!
//! `cargo bench --bench recall -- BASE QUERIES [COUNT]`, with vectors as `.fvecs` or `.npy` (f32, f16 or u8, C order). The
//! truth comes from exact searches, which are proved. A result counts as missed if it is worse than the true one of the
//! same rank; of equally good ones any will do.

use std::path::Path;
use std::sync::Arc;

use vecdis::collection::search::{Hit, SearchRequest, search};
use vecdis::collection::{AttributeChange, Collection, Encoded, Params, TextChange};
use vecdis::vector::{Layout, Metric, Quantization, Query};

const QUERIES_MAX: usize = 1000;
/// Searches that share a pass.
const SHARED: usize = 100;

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (base, queries, count) = match &words[..] {
        [base, queries] => (base, queries, 10),
        [base, queries, count] => (base, queries, count.parse().expect("COUNT is a number")),
        _ => return println!("usage: recall BASE QUERIES [COUNT]"),
    };
    let (base, mut queries) = (read(Path::new(base)), read(Path::new(queries)));
    queries.truncate(QUERIES_MAX);
    println!("{} vectors of {} dimensions, {} queries", base.len(), base[0].len(), queries.len());
    for metric in [Metric::Cosine, Metric::Ip, Metric::L2] {
        measure(metric, &base, &queries, count);
    }
}

fn measure(metric: Metric, base: &[Vec<f32>], queries: &[Vec<f32>], count: usize) {
    let layout = Layout { dim: base[0].len(), metric, quantization: Quantization::Int8 };
    let mut collection = Collection::new(0, Params::new(layout));
    for (at, vector) in base.iter().enumerate() {
        let encoded = Encoded::new(&collection.params, vector);
        collection.put(&at.to_be_bytes(), vector, &encoded, &AttributeChange::Keep, &TextChange::Keep);
    }
    let collection = Arc::new(collection);
    let run = |exact: bool| -> Vec<Vec<Hit>> {
        let request = |vector: &Vec<f32>| SearchRequest {
            collection: Arc::clone(&collection),
            query: Query::new(&layout, vector),
            count,
            effort: 0,
            exact,
            filter: None,
            trace: None,
        };
        let passes = queries.chunks(SHARED).map(|queries| search(queries.iter().map(request).collect()));
        passes.flatten().map(|hits| hits.expect("rows in memory can be read")).collect()
    };
    let (found, truth) = (run(false), run(true));
    let missed_by = |found: &Vec<Hit>, truth: &Vec<Hit>| {
        truth.iter().enumerate().filter(|&(rank, hit)| found[rank].score < hit.score).count()
    };
    let missed: Vec<usize> = found.iter().zip(&truth).map(|(found, truth)| missed_by(found, truth)).collect();
    // One neighbour missed moves up all that come after it: the ranks say where, the worst scores how many.
    let absent = |found: &Vec<Hit>, truth: &Vec<Hit>| {
        let worst = truth.last().map_or(f32::MIN, |hit| hit.score);
        found.len() - found.iter().filter(|hit| hit.score >= worst).count()
    };
    let absent: usize = found.iter().zip(&truth).map(|(found, truth)| absent(found, truth)).sum();
    let wanted: usize = truth.iter().map(Vec::len).sum();
    println!(
        "{metric:?}: recall@{count} {:.6}, {absent} of {wanted} missed; {} of {} queries with a worse rank",
        1.0 - absent as f64 / wanted as f64,
        missed.iter().filter(|&&missed| missed > 0).count(),
        queries.len(),
    );
}

fn read(path: &Path) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).expect("the file can be read");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("fvecs") => read_fvecs(&bytes),
        Some("npy") => read_npy(&bytes),
        _ => panic!("{}: .fvecs or .npy", path.display()),
    }
}

/// Each vector with its length in front.
fn read_fvecs(bytes: &[u8]) -> Vec<Vec<f32>> {
    let words = bytes.as_chunks::<4>().0;
    let dim = u32::from_le_bytes(words[0]) as usize;
    words
        .chunks_exact(dim + 1)
        .map(|row| row[1..].iter().map(|&word| f32::from_le_bytes(word)).collect())
        .collect()
}

/// A matrix of numpy, format version 1.
fn read_npy(bytes: &[u8]) -> Vec<Vec<f32>> {
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..header_end]).into_owned();
    let after = |key: &str| header.split_once(key).map_or("", |(_, rest)| rest);
    let shape: Vec<usize> =
        after("'shape': (").split([',', ')']).map_while(|n| n.trim().parse().ok()).collect();
    let [_, dim] = shape[..] else { panic!("a matrix: {header}") };
    let data = &bytes[header_end..];
    let values: Vec<f32> = match after("'descr': '").get(..3) {
        Some("<f4") => data.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect(),
        Some("<f2") => data.as_chunks().0.iter().map(|&half| half_to_f32(u16::from_le_bytes(half))).collect(),
        Some("|u1") => data.iter().map(|&byte| f32::from(byte)).collect(),
        _ => panic!("f32, f16 or u8: {header}"),
    };
    values.chunks_exact(dim).map(<[f32]>::to_vec).collect()
}

/// A finite IEEE half.
fn half_to_f32(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 1023) / 1024.0);
    let size =
        if exponent == 0 { fraction * 2f32.powi(-14) } else { (1.0 + fraction) * 2f32.powi(exponent - 15) };
    if half >> 15 == 1 { -size } else { size }
}

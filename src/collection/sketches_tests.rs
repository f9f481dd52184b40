use super::*;
use crate::collection::filter::Filter;
use crate::collection::search::{Hit, search};
use crate::collection::{AttributeChange, Attributes, Encoded, Params, TextChange};
use crate::vector::{Layout, Metric};

const DIM: usize = 64;

/// Near a few directions, so that sketches help.
fn vector(at: usize) -> Vec<f32> {
    let wave = |i: usize, k: usize| ((i * (k + 1) + 3 * k) as f32 * 0.37).sin();
    let weight = |k: usize| ((at * (2 * k + 1)) as f32 * 0.61 + k as f32).sin();
    let noise = |i: usize| ((at * 64 + i) as f32 * 12.9898).sin() * 0.1;
    (0..DIM).map(|i| (0..5).map(|k| wave(i, k) * weight(k)).sum::<f32>() + noise(i)).collect()
}

fn put(collection: &mut Collection, rows: std::ops::Range<usize>) {
    for at in rows {
        let encoded = Encoded::new(&collection.params, &vector(at));
        let attributes = Attributes::from(format!(r#"{{"n":{}}}"#, at % 10).as_bytes());
        let change = AttributeChange::Set(Some(attributes));
        collection.put(&at.to_be_bytes(), &vector(at), &encoded, &change, &TextChange::Keep);
    }
}

fn publish(collection: &mut Collection) -> Arc<Collection> {
    let (table, pending) = collection.take_pending();
    table.write().unwrap().apply(&pending);
    Arc::new(collection.clone())
}

/// Many searches at once and one by one, with and without filters and proofs.
fn answers(collection: &Arc<Collection>) -> Vec<Vec<Hit>> {
    let mut requests = Vec::new();
    for at in 0..14 {
        let filter = [None, None, Some(".n > 2"), Some(".n == 3")][at % 4];
        requests.push(SearchRequest {
            collection: Arc::clone(collection),
            query: Query::new(&collection.params.layout, &vector(at * 7919 + 13)),
            count: [10, 1, 40, 200][at / 4],
            effort: 0,
            exact: at % 5 == 0,
            filter: filter.map(|filter| Arc::new(Filter::parse(filter.as_bytes()).unwrap())),
            trace: None,
        });
    }
    let alone = |request: &SearchRequest| SearchRequest {
        collection: Arc::clone(&request.collection),
        query: request.query.clone(),
        filter: request.filter.clone(),
        trace: None,
        ..*request
    };
    let one_by_one: Vec<_> = requests.iter().flat_map(|request| search(vec![alone(request)])).collect();
    search(requests).into_iter().chain(one_by_one).map(Result::unwrap).collect()
}

fn follow(collection: &Arc<Collection>) {
    let turns = (0..10_000).find(|_| collection.sketches.follow(collection));
    assert!(turns.is_some(), "it comes to an end");
}

/// The same version without sketches.
fn bare(collection: &Collection) -> Arc<Collection> {
    Arc::new(Collection { sketches: Arc::default(), ..collection.clone() })
}

#[test]
fn scans_with_sketches_find_what_scans_without_find() {
    for metric in [Metric::Cosine, Metric::Ip, Metric::L2] {
        for raw in [true, false] {
            let layout = Layout { dim: DIM, metric, quantization: Quantization::Int8 };
            let mut collection = Collection::new(1, Params { raw, ..Params::new(layout) });
            put(&mut collection, 0..1000);
            let early = publish(&mut collection);
            let expected_early = answers(&early);
            early.sketches.complete(&early);
            let sketched = early.sketches.rows();
            assert!(sketched >= 900, "{metric:?} {raw} {sketched}");
            assert_eq!(answers(&early), expected_early);
            // More rows, some of the old ones gone or replaced.
            put(&mut collection, 900..1100);
            for at in (0..1000usize).step_by(7) {
                collection.remove(&at.to_be_bytes());
            }
            let late = publish(&mut collection);
            assert_eq!(answers(&late), answers(&bare(&late)), "rows without sketches are scanned");
            put(&mut collection, 1100..2500);
            let late = publish(&mut collection);
            follow(&late);
            assert!(late.sketches.rows() >= 2400);
            assert_eq!(answers(&late), answers(&bare(&late)));
            assert_eq!(answers(&early), expected_early, "an older version knows fewer rows");
        }
    }
}

#[test]
fn sketches_come_when_scans_want_them_and_where_they_help() {
    let layout = Layout { dim: DIM, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let mut collection = Collection::new(1, Params::new(layout));
    put(&mut collection, 0..640);
    let version = publish(&mut collection);
    follow(&version);
    assert_eq!(version.sketches.rows(), 0, "nobody wants them");
    assert!(version.sketches.want(&version) && !version.sketches.want(&version));
    follow(&version);
    assert_eq!(version.sketches.rows(), 640);
    let bytes = version.sketches.size_bytes();
    assert!(bytes > 640 * version.sketches.row_bytes() && version.size_bytes() > bytes, "{bytes}");
    // Chunks that are gone take theirs with them.
    let gone = Arc::new(Collection { chunks: version.chunks[..3].to_vec(), ..Collection::clone(&version) });
    follow(&gone);
    assert_eq!(gone.sketches.rows(), 3 * 64);
}

#[test]
fn rows_without_common_directions_get_no_sketches() {
    let layout = Layout { dim: 2 * DIM, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let mut collection = Collection::new(1, Params { raw: false, ..Params::new(layout) });
    let mut state = 1u64;
    for at in 0..1000usize {
        let mut noise = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let vector: Vec<f32> = (0..2 * DIM).map(|_| noise()).collect();
        let encoded = Encoded::new(&collection.params, &vector);
        collection.put(&at.to_be_bytes(), &vector, &encoded, &AttributeChange::Keep, &TextChange::Keep);
    }
    let version = publish(&mut collection);
    version.sketches.complete(&version);
    assert_eq!((version.sketches.rows(), version.sketches.row_bytes()), (0, 0));
}

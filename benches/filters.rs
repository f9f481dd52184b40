//! What a filter costs that nobody has asked before.
//!
//! `cargo bench --bench filters`. CPU time for each row, in ns, the median of some rounds: `looked up` evaluates row by row
//! with a look-up of each row's attributes, `walked` row by row along all attributes; `cold` makes the columns of the
//! filter's fields first, `warm` has them already. `bytes` is what these columns take for each row.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use vecdis::collection::filter::Filter;
use vecdis::collection::{
    AttributeChange, Attributes, Chunk, Collection, Encoded, Params, TextChange, columns, live_offsets,
};
use vecdis::vector::{Layout, Metric, Quantization};

const ROUNDS: usize = 5;
const FILTERS: [&str; 10] = [
    ".year > 1990",
    ".year == 1994",
    ".year in [1994, 1995, 1996]",
    ".genre == \"drama\"",
    ".genre in [\"drama\", \"comedy\", \"war\", \"crime\", \"family\"]",
    ".year >= 1980 and .genre == \"drama\" and .rating > 7",
    "\"b\" in .tags",
    ".year % 10 == 4",
    ".rating * 250 > .year",
    ".title == \"title 77777\"",
];
const GENRES: [&str; 10] =
    ["drama", "comedy", "war", "crime", "family", "action", "horror", "music", "sport", "western"];
const TAGS: [&str; 4] = [r#"["a","b"]"#, r#"["b"]"#, "[]", r#"["c","d"]"#];

fn main() {
    for rows in [100_000, 1_000_000] {
        let collection = collection(rows);
        println!("{rows} rows, ns of CPU for each row, median of {ROUNDS} rounds, one thread");
        println!("{:>10} {:>8} {:>8} {:>8} {:>6}  filter", "looked up", "walked", "cold", "warm", "bytes");
        for expr in FILTERS {
            bench(&collection, rows, &Filter::parse(expr.as_bytes()).expect("a filter"));
        }
    }
}

fn bench(collection: &Collection, rows: usize, filter: &Filter) {
    let mut times = [(); 4].map(|()| Vec::new());
    let mut size_bytes = 0;
    for _ in 0..ROUNDS {
        // Versions with no column yet.
        let mut chunks: Vec<Chunk> = collection.chunks.iter().map(|chunk| Chunk::clone(chunk)).collect();
        chunks.iter_mut().for_each(|chunk| chunk.columns = Arc::default());
        let each = |act: &dyn Fn(&Chunk)| cpu_ns(|| chunks.iter().for_each(act));
        times[0].push(each(&|chunk| {
            black_box(live_offsets(chunk).filter(|&row| filter.matches(chunk.attributes(row))).count());
        }));
        times[1].push(each(&|chunk| _ = black_box(columns::judge(chunk, filter, 0, &chunk.live))));
        for time in &mut times[2..] {
            time.push(each(&|chunk| _ = black_box(columns::passing(chunk, filter, 0, &chunk.live))));
        }
        size_bytes = chunks.iter().map(|chunk| chunk.columns.size_bytes()).sum();
    }
    let [looked_up, walked, cold, warm] = times.map(|mut ns| {
        ns.sort_by(f64::total_cmp);
        ns[ROUNDS / 2] / rows as f64
    });
    let bytes = size_bytes as f64 / rows as f64;
    let expr = String::from_utf8_lossy(filter.text());
    println!("{looked_up:>10.1} {walked:>8.1} {cold:>8.1} {warm:>8.2} {bytes:>6.1}  {expr}");
}

/// CPU time that the calling thread takes for `act`.
fn cpu_ns(act: impl FnOnce()) -> f64 {
    let now = || {
        // The kernel brings the thread's time up to date when the thread lets others run.
        std::thread::yield_now();
        let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number")
    };
    let start = now();
    act();
    now() - start
}

fn collection(rows: usize) -> Collection {
    let layout = Layout { dim: 1, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let mut collection = Collection::new(1, Params { raw: false, ..Params::new(layout) });
    let encoded = Encoded::new(&collection.params, &[1.0]);
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::from(state.to_be_bytes()[0]) * below / 256
    };
    for row in 0..rows {
        let attributes = format!(
            r#"{{"year":{},"genre":"{}","rating":{}.{},"tags":{},"title":"title {row}"}}"#,
            1950 + random(70),
            GENRES[random(10)],
            random(10),
            random(10),
            TAGS[random(4)],
        );
        let attributes = AttributeChange::Set(Some(Attributes::from(attributes.as_bytes())));
        collection.put(format!("{row}").as_bytes(), &[1.0], &encoded, &attributes, &TextChange::Keep);
    }
    collection
}

use std::collections::BTreeMap;

use super::*;
use crate::collection::{AttributeChange, Attributes, Encoded, Params, Text, TextChange};
use crate::text::Analyzer;
use crate::vector::arena::RowShape;
use crate::vector::{Layout, Metric, Quantization};

fn params(analyzer: &str) -> Params {
    let layout = Layout { dim: 2, metric: Metric::L2, quantization: Quantization::Int8 };
    Params { analyzer: Analyzer::named(analyzer.as_bytes()).unwrap(), ..Params::new(layout) }
}

fn put(collection: &mut Collection, name: &str, text: TextChange) {
    let vector = [1.0, 2.0];
    let encoded = Encoded::new(&collection.params, &vector);
    collection.put(name.as_bytes(), &vector, &encoded, &AttributeChange::Keep, &text);
}

fn text(text: &str) -> TextChange {
    TextChange::Set(Some(Text::from(text.as_bytes())))
}

fn request(collection: &Collection, query: &str, count: usize) -> TextRequest {
    TextRequest {
        query: TextQuery::new(collection.params.analyzer, query.as_bytes()).unwrap(),
        collection: Arc::new(collection.clone()),
        count,
        filter: None,
    }
}

fn found(collection: &Collection, query: &str, count: usize) -> Vec<(f64, String)> {
    let hits = request(collection, query, count).run().unwrap();
    let name = |row| String::from_utf8(collection.name(row).to_vec()).unwrap();
    hits.into_iter().map(|(score, row)| (score, name(row))).collect()
}

/// BM25 by its definition, over all documents.
fn truth(documents: &BTreeMap<String, Vec<String>>, query: &[&str], count: usize) -> Vec<(f64, String)> {
    let texts = documents.len() as f64;
    let average = documents.values().map(Vec::len).sum::<usize>() as f64 / texts;
    let frequency =
        |word: &str| documents.values().filter(|words| words.iter().any(|one| one == word)).count();
    let idf: Vec<f64> = query
        .iter()
        .map(|word| {
            let frequency = frequency(word) as f64;
            (1.0 + (texts - frequency + 0.5) / (frequency + 0.5)).ln()
        })
        .collect();
    let mut all = Vec::new();
    for (name, words) in documents {
        let score: f64 = query
            .iter()
            .zip(&idf)
            .map(|(word, idf)| {
                let tf = words.iter().filter(|one| one == word).count() as f64;
                idf * tf / (tf + 1.2 * (0.25 + 0.75 * words.len() as f64 / average))
            })
            .sum();
        if score > 0.0 {
            all.push((score, name.clone()));
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    all.truncate(count);
    all
}

/// Numbers from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// A word; low numbers are much more frequent.
    fn word(&mut self) -> String {
        let end = [4, 30, 300, 3000][self.below(4)];
        format!("w{}", self.below(end))
    }

    fn words(&mut self, most: usize) -> Vec<String> {
        (0..1 + self.below(most)).map(|_| self.word()).collect()
    }
}

fn check(
    collection: &Collection,
    documents: &BTreeMap<String, Vec<String>>,
    numbers: &mut Numbers,
    queries: usize,
) {
    for _ in 0..queries {
        let query = numbers.words(5);
        let query: Vec<&str> = query.iter().map(String::as_str).collect();
        let count = [1, 10, 100][numbers.below(3)];
        let (found, truth) = (found(collection, &query.join(" "), count), truth(documents, &query, count));
        assert_eq!(found.len(), truth.len(), "{query:?}");
        for (one, other) in found.iter().zip(&truth) {
            assert!((one.0 - other.0).abs() < 1e-6, "{query:?}: {one:?} {other:?}");
        }
        // Texts of the same words have the same score, however sums are rounded: then names decide. Those that tie with the
        // last one are not compared.
        let last = truth.last().map_or(0.0, |(score, _)| score + 1e-9);
        let ranked = |hits: &[(f64, String)]| {
            let rounded = |(score, name): &(f64, String)| ((score * 1e9).round(), name.clone());
            let mut hits: Vec<_> = hits.iter().filter(|(score, _)| *score > last).map(rounded).collect();
            hits.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            hits
        };
        assert_eq!(ranked(&found), ranked(&truth), "{query:?}");
    }
}

/// Documents, changed and removed at random.
fn change(
    collection: &mut Collection,
    documents: &mut BTreeMap<String, Vec<String>>,
    numbers: &mut Numbers,
    times: usize,
) {
    for _ in 0..times {
        let name = format!("d{}", numbers.below(12_000));
        match numbers.below(4) {
            0 => {
                collection.remove(name.as_bytes());
                documents.remove(&name);
            }
            1 => {
                // An element without a text is none of the documents.
                put(collection, &name, TextChange::Set(None));
                documents.remove(&name);
            }
            2 => put(collection, &name, TextChange::Keep),
            _ => {
                let words = numbers.words(30);
                put(collection, &name, text(&words.join(" ")));
                documents.insert(name, words);
            }
        }
    }
}

#[test]
fn scores_equal_the_definition_after_changes_and_removals() {
    let mut collection = Collection::new(1, params("standard"));
    let (mut documents, mut numbers) = (BTreeMap::new(), Numbers(7));
    for at in 0..10_000 {
        let words = numbers.words(30);
        put(&mut collection, &format!("d{at}"), text(&words.join(" ")));
        documents.insert(format!("d{at}"), words);
    }
    // The truth is slow: `VECDIS_TEXT_QUERIES=1000` for long.
    let queries = std::env::var("VECDIS_TEXT_QUERIES").map_or(40, |queries| queries.parse().unwrap());
    check(&collection, &documents, &mut numbers, queries / 2);
    change(&mut collection, &mut documents, &mut numbers, 10_000);
    check(&collection, &documents, &mut numbers, queries / 2);
    let stats = collection.text_stats();
    assert_eq!(stats.texts, documents.len() as u64);
    assert_eq!(stats.total_length, documents.values().map(Vec::len).sum::<usize>() as u64);
}

#[test]
fn a_sealed_index_gives_what_the_growing_one_does() {
    let mut collection = Collection::new(1, params("en"));
    let (mut documents, mut numbers) = (BTreeMap::new(), Numbers(9));
    change(&mut collection, &mut documents, &mut numbers, 3000);
    let shape: RowShape = collection.params.row_shape();
    let mut sealed = collection.clone();
    let (disk, analyzer) = (crate::disk::sim::SimDisk::new(), collection.params.analyzer);
    for (at, chunk) in collection.chunks.iter().enumerate() {
        let arrays = crate::collection::sealed::ArraysV2::copy(chunk, shape).unwrap();
        let name = format!("chunks/{at}.vdc");
        let index = arrays.text_index(analyzer).unwrap().unwrap();
        let mut sections = arrays.sections(shape);
        // One chunk as it was written before there were indexes.
        if at > 0 {
            for (tag, bytes, lazy) in index.sections() {
                sections.push(crate::disk::sections::Section { tag: tag as u32, parts: vec![bytes], lazy });
            }
        }
        crate::disk::sections::write_sections(&disk, &name, &sections).unwrap();
        let file = crate::disk::sections::SectionFile::open(&disk, &name, None).unwrap();
        let rows = crate::collection::sealed::SealedRows::open(file, shape, chunk.len).unwrap();
        assert_eq!(rows.text_index().is_some(), at > 0);
        let rows = crate::collection::Rows::Sealed(rows.with_text_index(analyzer));
        assert!(sealed.adopt(chunk.number, Arc::new(rows), &chunk.overlay));
    }
    assert!(collection.chunks.len() > 1);
    assert_eq!(sealed.text_stats(), collection.text_stats());
    for _ in 0..200 {
        let query = numbers.words(6).join(" ");
        assert_eq!(found(&sealed, &query, 10), found(&collection, &query, 10), "{query}");
    }
    // Removals after sealing count at once.
    change(&mut sealed, &mut documents, &mut numbers, 500);
    assert_eq!(sealed.text_stats().texts, documents.len() as u64);
}

#[test]
fn only_elements_that_pass_the_filter_are_found_and_all_count() {
    let mut collection = Collection::new(1, params("en"));
    for at in 0..100 {
        put(&mut collection, &format!("d{at:02}"), text("a cat"));
        let attributes = Attributes::from(format!("{{\"n\":{at}}}").as_bytes());
        collection.set_attributes(format!("d{at:02}").as_bytes(), Some(attributes));
    }
    let all = found(&collection, "cats", 3);
    assert_eq!(all.iter().map(|(_, name)| &name[..]).collect::<Vec<_>>(), ["d00", "d01", "d02"]);
    let filter = Some(Arc::new(Filter::parse(b".n >= 50").unwrap()));
    let hits = TextRequest { filter, ..request(&collection, "cats", 2) }.run().unwrap();
    assert_eq!(hits.iter().map(|(_, row)| collection.name(*row)).collect::<Vec<_>>(), [b"d50", b"d51"]);
    assert_eq!(hits[0].0, all[0].0, "a filter does not change the statistics");
}

#[test]
fn a_version_keeps_its_view_while_the_writer_goes_on() {
    let mut collection = Collection::new(1, params("en"));
    put(&mut collection, "a", text("red fox"));
    let version = request(&collection, "fox", 10);
    let before = version.run().unwrap();
    put(&mut collection, "b", text("fox fox"));
    put(&mut collection, "a", text("blue whale"));
    assert_eq!(version.run().unwrap(), before);
    assert_eq!(found(&collection, "fox", 10).len(), 1);
    assert_eq!(found(&collection, "whale", 10)[0].1, "a");
}

#[test]
fn without_texts_or_terms_nothing_is_found() {
    let mut collection = Collection::new(1, params("en"));
    assert!(found(&collection, "cat", 10).is_empty());
    put(&mut collection, "a", TextChange::Keep);
    assert!(found(&collection, "cat", 10).is_empty());
    put(&mut collection, "b", text("the"));
    assert!(found(&collection, "the", 10).is_empty());
    put(&mut collection, "c", text("cat"));
    assert!(found(&collection, "the", 10).is_empty());
    assert!(found(&collection, "cat", 0).is_empty());
    assert_eq!(found(&collection, "cat", 1).len(), 1);
}

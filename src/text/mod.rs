//! Keyword search in texts: analyzers turn a text into terms, postings say which rows of a chunk have a term, BM25 scores
//! them.
//!
//! Nothing here knows of elements: a text is bytes, a row is its offset in its chunk.

pub mod analyzer;
pub mod bm25;
pub mod growing;
pub mod postings;
pub mod sealed;
mod words;

pub use analyzer::{Analyzer, Document};

//! Graphs on disk: one file for a collection, of its rows in sealed chunks. Nothing depends on it. It names the chunks' files by
//! their pins, so a file that does not belong to the rows of today is seen and passed over.

use super::StoreError;
use crate::collection::index::{Covered, SEED, Tuning};
use crate::collection::{Chunk, Collection, Rows};
use crate::disk::sections::{Section, SectionFile, write_sections};
use crate::disk::{Disk, DiskError, Pin, format};
use crate::graph::{FlatRef, Graph};

/// Version of the head.
const VERSION: u64 = 1;
/// Words of the head before those of the pages, and of each page.
const HEAD_WORDS: usize = 9;
const PAGE_WORDS: usize = 6;

/// Sections of the file.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Tag {
    /// u64 words: version, collection, m, EF of construction, entry; EF, recall (f64) and nodes of the tuning; pages; then of each
    /// page the number of its chunk, its rows, and its file's pin.
    Head = 1,
    /// As in [`crate::graph::Flat`].
    Base = 2,
    Levels = 3,
    Upper = 4,
}

/// A chunk's file.
fn pin_of(rows: &Rows) -> Option<Pin> {
    match rows {
        Rows::Sealed(rows) => Some(rows.pin()),
        Rows::Memory(_) => None,
    }
}

/// Writes what a graph has of a version's sealed chunks. The number of rows; 0 where nothing can be kept.
pub(super) fn save(disk: &dyn Disk, collection: &Collection, graph: &Covered) -> Result<usize, StoreError> {
    let Some((pages, tuning)) = graph.sealed_pages(collection).zip(graph.tuning()) else { return Ok(0) };
    let counts: Vec<(usize, usize)> = pages.iter().map(|(page, _, rows)| (*page, rows.len())).collect();
    let Some(flat) = graph.graph.flatten(&counts) else { return Ok(0) };
    let mut head: Vec<u64> =
        vec![VERSION, collection.uid, collection.params.m.into(), collection.params.ef.into()];
    head.extend([u64::from(flat.entry), tuning.ef as u64, tuning.recall.to_bits(), tuning.nodes as u64]);
    head.push(pages.len() as u64);
    for (_, chunk, rows) in &pages {
        head.extend([u64::from(*chunk), rows.len() as u64]);
        let Some(pin) = pin_of(rows) else { return Ok(0) };
        head.extend(pin.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
    }
    let section = |tag: Tag, bytes| Section { tag: tag as u32, parts: vec![bytes], lazy: false };
    let sections = [
        section(Tag::Head, bytemuck::cast_slice(&head)),
        section(Tag::Base, bytemuck::cast_slice(&flat.base)),
        section(Tag::Levels, &flat.levels),
        section(Tag::Upper, bytemuck::cast_slice(&flat.upper)),
    ];
    disk.create_folder(format::GRAPH_FOLDER)?;
    write_sections(disk, &format::graph_name(collection.uid), &sections)?;
    Ok(flat.levels.len())
}

/// The graph that was kept of a version; `None` if there is none, or it is damaged or of other rows.
pub(super) fn load(disk: &dyn Disk, collection: &Collection) -> Option<Covered> {
    let name = format::graph_name(collection.uid);
    let file = match SectionFile::open(disk, &name, None) {
        Ok(file) => file,
        Err(error) => {
            if !error.is_not_found() {
                tracing::warn!("{name} is passed over: {error}");
            }
            return None;
        }
    };
    let restored = restore(&file, collection);
    if restored.is_none() {
        tracing::info!("{name} is of other rows: the graph is built anew");
    }
    restored
}

fn restore(file: &SectionFile, collection: &Collection) -> Option<Covered> {
    let section = |tag: Tag| file.section(tag as u32).unwrap_or_default();
    let [head, base, levels, upper] = [Tag::Head, Tag::Base, Tag::Levels, Tag::Upper].map(section);
    let head: &[u64] = bytemuck::try_cast_slice(&head).ok()?;
    let (head, pages) = head.split_at_checked(HEAD_WORDS)?;
    let &[version, uid, m, ef_construction, entry, ef, recall, nodes, page_count] = head else { return None };
    let params = &collection.params;
    let is_ours = version == VERSION
        && (uid, m, ef_construction) == (collection.uid, params.m.into(), params.ef.into())
        && page_count == (pages.len() / PAGE_WORDS) as u64;
    if !is_ours {
        return None;
    }
    let mut chunks: Vec<&Chunk> = Vec::new();
    for words in pages.chunks_exact(PAGE_WORDS) {
        let chunk = collection.chunks.iter().find(|chunk| u64::from(chunk.number) == words[0])?;
        let pin: Vec<u8> = words[2..].iter().flat_map(|word| word.to_le_bytes()).collect();
        if pin_of(&chunk.rows)?[..] != pin[..] || chunk.rows.len() as u64 != words[1] {
            return None;
        }
        chunks.push(chunk);
    }
    let rows: Vec<usize> = chunks.iter().map(|chunk| chunk.rows.len()).collect();
    let flat = FlatRef {
        entry: u32::try_from(entry).ok()?,
        base: bytemuck::try_cast_slice(&base).ok()?,
        levels: &levels,
        upper: bytemuck::try_cast_slice(&upper).ok()?,
    };
    let graph = Graph::restore(params.m as usize, params.ef as usize, SEED, &rows, flat)?;
    let (ef, nodes) = (usize::try_from(ef).ok()?, usize::try_from(nodes).ok()?);
    let recall = f64::from_bits(recall);
    let sane = ef > 0 && ef <= rows.iter().sum::<usize>().max(1 << 20) && (0.0..=1.0).contains(&recall);
    sane.then(|| Covered::restored(graph, &chunks, Tuning { ef, recall, nodes }))
}

/// Removes the files of graphs of collections that are not there any more.
pub(super) fn remove_others(disk: &dyn Disk, is_there: impl Fn(u64) -> bool) -> Result<(), DiskError> {
    for name in disk.list(format::GRAPH_FOLDER)? {
        if format::parse_graph_name(&name).is_some_and(|uid| !is_there(uid)) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}

//! Rows in memory that one thread appends to while others read.
//!
//! A [`RowArena`] holds the rows of a chunk that is still growing: quantised codes, the scalars that go with them, the
//! f32 originals and the row's name. Memory comes in blocks that grow in size and never move, so a reader's slice
//! stays valid while rows are added. A row is written once, before it is committed, and never changed after.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytemuck::Pod;
use memmap2::{MmapOptions, MmapRaw};

use super::growth::Growth;
use super::kernel::{Line, RowRef};
use super::quant::Scalars;
use crate::heap;

/// Rows an arena can hold.
pub const MAX_ROWS: usize = 1 << 16;
/// Small at first, for collections of a few elements; at most a fifth of the arena is spare room. The last block takes all
/// rows from 16,384 on, so that scans read long stretches; its memory comes page by page.
const ROWS: Growth = Growth { first: 2, per_size: 4, last: ROW_BLOCKS - 1, cells: MAX_ROWS };
/// Where each block begins.
const ROW_STARTS: [usize; ROW_BLOCKS] = ROWS.starts();
/// Blocks for [`MAX_ROWS`].
const ROW_BLOCKS: usize = 49;
/// Blocks of names, in bytes.
const NAMES: Growth = Growth { first: 64, per_size: 1, last: NAME_BLOCKS - 1, cells: 2 << 30 };
/// Blocks for 2 GiB of names.
const NAME_BLOCKS: usize = 26;

/// Arrays from this size on are mapped: they take memory only as they fill.
const MAPPED_FROM_BYTES: usize = 128 << 10;
/// Scanned arrays from this size on ask for huge pages, with which a scan is up to half as fast again.
const HUGE_FROM_BYTES: usize = 4 << 20;
const PAGE_BYTES: usize = 4 << 10;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory of its own, zero at first, that is taken page by page as it is written.
struct Pages {
    map: MmapRaw,
    /// Where the first cell is: at the beginning of a (huge) page.
    start: usize,
    page_bytes: usize,
    touched_bytes: AtomicUsize,
}

impl Pages {
    /// `None` if the system refuses.
    fn new(len_bytes: usize, huge: bool) -> Option<Self> {
        let spare_bytes = if huge { HUGE_PAGE_BYTES } else { 0 };
        let mut options = MmapOptions::new();
        let map = MmapRaw::from(options.len(len_bytes + spare_bytes).no_reserve_swap().map_anon().ok()?);
        let start = if huge { map.as_mut_ptr().align_offset(HUGE_PAGE_BYTES) } else { 0 };
        let huge = huge && ask_for_huge_pages(&map, start, len_bytes);
        let page_bytes = if huge { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        Some(Self { map, start, page_bytes, touched_bytes: AtomicUsize::new(0) })
    }

    /// Counts the memory up to there. One thread at a time.
    fn touch(&self, end_bytes: usize) {
        let before = self.touched_bytes.load(Ordering::Relaxed);
        if end_bytes > before {
            let touched = end_bytes.next_multiple_of(self.page_bytes);
            self.touched_bytes.store(touched, Ordering::Relaxed);
            heap::count_mapped(touched - before);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        heap::forget_mapped(*self.touched_bytes.get_mut());
    }
}

#[cfg(target_os = "linux")]
fn ask_for_huge_pages(map: &MmapRaw, start: usize, len_bytes: usize) -> bool {
    map.advise_range(memmap2::Advice::HugePage, start, len_bytes).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_map: &MmapRaw, _start: usize, _len_bytes: usize) -> bool {
    false
}

/// A fixed array whose cells are written once by the appending thread before any reader may look at them. `T` is a number: all
/// of its bit patterns are values.
struct Cells<T: Pod> {
    first: *mut T,
    len: usize,
    /// Where large ones are; small ones are a boxed slice.
    pages: Option<Box<Pages>>,
}

impl<T: Pod> Cells<T> {
    /// `scanned`: whether scans read all of it.
    fn new(len: usize, scanned: bool) -> Self {
        Self::with_pages(len, scanned && len * size_of::<T>() >= HUGE_FROM_BYTES)
    }

    /// `huge`: whether large ones ask for huge pages.
    fn with_pages(len: usize, huge: bool) -> Self {
        let len_bytes = len * size_of::<T>();
        let pages = (len_bytes >= MAPPED_FROM_BYTES).then(|| Pages::new(len_bytes, huge));
        let pages = pages.flatten().map(Box::new);
        let first = match &pages {
            Some(pages) => pages.map.as_mut_ptr().wrapping_add(pages.start).cast::<T>(),
            None => Box::into_raw(vec![T::zeroed(); len].into_boxed_slice()).cast::<T>(),
        };
        Self { first, len, pages }
    }

    /// The cells from `start` on, `len` of them.
    #[inline]
    fn at(&self, start: usize, len: usize) -> *mut T {
        assert!(start <= self.len && len <= self.len - start, "inside the array");
        self.first.wrapping_add(start)
    }

    /// # Safety
    /// `start..start + len` must be committed: written, and never written again.
    unsafe fn read(&self, start: usize, len: usize) -> &[T] {
        // SAFETY: `at` checked the bounds; mapped memory begins at a page and holds valid numbers, and the caller promises
        // that nobody writes these cells any more.
        unsafe { std::slice::from_raw_parts(self.at(start, len), len) }
    }

    /// # Safety
    /// Only one thread writes, and no reader may have been told of `start..start + values.len()`.
    unsafe fn write(&self, start: usize, values: &[T]) {
        let target = self.at(start, values.len());
        // SAFETY: in bounds as `at` checked; exclusive by the caller's promise; `values` is not inside this arena's
        // uncommitted cells, which nobody can borrow.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), target, values.len()) };
        self.touch(start + values.len());
    }

    /// Counts the memory of the first `len`.
    fn touch(&self, len: usize) {
        if let Some(pages) = &self.pages {
            pages.touch(len * size_of::<T>());
        }
    }

    fn size_bytes(&self) -> usize {
        match &self.pages {
            None => self.len * size_of::<T>(),
            Some(pages) => size_of::<Pages>() + pages.touched_bytes.load(Ordering::Relaxed),
        }
    }
}

impl<T: Pod> Drop for Cells<T> {
    fn drop(&mut self) {
        if self.pages.is_none() {
            // SAFETY: `new` made it from a boxed slice of that length, and nobody can borrow from `self` any more.
            drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.first, self.len)) });
        }
    }
}

/// Numbers that threads share, all 0 at first. Large arrays take memory only as they are used.
pub struct SharedNumbers(Cells<u32>);

// SAFETY: the cells are reached as atomics only.
unsafe impl Sync for SharedNumbers {}
// SAFETY: they own their memory; nothing in them is tied to a thread.
unsafe impl Send for SharedNumbers {}

impl SharedNumbers {
    /// `huge`: whether they may take memory by huge pages.
    pub fn new(len: usize, huge: bool) -> Self {
        Self(Cells::new(len, huge))
    }

    /// Counts the memory of the first `len`, which are used from now on. One thread at a time.
    pub fn touch(&self, len: usize) {
        self.0.touch(len);
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        self.0.size_bytes()
    }
}

impl Deref for SharedNumbers {
    type Target = [AtomicU32];

    #[inline]
    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: an atomic has the layout of its number; the cells live as long as `self`, and nobody reaches them otherwise.
        unsafe { std::slice::from_raw_parts(self.0.first.cast::<AtomicU32>(), self.0.len) }
    }
}

/// The lines of a sketch: written by who makes it, then only read.
pub struct Lines(Cells<Line>);

// SAFETY: the cells are written through `&mut` only.
unsafe impl Sync for Lines {}
// SAFETY: they own their memory; nothing in them is tied to a thread.
unsafe impl Send for Lines {}

impl Lines {
    /// That many, zero at first.
    pub fn new(len: usize) -> Self {
        let lines = Self(Cells::with_pages(len, len * size_of::<Line>() >= HUGE_PAGE_BYTES));
        lines.0.touch(len);
        lines
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        self.0.size_bytes()
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: nobody writes while `self` is borrowed.
        unsafe { self.0.read(0, self.0.len) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: in bounds, valid numbers as `Cells` has it, and `&mut self` keeps all others out.
        unsafe { std::slice::from_raw_parts_mut(self.0.first, self.0.len) }
    }
}

struct RowBlock {
    codes: Cells<u8>,
    originals: Cells<f32>,
    scales: Cells<f32>,
    norms: Cells<f32>,
    residuals: Cells<f32>,
    biases: Cells<f32>,
    names: Cells<u32>,
}

impl RowBlock {
    fn size_bytes(&self) -> usize {
        let floats = [&self.originals, &self.scales, &self.norms, &self.residuals, &self.biases];
        let floats: usize = floats.iter().map(|cells| cells.size_bytes()).sum();
        size_of::<Self>() + self.codes.size_bytes() + floats + self.names.size_bytes()
    }
}

/// What a row is made of.
pub struct NewRow<'a> {
    /// Quantised codes, `code_bytes` long.
    pub codes: &'a [u8],
    /// Scalars that belong to the codes.
    pub scalars: Scalars,
    /// The vector as received, or nothing when the collection keeps no originals beside its codes.
    pub original: &'a [f32],
    /// The element's name.
    pub name: &'a [u8],
}

/// A stretch of neighbouring rows whose arrays are contiguous, for scans.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Number of the first row.
    pub first: usize,
    /// Codes, `rows * code_bytes`.
    pub codes: &'a [u8],
    /// Originals, `rows * original_len`, where there are no codes (else they are not touched by a scan: empty).
    pub originals: &'a [f32],
    /// One scale per row.
    pub scales: &'a [f32],
    /// One bias per row, or nothing when the metric has none.
    pub biases: &'a [f32],
    /// One norm per row.
    pub norms: &'a [f32],
    /// One residual per row.
    pub residuals: &'a [f32],
}

impl<'a> Run<'a> {
    /// Rows `start..end` of the run.
    pub fn rows(&self, start: usize, end: usize) -> Run<'a> {
        let rows = self.scales.len().max(1);
        let floats = |all: &'a [f32]| {
            let width = all.len() / rows;
            &all[start * width..end * width]
        };
        let code_bytes = self.codes.len() / rows;
        Run {
            first: self.first + start,
            codes: &self.codes[start * code_bytes..end * code_bytes],
            originals: floats(self.originals),
            scales: floats(self.scales),
            biases: floats(self.biases),
            norms: floats(self.norms),
            residuals: floats(self.residuals),
        }
    }
}

/// Sizes of one row's arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShape {
    /// Bytes of codes a row.
    pub code_bytes: usize,
    /// Components of the original a row; 0 when the codes are all there is.
    pub original_len: usize,
    /// Whether rows have a bias.
    pub biased: bool,
}

impl RowShape {
    /// Bytes of a row that a scan reads: its codes, or its original where there are none.
    pub fn scanned_bytes(&self) -> usize {
        if self.code_bytes > 0 { self.code_bytes } else { self.original_len * size_of::<f32>() }
    }
}

/// Rows in memory, appended by one thread and read by many. See the module's text.
pub struct RowArena {
    shape: RowShape,
    committed: AtomicUsize,
    /// Where the next name goes; the lock makes appending exclusive whatever the callers do.
    next_name: Mutex<usize>,
    rows: [OnceLock<Box<RowBlock>>; ROW_BLOCKS],
    names: [OnceLock<Box<Cells<u8>>>; NAME_BLOCKS],
}

// SAFETY: cells are written only inside `push`, under the `next_name` lock, at positions no reader can reach until the
// release store to `committed`; readers check `committed` with an acquire load first.
unsafe impl Sync for RowArena {}
// SAFETY: the arena owns its memory; nothing in it is tied to a thread.
unsafe impl Send for RowArena {}

impl RowArena {
    /// An empty arena.
    pub fn new(shape: RowShape) -> Self {
        Self {
            shape,
            committed: AtomicUsize::new(0),
            next_name: Mutex::new(0),
            rows: [const { OnceLock::new() }; ROW_BLOCKS],
            names: [const { OnceLock::new() }; NAME_BLOCKS],
        }
    }

    /// Rows that may be read.
    pub fn len(&self) -> usize {
        self.committed.load(Ordering::Acquire)
    }

    /// Whether no row has been added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory taken, spare room included where it is there already.
    pub fn size_bytes(&self) -> usize {
        let rows = self.rows.iter().filter_map(OnceLock::get).map(|block| block.size_bytes());
        let names = self.names.iter().filter_map(OnceLock::get);
        rows.sum::<usize>() + names.map(|names| size_of::<Cells<u8>>() + names.size_bytes()).sum::<usize>()
    }

    /// Bytes of names so far (with their length prefixes and the gaps at block ends).
    pub fn name_bytes(&self) -> usize {
        *self.next_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row and returns its number, or `None` when the arena is full.
    ///
    /// # Panics
    /// When the row's arrays do not have the arena's shape.
    pub fn push(&self, row: &NewRow<'_>) -> Option<usize> {
        assert_eq!(row.codes.len(), self.shape.code_bytes, "codes have the arena's shape");
        assert_eq!(row.original.len(), self.shape.original_len, "the original has the arena's shape");
        let mut next_name = self.next_name.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.committed.load(Ordering::Relaxed);
        if at >= MAX_ROWS {
            return None;
        }
        let name_at = self.push_name(&mut next_name, row.name)?;
        let (index, offset) = ROWS.locate(at);
        let block = self.rows[index].get_or_init(|| self.new_block(ROWS.block_len(index)));
        // SAFETY: `at` is not committed yet, so no reader can reach these cells, and the lock keeps other writers out.
        unsafe {
            block.codes.write(offset * self.shape.code_bytes, row.codes);
            block.originals.write(offset * self.shape.original_len, row.original);
            block.scales.write(offset, &[row.scalars.scale]);
            block.norms.write(offset, &[row.scalars.norm]);
            block.residuals.write(offset, &[row.scalars.residual]);
            if self.shape.biased {
                block.biases.write(offset, &[row.scalars.bias]);
            }
            block.names.write(offset, &[name_at]);
        }
        self.committed.store(at + 1, Ordering::Release);
        Some(at)
    }

    fn new_block(&self, rows: usize) -> Box<RowBlock> {
        let RowShape { code_bytes, original_len, biased } = self.shape;
        Box::new(RowBlock {
            codes: Cells::new(rows * code_bytes, true),
            originals: Cells::new(rows * original_len, code_bytes == 0),
            scales: Cells::new(rows, true),
            norms: Cells::new(rows, false),
            residuals: Cells::new(rows, false),
            biases: Cells::new(if biased { rows } else { 0 }, true),
            names: Cells::new(rows, false),
        })
    }

    /// Writes a name with its length in front; a name never spans two blocks.
    fn push_name(&self, next_name: &mut usize, name: &[u8]) -> Option<u32> {
        let mut prefix = [0u8; 5];
        let prefix = encode_length(u32::try_from(name.len()).ok()?, &mut prefix);
        let needed = prefix.len() + name.len();
        let (mut index, mut offset) = NAMES.locate(*next_name);
        while offset + needed > NAMES.block_len(index) {
            index += 1;
            offset = 0;
            if index >= NAME_BLOCKS {
                return None;
            }
        }
        let block = self.names[index].get_or_init(|| Box::new(Cells::new(NAMES.block_len(index), false)));
        // SAFETY: the address is handed out only with the row's commit, and the caller holds the lock.
        unsafe {
            block.write(offset, prefix);
            block.write(offset + prefix.len(), name);
        }
        let at = NAMES.block_start(index) + offset;
        *next_name = at + needed;
        u32::try_from(at).ok()
    }

    #[inline]
    fn block_of(&self, row: usize) -> (&RowBlock, usize) {
        assert!(row < self.len(), "row {row} is committed");
        let index = ROWS.block_at(row);
        let block = self.rows[index].get();
        (block.unwrap_or_else(|| unreachable!("a committed row has a block")), row - ROW_STARTS[index])
    }

    /// Codes of a row.
    pub fn codes(&self, row: usize) -> &[u8] {
        let (block, offset) = self.block_of(row);
        // SAFETY: `block_of` checked that the row is committed.
        unsafe { block.codes.read(offset * self.shape.code_bytes, self.shape.code_bytes) }
    }

    /// The original of a row; empty when the arena keeps none.
    pub fn original(&self, row: usize) -> &[f32] {
        let (block, offset) = self.block_of(row);
        // SAFETY: `block_of` checked that the row is committed.
        unsafe { block.originals.read(offset * self.shape.original_len, self.shape.original_len) }
    }

    /// Scalars of a row.
    pub fn scalars(&self, row: usize) -> Scalars {
        let (block, offset) = self.block_of(row);
        // SAFETY: `block_of` checked that the row is committed.
        unsafe {
            Scalars {
                scale: block.scales.read(offset, 1)[0],
                norm: block.norms.read(offset, 1)[0],
                residual: block.residuals.read(offset, 1)[0],
                bias: if self.shape.biased { block.biases.read(offset, 1)[0] } else { 0.0 },
            }
        }
    }

    /// A row to be scored by itself.
    #[inline]
    pub fn row(&self, row: usize) -> RowRef<'_> {
        let (block, offset) = self.block_of(row);
        let RowShape { code_bytes, original_len, biased } = self.shape;
        // SAFETY: `block_of` checked that the row is committed.
        unsafe {
            let bytes = match code_bytes {
                0 => bytemuck::cast_slice(block.originals.read(offset * original_len, original_len)),
                _ => block.codes.read(offset * code_bytes, code_bytes),
            };
            let bias = if biased { Some(&block.biases.read(offset, 1)[0]) } else { None };
            RowRef { bytes, scale: &block.scales.read(offset, 1)[0], bias }
        }
    }

    /// Name of a row.
    pub fn name(&self, row: usize) -> &[u8] {
        let (block, offset) = self.block_of(row);
        // SAFETY: `block_of` checked that the row is committed.
        let at = unsafe { block.names.read(offset, 1)[0] } as usize;
        let (index, offset) = NAMES.locate(at);
        let names = self.names[index].get();
        let names = names.unwrap_or_else(|| unreachable!("a committed name has a block"));
        let room = names.len - offset;
        // SAFETY: the prefix (at most five bytes) and the name were written before the row was committed; bytes after
        // them inside the block may be written meanwhile, so only what is known to be there is read.
        unsafe {
            let (mut len, mut shift, mut used) = (0usize, 0u32, 0usize);
            while used < room {
                let byte = names.read(offset + used, 1)[0];
                len |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                used += 1;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            names.read(offset + used, len)
        }
    }

    /// Rows `0..len` as runs of contiguous arrays.
    ///
    /// # Panics
    /// When `len` rows have not been committed.
    pub fn runs(&self, len: usize) -> impl Iterator<Item = Run<'_>> {
        assert!(len <= self.len(), "{len} rows are committed");
        (0..ROW_BLOCKS).map_while(move |index| {
            let first = ROWS.block_start(index);
            if first >= len {
                return None;
            }
            let rows = ROWS.block_len(index).min(len - first);
            let block = self.rows[index].get()?;
            let originals = if self.shape.code_bytes == 0 { rows * self.shape.original_len } else { 0 };
            // SAFETY: rows below `len` are committed, as asserted above.
            unsafe {
                Some(Run {
                    first,
                    codes: block.codes.read(0, rows * self.shape.code_bytes),
                    originals: block.originals.read(0, originals),
                    scales: block.scales.read(0, rows),
                    biases: block.biases.read(0, if self.shape.biased { rows } else { 0 }),
                    norms: block.norms.read(0, rows),
                    residuals: block.residuals.read(0, rows),
                })
            }
        })
    }
}

/// Length of a name as a base-128 varint, low bits first.
fn encode_length(mut len: u32, buffer: &mut [u8; 5]) -> &[u8] {
    let mut used = 0;
    loop {
        let low = len.to_le_bytes()[0] & 0x7f;
        len >>= 7;
        buffer[used] = if len == 0 { low } else { low | 0x80 };
        used += 1;
        if len == 0 {
            return &buffer[..used];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(arena: &RowArena, value: u8, name: &[u8]) -> Option<usize> {
        let original = [f32::from(value); 3];
        let scalars = Scalars { scale: f32::from(value), norm: 2.0, residual: 3.0, bias: 4.0 };
        arena.push(&NewRow { codes: &[value; 8], scalars, original: &original, name })
    }

    fn arena() -> RowArena {
        RowArena::new(RowShape { code_bytes: 8, original_len: 3, biased: false })
    }

    #[test]
    fn blocks_follow_one_another() {
        assert_eq!(ROWS.block_start(ROW_BLOCKS - 1), 16_384);
        for (growth, blocks) in [(ROWS, ROW_BLOCKS), (NAMES, NAME_BLOCKS)] {
            let mut next = 0;
            for block in 0..blocks {
                assert_eq!(growth.block_start(block), next);
                assert_eq!(growth.locate(next), (block, 0));
                next += growth.block_len(block);
                assert_eq!(growth.locate(next - 1), (block, growth.block_len(block) - 1));
            }
            assert!(next >= MAX_ROWS);
        }
        assert!(NAMES.locate((1 << 31) - 1).0 < NAME_BLOCKS);
    }

    #[test]
    fn a_large_arena_takes_little_more_memory_than_its_rows() {
        let arena = RowArena::new(RowShape { code_bytes: 128, original_len: 128, biased: false });
        let scalars = Scalars { scale: 1.0, norm: 2.0, residual: 3.0, bias: 0.0 };
        let row_bytes = 128 + 512 + 3 * 4 + 4 + 12;
        for at in 0..MAX_ROWS {
            let (code, original) = ([at.to_le_bytes()[1]; 128], [at as f32; 128]);
            let row = NewRow { codes: &code, scalars, original: &original, name: b"element-xyz" };
            assert_eq!(arena.push(&row), Some(at));
            if at >= 1000 && at % 997 == 0 {
                // A huge page, and a fifth of the first blocks.
                let spare = arena.size_bytes() - (at + 1) * row_bytes;
                assert!(spare <= HUGE_PAGE_BYTES + at.min(16_384) * row_bytes / 4, "{at}: {spare}");
            }
        }
        let last = arena.runs(MAX_ROWS).last().unwrap();
        assert_eq!(last.scales.len(), MAX_ROWS - 16_384);
        assert_eq!(last.codes.as_ptr().align_offset(HUGE_PAGE_BYTES), 0, "so that huge pages fit");
        let ends = [last.codes[0], last.codes[last.codes.len() - 1]];
        assert_eq!(ends, [16_384usize.to_le_bytes()[1], (MAX_ROWS - 1).to_le_bytes()[1]]);
        assert_eq!(arena.original(50_000), [50_000.0; 128]);
    }

    #[test]
    fn mapped_memory_is_counted_as_long_as_it_is_there() {
        let pages = Pages::new(64 << 20, false).unwrap();
        let before = heap::mapped_bytes();
        pages.touch(20 << 20);
        assert!(heap::mapped_bytes() >= before.saturating_sub(8 << 20) + (12 << 20));
        let filled = heap::mapped_bytes();
        drop(pages);
        assert!(heap::mapped_bytes() <= filled.saturating_sub(12 << 20));
    }

    #[test]
    fn rows_come_back_as_written() {
        let arena = arena();
        let long = vec![7u8; 70_000];
        for i in 0..1000usize {
            let name = if i == 500 { long.clone() } else { format!("element-{i}").into_bytes() };
            assert_eq!(push(&arena, i.to_le_bytes()[0], &name), Some(i));
        }
        for i in 0..1000usize {
            let value = i.to_le_bytes()[0];
            let name = if i == 500 { long.clone() } else { format!("element-{i}").into_bytes() };
            assert_eq!(arena.name(i), name);
            assert_eq!(arena.codes(i), [value; 8]);
            assert_eq!(arena.original(i), [f32::from(value); 3]);
            assert_eq!(arena.scalars(i).scale, f32::from(value));
        }
    }

    #[test]
    fn runs_cover_every_row_once() {
        let arena = arena();
        for i in 0..333usize {
            push(&arena, i.to_le_bytes()[0], b"x");
        }
        for len in [0, 1, 4, 5, 8, 9, 100, 333] {
            let scales: Vec<f32> = arena.runs(len).flat_map(|run| run.scales.to_vec()).collect();
            let expected: Vec<f32> = (0..len).map(|i| f32::from(i.to_le_bytes()[0])).collect();
            assert_eq!(scales, expected);
            assert!(arena.runs(len).all(|run| run.codes.len() == run.scales.len() * 8));
        }
    }

    #[test]
    fn a_full_arena_refuses() {
        let arena = RowArena::new(RowShape { code_bytes: 0, original_len: 0, biased: false });
        let scalars = Scalars { scale: 0.0, norm: 0.0, residual: 0.0, bias: 0.0 };
        let row = NewRow { codes: &[], scalars, original: &[], name: b"" };
        for i in 0..MAX_ROWS {
            assert_eq!(arena.push(&row), Some(i));
        }
        assert_eq!(arena.push(&row), None);
        assert_eq!(arena.name(MAX_ROWS - 1), b"");
    }

    #[test]
    fn readers_see_whole_rows_while_rows_are_added() {
        let arena = arena();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..20_000usize)
                    .for_each(|i| assert_eq!(push(&arena, i.to_le_bytes()[0], &i.to_le_bytes()), Some(i)))
            });
            scope.spawn(|| {
                while arena.len() < 20_000 {
                    let len = arena.len();
                    if let Some(last) = len.checked_sub(1) {
                        let value = last.to_le_bytes()[0];
                        assert_eq!(arena.codes(last), [value; 8]);
                        assert_eq!(arena.name(last), last.to_le_bytes());
                    }
                }
            });
        });
    }
}

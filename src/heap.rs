//! The heap: counted, and tuned so that what is freed goes back to the system.

use std::alloc::System;
use std::sync::atomic::{AtomicUsize, Ordering};

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Allocations from this size on are mapped on their own, and unmapped when freed.
const MAPPED_FROM_BYTES: libc::c_int = 128 << 10;

/// Memory that the allocator may keep beyond what is in use before it is asked to give it back.
const KEPT_BYTES: usize = 64 << 20;

/// Memory that was mapped, not allocated.
static MAPPED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of memory in use; mapped files are not counted.
pub fn heap_bytes() -> usize {
    HEAP.allocated() + mapped_bytes()
}

/// Bytes of memory in use that are no file's and were mapped rather than allocated.
pub fn mapped_bytes() -> usize {
    MAPPED_BYTES.load(Ordering::Relaxed)
}

/// Counts memory that was mapped and is used now.
pub fn count_mapped(bytes: usize) {
    MAPPED_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// Takes back what [`count_mapped`] was told, when the memory is given back.
pub fn forget_mapped(bytes: usize) {
    MAPPED_BYTES.fetch_sub(bytes, Ordering::Relaxed);
}

/// Keeps glibc from raising the size from which it maps allocations on their own. It does so by itself when large ones
/// are freed, and then keeps hundreds of megabytes after a few clients have been slow to read. Call it once, at the start.
pub fn tune() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only stores the value; it may be called at any time and from any thread. That it refuses (0) is
    // harmless: the heap works as before.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    }
}

/// Gives freed memory back to the system if the allocator keeps much of it. Takes some milliseconds then.
pub fn give_back() {
    if resident_bytes() < heap_bytes() + KEPT_BYTES {
        return;
    }
    trim();
}

/// Gives freed memory back to the system, however little the allocator keeps.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only gives up pages that hold no allocation; it locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory that is no file's; 0 where the system does not tell.
fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').skip(1).map(|field| field.parse::<usize>().unwrap_or(0));
    let (resident, of_files) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(of_files) * PAGE_BYTES
}

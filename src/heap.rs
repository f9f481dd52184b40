//! The heap: counted, and tuned so that what is freed goes back to the system.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Allocations from this size on are mapped on their own, and unmapped when freed.
const MAPPED_FROM_BYTES: libc::c_int = 128 << 10;

/// Bytes of heap in use; mapped files are not counted.
pub fn heap_bytes() -> usize {
    HEAP.allocated()
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

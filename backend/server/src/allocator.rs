//! Who gives memory to this program.

use libmimalloc_sys::{mi_option_set, mi_option_t};

// Training allocates and frees large buffers all the time; the system allocator hands each back to the kernel and faults it in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's header: milliseconds after which memory that is free goes back to the system, -1 for never.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps what is freed from now on for what is allocated next. For processes that train and then end: each step frees and allocates the same
/// large blocks, and of a model of 135 million weights the system clears the pages of each for a quarter of a step.
pub fn keep_what_is_freed() {
    // SAFETY: options may be set at any time, from any thread; this is one of those that mimalloc has.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, -1);
    }
}

//! Memory for a thread that allocates very much very fast.
//!
//! glibc lets the heap of any thread but the first grow by no more than what is asked for, a page at a time, and each time that
//! takes a system call which holds up every page fault of the process. A larger piece, asked for and given back at once, makes the
//! heap grow by that much instead.

/// Shorter than what glibc would take from the system for itself, and than what it would give back to it.
const STEP: usize = 64 << 10;
/// What a revision takes beside its key and its value.
const BESIDE: usize = 320;

/// How much of the last step is left.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    left: usize,
}

impl Ahead {
    /// Have the heap grow once the last step is used up, as by a revision whose key and value have so many `bytes`.
    pub(crate) fn spend(&mut self, bytes: usize) {
        let bytes = bytes + BESIDE;
        if self.left < bytes {
            drop(std::hint::black_box(Vec::<u8>::with_capacity(STEP)));
            self.left = STEP;
        }
        self.left = self.left.saturating_sub(bytes);
    }
}

//! How the store wakes a watch: a flag and a waker, small because thousands of idle watches hold one each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

/// Set by the store's publications, read by one watch.
#[derive(Debug, Default)]
pub(super) struct Signal {
    has_news: AtomicBool,
    is_closed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    pub(super) fn set(&self) {
        self.has_news.store(true, Ordering::Release);
        let waiting = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.set();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Whether there are news; none left behind. If not, the task of `context` is woken by the next.
    pub(super) fn take(&self, context: &Context<'_>) -> bool {
        if self.has_news.swap(false, Ordering::AcqRel) {
            return true;
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        self.has_news.swap(false, Ordering::AcqRel)
    }
}

/// The signals of all open watches of a front door, to end them when it closes.
#[derive(Debug, Default)]
pub(super) struct Signals {
    open: Mutex<HashMap<usize, Arc<Signal>>>,
    is_closed: AtomicBool,
}

impl Signals {
    pub(super) fn add(&self, signal: &Arc<Signal>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(Arc::as_ptr(signal) as usize, Arc::clone(signal));
        if self.is_closed.load(Ordering::Acquire) {
            signal.close();
        }
    }

    pub(super) fn remove(&self, signal: &Arc<Signal>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&(Arc::as_ptr(signal) as usize));
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in open.values() {
            signal.close();
        }
    }
}

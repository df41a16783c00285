//! The native half of korch. `py` is the only room that names pyo3; the others are plain Rust.
//! Direction of imports: `py -> front | datastore | etcd -> store -> api`, `front | etcd -> socket`, `datastore -> etcd` and `py -> scheduler | proxy -> api`.

pub mod api;
pub mod datastore;
pub mod etcd;
pub mod front;
#[cfg(test)]
mod fuzzed;
pub mod proxy;
mod py;
pub mod scheduler;
pub mod socket;
pub mod store;

//! Who owns which field: managedFields of every write, and server-side apply.
//!
//! `value` is an object as a tree that borrows from its bytes, `path` a step to a field, `set` fields as a tree of such steps and its
//! wire form FieldsV1. `types` tells how the compiled schema merges a value (atomic, set, map by keys, or deduced when there is no
//! schema); `changed` reads two objects without what they share; `fields`, `compare`, `merge`, `remove` and `validate` are the walks over
//! typed values; `entries` are an object's managers, and `peel` takes them off it unread; `remembered` knows the fields of
//! specs that come again; `update` and `apply` put these together, `again` without what is known already; `overlay` merges where nobody
//! is to own anything.
//! Mirrors sigs.k8s.io/structured-merge-diff and apimachinery's util/managedfields.

mod again;
mod apply;
mod changed;
mod compare;
mod entries;
mod fields;
mod merge;
mod overlay;
mod path;
mod peel;
mod remembered;
mod remove;
mod scale;
mod set;
mod types;
mod update;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use again::{AppliedBefore, apply_again};
pub use apply::{Applied, ApplyError, Conflict, apply};
pub use entries::Write;
pub use overlay::overlay;
pub use peel::peel;
pub use remembered::Remembered;
pub use scale::{scale_to_parent, scale_to_subresource};
pub use types::Type;
pub use update::{track, track_created};

//! What an object is, on bytes: quantities, times, the schema table, checking, patching, field managers, protobuf bodies, custom kinds
//! and CEL. No I/O, no clock.

pub mod cel;
pub mod check;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod json;
pub mod managed;
pub mod parts;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod structural;
pub mod time;
mod typed;

//! What an object is, on bytes: quantities, times, the schema table, checking, patching, protobuf bodies. No I/O, no clock.

pub mod check;
pub mod json;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod time;

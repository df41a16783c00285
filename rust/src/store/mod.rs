//! The map of this room.

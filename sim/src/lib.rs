//! A world that can be replayed.

//! One file per command: its arguments, and what it prints.

pub mod failure;
pub mod inspect;
pub mod shell;

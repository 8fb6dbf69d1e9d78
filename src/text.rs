//! Building text piece by piece.

use core::fmt;
use std::fmt::Write as _;

/// Appends formatted text; writing to a string cannot fail.
pub(crate) fn append(text: &mut String, piece: fmt::Arguments<'_>) {
    text.write_fmt(piece).unwrap_or_default();
}

//! Prefix extractors: which part of a key its table's filter also holds, so that a scan of a prefix
//! can leave out tables that have no such key.
//!
//! An extractor must give one prefix to all keys that begin with a scan's prefix, or none of use:
//! [`of_scan`](PrefixExtractor::of_scan) says when it does. Keys without a prefix (out of the
//! extractor's domain) are in no filter by prefix, and no scan that could find one asks for it.
//! Names are stored in tables; what a name means is frozen.

use core::fmt;
use core::str::FromStr;

use crate::error::{Error, Result};
use crate::types::{KEY_BYTES_MAX, to_u64, to_usize};

/// Which bytes at the start of a key are its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrefixExtractor {
    /// The first so many bytes, 1 to 65,536; a shorter key has no prefix. Named `fixed-8`.
    FixedLength(u32),
    /// Up to the first such byte, itself included; a key without it has no prefix. Named
    /// `delimiter-2f`.
    Delimiter(u8),
}

impl PrefixExtractor {
    /// The prefix of a key; `None` where the key is out of the extractor's domain.
    pub fn extract<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        match self {
            Self::FixedLength(len) => key.get(..to_usize(u64::from(*len))),
            Self::Delimiter(delimiter) => {
                let at = key.iter().position(|byte| byte == delimiter)?;
                key.get(..=at)
            }
        }
    }

    /// The prefix that every key has which begins with `scan_prefix`; `None` where such keys may
    /// have several, or none.
    pub fn of_scan<'k>(&self, scan_prefix: &'k [u8]) -> Option<&'k [u8]> {
        // Both kinds look at the first bytes alone: what they find there, longer keys keep.
        self.extract(scan_prefix)
    }

    /// Refuses lengths out of bounds.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the length and its bounds.
    pub fn check(self) -> Result<()> {
        match self {
            Self::FixedLength(len) if len == 0 || u64::from(len) > to_u64(KEY_BYTES_MAX) => {
                Err(refused(&self.to_string()))
            }
            Self::FixedLength(_) | Self::Delimiter(_) => Ok(()),
        }
    }
}

fn refused(text: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    Error::InvalidArgument(format!(
        "prefix extractor {shown:?} does not exist; allowed: fixed-N with N from 1 to \
         {KEY_BYTES_MAX} bytes, delimiter-XX with a byte in hexadecimal, such as delimiter-2f"
    ))
}

impl fmt::Display for PrefixExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FixedLength(len) => write!(f, "fixed-{len}"),
            Self::Delimiter(byte) => write!(f, "delimiter-{byte:02x}"),
        }
    }
}

impl FromStr for PrefixExtractor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once('-') {
            Some(("fixed", len)) => len.parse().ok().map(Self::FixedLength),
            Some(("delimiter", hex)) => u8::from_str_radix(hex, 16).ok().map(Self::Delimiter),
            Some(_) | None => None,
        };
        // One name for each: what does not print as it was given is none.
        let extractor = parsed.filter(|e| e.to_string() == text).ok_or_else(|| refused(text))?;
        extractor.check()?;
        Ok(extractor)
    }
}

/// The extractor of a tree: it works on what follows a layout's own prefix, which is part of the
/// result. So tenants that share a table have no prefix in common. Named `fixed-8` where the
/// layout has no prefix, `8+fixed-8` behind one of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeExtractor {
    /// Bytes of the layout's prefix.
    pub layout_bytes: u8,
    /// What works on the rest.
    pub extractor: PrefixExtractor,
}

impl TreeExtractor {
    fn apply<'k>(
        &self,
        stored: &'k [u8],
        f: impl FnOnce(&PrefixExtractor, &'k [u8]) -> Option<&'k [u8]>,
    ) -> Option<&'k [u8]> {
        let layout_len = usize::from(self.layout_bytes);
        let prefix = f(&self.extractor, stored.get(layout_len..)?)?;
        stored.get(..layout_len.saturating_add(prefix.len()))
    }

    /// As [`PrefixExtractor::extract`], of a key as its tree stores it, the layout's prefix
    /// included.
    pub fn extract<'k>(&self, stored_key: &'k [u8]) -> Option<&'k [u8]> {
        self.apply(stored_key, PrefixExtractor::extract)
    }

    /// As [`PrefixExtractor::of_scan`], of a prefix of keys as their tree stores them.
    pub fn of_scan<'k>(&self, stored_prefix: &'k [u8]) -> Option<&'k [u8]> {
        self.apply(stored_prefix, PrefixExtractor::of_scan)
    }
}

impl fmt::Display for TreeExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layout_bytes > 0 {
            write!(f, "{}+", self.layout_bytes)?;
        }
        self.extractor.fmt(f)
    }
}

impl FromStr for TreeExtractor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (layout_bytes, name) = match text.split_once('+') {
            Some((layout_bytes, name)) => (layout_bytes.parse().ok(), name),
            None => (Some(0), text),
        };
        let layout_bytes = layout_bytes.ok_or_else(|| refused(text))?;
        let parsed = Self { layout_bytes, extractor: name.parse()? };
        if parsed.to_string() == text { Ok(parsed) } else { Err(refused(text)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_parse_as_they_print_and_no_other_does() {
        for name in ["fixed-1", "fixed-65536", "delimiter-00", "delimiter-2f", "delimiter-ff"] {
            assert_eq!(name.parse::<PrefixExtractor>().unwrap().to_string(), name);
            assert_eq!(name.parse::<TreeExtractor>().unwrap().to_string(), name);
            let behind = format!("8+{name}");
            assert_eq!(behind.parse::<TreeExtractor>().unwrap().to_string(), behind);
            assert!(behind.len() <= 31, "a footer has no room for {behind}");
        }
        for name in
            ["", "none", "fixed-0", "fixed-65537", "fixed-+1", "fixed-08", "delimiter-2F", "fixed"]
        {
            assert!(name.parse::<PrefixExtractor>().is_err(), "{name}");
            assert!(format!("8+{name}").parse::<TreeExtractor>().is_err(), "{name}");
        }
        for name in ["0+fixed-1", "+fixed-1", "256+fixed-1", "8+8+fixed-1"] {
            assert!(name.parse::<TreeExtractor>().is_err(), "{name}");
        }
    }

    #[test]
    fn prefixes_are_as_their_names_say() {
        let fixed = PrefixExtractor::FixedLength(3);
        assert_eq!(fixed.extract(b"abcd"), Some(&b"abc"[..]));
        assert_eq!(fixed.extract(b"abc"), Some(&b"abc"[..]));
        assert_eq!(fixed.extract(b"ab"), None);
        let path = PrefixExtractor::Delimiter(b'/');
        assert_eq!(path.extract(b"a/b/c"), Some(&b"a/"[..]));
        assert_eq!(path.extract(b"/"), Some(&b"/"[..]));
        assert_eq!(path.extract(b"abc"), None);
        assert_eq!(path.of_scan(b"abc"), None);
        let behind = TreeExtractor { layout_bytes: 2, extractor: path };
        assert_eq!(behind.extract(b"//a/b"), Some(&b"//a/"[..]));
        assert_eq!(behind.extract(b"/"), None);
        assert_eq!(behind.of_scan(b"//"), None);
    }

    proptest! {
        /// Strategy: short keys over few letters, so that they meet.
        /// Invariants: where a scan's prefix has an extracted prefix, every key that begins with it
        /// has that same one; keys with one prefix are neighbours in key order.
        #[test]
        fn keys_of_a_scan_have_its_prefix(
            extractor in prop_oneof![
                (1..4_u32).prop_map(PrefixExtractor::FixedLength),
                (0..3_u8).prop_map(PrefixExtractor::Delimiter),
            ],
            layout_bytes in 0..3_u8,
            scan in proptest::collection::vec(0..3_u8, 0..6),
            mut keys in proptest::collection::vec(proptest::collection::vec(0..3_u8, 0..7), 0..60),
        ) {
            let extractor = TreeExtractor { layout_bytes, extractor };
            keys.push([&scan[..], &[1, 2]].concat());
            keys.sort();
            keys.dedup();
            if let Some(prefix) = extractor.of_scan(&scan) {
                prop_assert!(scan.starts_with(prefix));
                for key in keys.iter().filter(|key| key.starts_with(&scan)) {
                    prop_assert_eq!(extractor.extract(key), Some(prefix));
                }
            }
            let mut seen: Vec<&[u8]> =
                keys.iter().filter_map(|key| extractor.extract(key)).collect();
            seen.dedup();
            let runs = seen.len();
            seen.sort();
            seen.dedup();
            prop_assert_eq!(seen.len(), runs);
        }
    }
}

//! Broken models trip each rule.

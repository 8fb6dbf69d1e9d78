//! What is wrong with a workload's description, in one line that names the key and what is allowed.

use core::fmt;

/// Why a description makes no workload. Nothing was built.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SpecError {
    /// The text is not TOML, or has a key or a type that does not belong there.
    Parse {
        /// The line, counted from 1; 0 where it is not known.
        line: usize,
        /// The parser's own words.
        detail: String,
    },
    /// No scenario has this name.
    UnknownWorkload {
        /// The name given.
        name: String,
        /// The names there are.
        allowed: Vec<&'static str>,
    },
    /// The scenario has no such parameter.
    UnknownParam {
        /// The scenario.
        workload: &'static str,
        /// The name given.
        name: String,
        /// The names there are.
        allowed: Vec<&'static str>,
    },
    /// A number out of its bounds, or not a number.
    OutOfBounds {
        /// The key.
        key: String,
        /// The value given.
        value: f64,
        /// Smallest value allowed.
        min: f64,
        /// Largest value allowed.
        max: f64,
    },
    /// A number of things or bytes with a fraction.
    NotWhole {
        /// The key.
        key: String,
        /// The value given.
        value: f64,
    },
    /// A trace that cannot be read or does not fit, or none where one is needed.
    Trace {
        /// The line, counted from 1; 0 where no line is wrong.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// Weights that are none, too many, all zero or too large to add.
    Weights {
        /// How many there are.
        count: usize,
    },
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace { line: 0, detail } => write!(f, "trace: {detail}"),
            Self::Trace { line, detail } => write!(f, "trace, line {line}: {detail}"),
            Self::Parse { line: 0, detail } => write!(f, "workload: {detail}"),
            Self::Parse { line, detail } => write!(f, "workload, line {line}: {detail}"),
            Self::UnknownWorkload { name, allowed } => {
                write!(f, "no workload {name:?}; allowed: {}", allowed.join(", "))
            }
            Self::UnknownParam { workload, name, allowed } => {
                write!(
                    f,
                    "workload {workload} has no parameter {name:?}; allowed: {}",
                    allowed.join(", ")
                )
            }
            Self::OutOfBounds { key, value, min, max } => {
                write!(f, "{key} = {value} is out of bounds; allowed: {min} to {max}")
            }
            Self::NotWhole { key, value } => {
                write!(f, "{key} = {value} has a fraction; allowed: whole numbers")
            }
            Self::Weights { count } => {
                write!(f, "{count} tenant weights; allowed: at least one, with a sum in 1 to 2^63")
            }
        }
    }
}

impl core::error::Error for SpecError {}

impl SpecError {
    /// The workload `trace` without a file.
    pub(crate) fn no_trace() -> Self {
        let detail = "the workload trace needs a file: set workload_file".to_owned();
        Self::Trace { line: 0, detail }
    }

    /// An error of the TOML reader, with the line it points at.
    pub(crate) fn parse(text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(0, |before| before.matches('\n').count() + 1);
        Self::Parse { line, detail: error.message().replace('\n', " ") }
    }
}

/// Refuses a number out of its bounds.
pub(crate) fn check_bounds(key: &str, value: f64, min: f64, max: f64) -> Result<(), SpecError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(SpecError::OutOfBounds { key: key.to_owned(), value, min, max })
}

//! How an error of the engine and bytes of a user look in JSON.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay_engine::Error;
use serde::{Serialize, Serializer};

/// An error for machines: words, a kind, and the file and offset where it names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The error in words, one line.
    pub error: String,
    /// One word for it: `io`, `corruption`, `invalid`, ...
    pub kind: &'static str,
    /// The file it names.
    pub file: Option<String>,
    /// The offset in that file.
    pub offset: Option<u64>,
}

impl Failure {
    /// A wish that makes no sense.
    pub fn invalid(error: impl Into<String>) -> Self {
        Self { error: error.into(), kind: "invalid", file: None, offset: None }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let (file, offset) = error.location();
        let name = |path: &Path| path.display().to_string();
        Self { error: error.to_string(), kind: error.kind(), file: file.map(name), offset }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// Bytes of a user without loss: a string where they are UTF-8, else `{"base64": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub bytes::Bytes);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Raw {
            base64: String,
        }
        match core::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Raw { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

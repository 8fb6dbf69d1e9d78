//! A multi-tenant LSM storage engine whose every contact with the world goes through one trait.

pub mod coding;
pub mod env;
pub mod error;
pub mod options;
pub mod policy;
pub mod types;

pub use error::{Error, Result};

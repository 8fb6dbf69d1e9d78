//! A multi-tenant LSM storage engine whose every contact with the world goes through one trait.

pub mod cache;
pub mod coding;
pub mod env;
pub mod error;
pub mod iter;
pub mod policy;
pub mod table;
pub mod types;

pub use error::{Error, Result};

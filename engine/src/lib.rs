//! A multi-tenant LSM storage engine whose every contact with the world goes through one trait.
//!
//! Many tenants share one directory, one write-ahead log, one manifest and one memory budget. Which
//! memtable is flushed, when a writer must wait and which tables are merged is decided by policies,
//! each a small object that sees a view of facts and nothing else; the engine carries decisions
//! out. The same source runs on a real filesystem ([`env::os`]), in memory ([`env::mem`]) and in a
//! simulation that a seed decides.
//!
//! Modules stand in rows; a module uses its own row and those above it.
//!
//! | row | modules |
//! |---|---|
//! | words | [`types`], [`error`], [`coding`], [`prefix`], `sync`, [`mod@pointer`] |
//! | decisions | [`policy`] |
//! | world | [`mod@env`], [`options`], [`signal`], [`events`], [`metrics`] |
//! | parts | [`group`], [`layout`], [`batch`], [`wal`], [`memtable`], [`budget`] |
//! | parts | [`cache`], [`table`], [`iter`] |
//! | state | [`version`] |
//! | facts | [`pressure`], `log_space`, `disk_space`, `jobs`, `shared`, [`waiting`] |
//! | verbs | [`mod@write`], [`read`], `retain`, `flush`, `compaction`, `gc` |
//! | verbs | `space`, `recovery`, `replay`, `open`, `tenancy` |
//! | verbs | [`inspect`], [`verify`], [`repair`], [`branches`], [`structure`], [`detach`] |
//! | loop | `background` |
//! | face | [`db`], [`tenant`], [`blocking`] |
//! | checks | [`decoders`] |

mod background;
pub mod batch;
pub mod blocking;
pub mod branches;
pub mod budget;
pub mod cache;
pub mod coding;
mod compaction;
pub mod db;
pub mod decoders;
pub mod detach;
mod disk_space;
pub mod env;
pub mod error;
pub mod events;
mod flush;
mod gc;
pub mod group;
pub mod inspect;
pub mod iter;
mod jobs;
pub mod layout;
mod log_space;
pub mod memtable;
pub mod metrics;
mod open;
pub mod options;
pub mod pointer;
pub mod policy;
pub mod prefix;
pub mod pressure;
pub mod read;
mod recovery;
pub mod repair;
mod replay;
mod retain;
mod shared;
pub mod signal;
mod space;
pub mod structure;
mod sync;
pub mod table;
mod tenancy;
pub mod tenant;
pub mod types;
pub mod verify;
pub mod version;
pub mod waiting;
pub mod wal;
pub mod write;

pub use batch::WriteBatch;
pub use db::Db;
pub use error::{Error, Result};
pub use options::Options;
pub use tenant::{Snapshot, Tenant};
pub use write::WriteOptions;

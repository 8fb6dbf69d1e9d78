//! The command line.

use std::process::ExitCode;

// A simulation allocates for every call and every answer: a seventh of its time with the platform's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    forebay::cli::main()
}

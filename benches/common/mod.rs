//! What the benches share: settings that keep the whole run short, a stream of draws, a directory
//! on the disk that holds the build.

use std::time::Duration;

use criterion::Criterion;

/// Few samples and short ones: all benches together take minutes.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// Splitmix64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    /// The next draw.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A draw below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.draw().checked_rem(end).unwrap_or(0)
    }
}

/// A key of 16 bytes, spread over the key space.
pub(crate) fn key(n: u64) -> [u8; 16] {
    (u128::from(Draws(n).draw()) << 64 | u128::from(n)).to_be_bytes()
}

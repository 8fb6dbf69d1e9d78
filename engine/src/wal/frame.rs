//! Frames: how records lie in a segment.

use crate::coding::Decoder;
use crate::types::{to_u64, to_usize};

use super::BLOCK_BYTES;

/// crc32c u32, payload length u16, kind u8, segment u32, durable offset u32.
pub(super) const HEADER_BYTES: usize = 15;

/// Where a frame's header has the segment.
pub(super) const SEGMENT_AT: usize = 7;

/// A frame's part of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The whole record.
    Full,
    First,
    Middle,
    Last,
}

impl Part {
    fn byte(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::First => 2,
            Self::Middle => 3,
            Self::Last => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Full),
            2 => Some(Self::First),
            3 => Some(Self::Middle),
            4 => Some(Self::Last),
            _ => None,
        }
    }
}

/// What a frame says of its segment, beside its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// The segment's number, cut to 32 bits.
    pub(super) segment: u32,
    /// Bytes of the segment known durable when the frame was built, cut to 32 bits.
    pub(super) durable_bytes: u32,
    /// Mixed into the checksum, so that no bytes of a user's pass for a frame; 0 in the first
    /// frame, which says what it is in the others.
    pub(super) salt: u32,
}

/// Appends a record as frames to `out`, which will be written at byte `start` of the segment.
pub(super) fn put_record(out: &mut Vec<u8>, start: u64, stamp: Stamp, mut record: &[u8]) {
    let base = out.len();
    let mut first = true;
    loop {
        let at = to_usize(start) + (out.len() - base);
        let left = BLOCK_BYTES - at.rem_euclid(BLOCK_BYTES);
        if left <= HEADER_BYTES {
            out.resize(out.len() + left, 0);
            continue;
        }
        let (now, later) = record.split_at_checked(left - HEADER_BYTES).unwrap_or((record, &[]));
        let part = match (first, later.is_empty()) {
            (true, true) => Part::Full,
            (true, false) => Part::First,
            (false, false) => Part::Middle,
            (false, true) => Part::Last,
        };
        // A reader takes the salt from the first frame, so that one is checked without.
        let salt = if at == 0 { 0 } else { stamp.salt };
        put_frame(out, Stamp { salt, ..stamp }, part, now);
        record = later;
        first = false;
        if record.is_empty() {
            return;
        }
    }
}

fn put_frame(out: &mut Vec<u8>, stamp: Stamp, part: Part, payload: &[u8]) {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut head = [0_u8; HEADER_BYTES - 4];
    let fields = len
        .to_le_bytes()
        .into_iter()
        .chain([part.byte()])
        .chain(stamp.segment.to_le_bytes())
        .chain(stamp.durable_bytes.to_le_bytes());
    for (to, from) in head.iter_mut().zip(fields) {
        *to = from;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(stamp.salt, &head), payload);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
}

/// A whole frame found in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) part: Part,
    pub(super) durable_bytes: u32,
    pub(super) payload: &'a [u8],
    /// Where the frame ends in its segment.
    pub(super) end: usize,
}

/// The frame at byte `at` of a segment, or `None` where there is no whole and valid one.
pub(super) fn read_frame(
    bytes: &[u8],
    at: usize,
    (segment, salt): (u32, u32),
) -> Option<Frame<'_>> {
    let shape = read_shape(bytes, at, segment)?;
    (crc32c::crc32c_append(salt, shape.checked) == shape.crc).then_some(shape.frame)
}

/// What looks like a frame, whose checksum was not looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    pub(super) frame: Frame<'a>,
    crc: u32,
    checked: &'a [u8],
}

impl Shape<'_> {
    /// The one salt with which its checksum is right.
    ///
    /// A checksum is linear in what it begins with: beginning with `salt` instead of 0 adds that,
    /// times x to the number of bits, modulo the polynomial.
    pub(super) fn salt(&self) -> u32 {
        let bits = to_u64(self.checked.len()).saturating_mul(8);
        let added = self.crc ^ crc32c::crc32c(self.checked);
        multiply(power_of_inverse_x(bits), added)
    }
}

/// The polynomial, its highest powers in the lowest bits, as the checksum has it.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const ONE: u32 = 1 << 31;
/// Times x, this is 1.
const INVERSE_X: u32 = ((ONE ^ POLYNOMIAL) << 1) | 1;

fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for power in (0..32).rev() {
        if (a >> power) & 1 == 1 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
    }
    product
}

fn power_of_inverse_x(mut exponent: u64) -> u32 {
    let (mut power, mut square) = (ONE, INVERSE_X);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    power
}

/// What looks like a frame of this segment at byte `at`.
pub(super) fn read_shape(bytes: &[u8], at: usize, segment: u32) -> Option<Shape<'_>> {
    let mut d = Decoder::new(bytes.get(at..)?);
    let crc = d.u32()?;
    let mut head = Decoder::new(d.rest().get(..HEADER_BYTES - 4)?);
    let len = usize::from(head.u16()?);
    let part = Part::from_byte(head.u8()?)?;
    let (found, durable_bytes) = (head.u32()?, head.u32()?);
    let left = BLOCK_BYTES - at.rem_euclid(BLOCK_BYTES);
    let fits = HEADER_BYTES + len <= left && u64::from(durable_bytes) <= to_u64(at);
    if found != segment || !fits {
        return None;
    }
    let checked = d.take(HEADER_BYTES - 4 + len)?;
    let payload = checked.get(HEADER_BYTES - 4..)?;
    let frame = Frame { part, durable_bytes, payload, end: at + HEADER_BYTES + len };
    Some(Shape { frame, crc, checked })
}

/// Where the next frame may begin: blocks end in padding too short for a header.
pub(super) fn skip_padding(at: usize) -> usize {
    let left = BLOCK_BYTES - at.rem_euclid(BLOCK_BYTES);
    if left <= HEADER_BYTES { at + left } else { at }
}

/// The start of the block behind `at`.
pub(super) fn next_block(at: usize) -> usize {
    at + (BLOCK_BYTES - at.rem_euclid(BLOCK_BYTES))
}

/// The low 32 bits, as frames keep numbers.
pub(super) fn low32(n: u64) -> u32 {
    u32::try_from(n & u64::from(u32::MAX)).unwrap_or(0)
}

/// How many bytes a record of this length takes at byte `start`, padding included.
#[cfg(test)]
pub(super) fn framed_bytes(start: u64, record: usize) -> u64 {
    let mut out = Vec::new();
    put_record(&mut out, start, Stamp { segment: 0, durable_bytes: 0, salt: 0 }, &vec![0; record]);
    to_u64(out.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_salt_of_a_frame_is_found_from_its_checksum() {
        for (len, salt) in [(0, 0), (0, 1), (1, 0xffff_ffff), (300, 0x8000_0001), (32_000, 77)] {
            let mut out = Vec::new();
            let payload: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[0]).collect();
            put_frame(&mut out, Stamp { segment: 7, durable_bytes: 0, salt }, Part::Full, &payload);
            assert_eq!(read_shape(&out, 0, 7).unwrap().salt(), salt, "{len} bytes");
        }
    }

    #[test]
    fn frames_never_cross_a_block() {
        for start in [0, 100, 32_000, 32_752, 32_753, 32_767] {
            for len in [0, 1, 100, 40_000, 100_000] {
                let bytes = framed_bytes(start, len);
                assert!(bytes >= to_u64(len + HEADER_BYTES), "{start} {len}");
            }
        }
    }
}

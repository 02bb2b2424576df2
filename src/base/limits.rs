//! Constants that several layers agree on, with the relations between them asserted at compile time.

/// Alignment of everything that is written with O_DIRECT: records, segments, buffers. Bytes.
pub const BLOCK: usize = 4096;

/// The longest frame that any configuration may accept: the record header's lengths are `u32`. Bytes.
pub const FRAME_BYTES_HARD_MAX: usize = 256 << 20;

/// Bytes read from one socket before another gets its turn, and the most that one `read` takes.
///
/// Half of a common 2 MiB L2 cache or less, so that the checksum finds the bytes still hot.
pub const READ_CHUNK: usize = 256 << 10;

/// Bytes that one connection may take in one turn of the reactor before the others get theirs.
pub const READ_TURN: usize = 4 << 20;

/// Most records that one group commit takes: bounds the batch's bookkeeping.
pub const BATCH_RECORDS_MAX: usize = 512;

/// Slices in one vectored write (Linux' `UIO_MAXIOV` is 1024).
pub const WRITE_SLICES_MAX: usize = 1024;

/// Permissions that no file with a key, a secret or tokens may give: its group may read it, nobody else anything.
pub const SECRET_MODE_FORBIDDEN: u32 = 0o037;

const _: () = assert!(BLOCK.is_power_of_two());
const _: () = assert!(BATCH_RECORDS_MAX <= WRITE_SLICES_MAX);
const _: () = assert!(READ_CHUNK <= READ_TURN);
const _: () = assert!(FRAME_BYTES_HARD_MAX <= u32::MAX as usize);

/// `bytes` rounded up to a whole number of blocks.
#[must_use]
pub const fn round_up_to_block(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK)
}

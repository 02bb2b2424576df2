//! Block-aligned memory outside the pool, for headers, footers and control records. Always zeroed.

use super::limits::{BLOCK, round_up_to_block};
use std::ops::{Deref, DerefMut};

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

/// A run of whole zeroed blocks on the heap.
#[derive(Clone)]
pub struct AlignedBytes {
    blocks: Vec<Block>,
}

impl AlignedBytes {
    /// `bytes` rounded up to whole blocks.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        Self { blocks: vec![bytemuck::Zeroable::zeroed(); round_up_to_block(bytes) / BLOCK] }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.blocks)
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.blocks)
    }
}

//! The buffer pool: one region of memory, handed out in page-aligned runs, never more than its limit.
//!
//! Owns all memory that tile bytes live in. A buffer is reserved whole before a byte of its tile is read
//! (never half of one: hold-and-wait would deadlock), and goes back when it is dropped, on whatever thread.
//! Who finds the pool full may queue up; buffers are then granted first come, first served, by the thread
//! that frees one. The resident set can not exceed the limit, because the region is the limit.
//!
//! Takes one short uncontended lock per buffer, not per read. Must never block.

#![allow(unsafe_code)] // The one place that hands out disjoint mutable runs of one mapping: see SAFETY below.

use super::limits::BLOCK;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The pool. Clones share it.
#[derive(Clone)]
pub struct Pool {
    region: Arc<Region>,
}

/// A run of whole blocks of the pool, owned by whoever holds it. Block-aligned; its old contents are not cleared.
pub struct TileBuffer {
    region: Arc<Region>,
    first_block: u32,
    blocks: u32,
}

/// Who waits for a buffer.
pub trait BufferWaiter: Send + Sync {
    /// Takes the buffer asked for under `ticket`. Called on the thread that freed memory: must not block.
    fn granted(&self, ticket: u64, buffer: TileBuffer);
}

/// What came of a [`Pool::reserve_or_wait`].
pub enum Reserved {
    /// There was room.
    Now(TileBuffer),
    /// The waiter stands in the queue and will be granted the buffer later.
    Later,
}

struct Region {
    base: NonNull<u8>,
    blocks: u32,
    state: Mutex<State>,
}

struct State {
    /// Free runs: first block -> number of blocks. Neighbours are always merged.
    free: BTreeMap<u32, u32>,
    used_blocks: u32,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    blocks: u32,
    ticket: u64,
    waiter: Arc<dyn BufferWaiter>,
}

// SAFETY: `base` points to a private anonymous mapping that lives as long as the Region. Blocks are reached
// only through a TileBuffer, and `state` hands out each block to at most one TileBuffer at a time.
unsafe impl Send for Region {}
// SAFETY: as above; shared access to Region itself touches only `state`, which is a Mutex.
unsafe impl Sync for Region {}

impl Pool {
    /// Maps a region of `bytes` (rounded up to blocks, at most 16 TiB). Memory is taken as it is first used.
    ///
    /// # Errors
    /// The operating system refuses the mapping.
    pub fn new(bytes: usize) -> std::io::Result<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let blocks = u32::try_from(bytes.div_ceil(BLOCK).max(1))
            .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidInput, "memory limit above 16 TiB"))?;
        let len = blocks as usize * BLOCK;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        // SAFETY: `base..base+len` is the mapping made above; the advice changes no contents. Huge pages make
        // pinning for O_DIRECT cheaper; a kernel without them says no, and that is fine.
        let _ = unsafe { madvise(base, len, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast::<u8>()).expect("mmap never returns null on success");
        let state = State { free: BTreeMap::from([(0, blocks)]), used_blocks: 0, waiting: VecDeque::new() };
        Ok(Self { region: Arc::new(Region { base, blocks, state: Mutex::new(state) }) })
    }

    /// A buffer of at least `bytes`, if there is room and nobody waits for some.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<TileBuffer> {
        let blocks = blocks_for(bytes)?;
        let mut state = self.region.lock();
        let first_block = if state.waiting.is_empty() { state.take(blocks)? } else { return None };
        drop(state);
        Some(self.buffer(first_block, blocks))
    }

    /// A buffer of at least `bytes` now, or a place in the queue. `None` when the pool can never hold so much.
    #[must_use]
    pub fn reserve_or_wait(&self, bytes: usize, ticket: u64, waiter: &Arc<dyn BufferWaiter>) -> Option<Reserved> {
        let blocks = blocks_for(bytes).filter(|blocks| *blocks <= self.region.blocks)?;
        let mut state = self.region.lock();
        let first_block = if state.waiting.is_empty() { state.take(blocks) } else { None };
        let Some(first_block) = first_block else {
            state.waiting.push_back(Waiting { blocks, ticket, waiter: Arc::clone(waiter) });
            return Some(Reserved::Later);
        };
        drop(state);
        Some(Reserved::Now(self.buffer(first_block, blocks)))
    }

    /// Takes a waiter out of the queue: whoever asked is gone. Those behind it move up.
    pub fn cancel(&self, ticket: u64, waiter: &Arc<dyn BufferWaiter>) {
        let mut state = self.region.lock();
        let is_it = |waiting: &Waiting| waiting.ticket == ticket && Arc::ptr_eq(&waiting.waiter, waiter);
        if let Some(n) = state.waiting.iter().position(is_it) {
            state.waiting.remove(n);
        }
        drop(Region::grant(&self.region, state));
    }

    /// The limit in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.region.blocks as usize * BLOCK
    }

    /// Bytes in buffers that are in use now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.region.lock().used_blocks as usize * BLOCK
    }

    /// Number of waiters now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.region.lock().waiting.len()
    }

    fn buffer(&self, first_block: u32, blocks: u32) -> TileBuffer {
        TileBuffer { region: Arc::clone(&self.region), first_block, blocks }
    }
}

fn blocks_for(bytes: usize) -> Option<u32> {
    u32::try_from(bytes.div_ceil(BLOCK).max(1)).ok()
}

impl Region {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves waiters, in order, as far as there is room. The lock is not held while one takes its buffer.
    fn grant<'a>(region: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some((waiting, first_block)) = state.next_grant() {
            drop(state);
            let buffer = TileBuffer { region: Arc::clone(region), first_block, blocks: waiting.blocks };
            waiting.waiter.granted(waiting.ticket, buffer);
            state = region.lock();
        }
        state
    }
}

impl State {
    /// The lowest free run that is long enough: low addresses are reused first, so that they stay in cache.
    fn take(&mut self, blocks: u32) -> Option<u32> {
        let (first, len) = self.free.iter().find(|(_, len)| **len >= blocks).map(|(first, len)| (*first, *len))?;
        self.free.remove(&first);
        if len > blocks {
            self.free.insert(first + blocks, len - blocks);
        }
        self.used_blocks += blocks;
        Some(first)
    }

    fn give_back(&mut self, first: u32, blocks: u32) {
        self.used_blocks -= blocks;
        let (mut first, mut len) = (first, blocks);
        if let Some((&before, &before_len)) = self.free.range(..first).next_back()
            && before + before_len == first
        {
            self.free.remove(&before);
            (first, len) = (before, before_len + len);
        }
        if let Some(after_len) = self.free.remove(&(first + len)) {
            len += after_len;
        }
        self.free.insert(first, len);
    }

    /// The first waiter and its run, if the run is free now.
    fn next_grant(&mut self) -> Option<(Waiting, u32)> {
        let blocks = self.waiting.front()?.blocks;
        let first_block = self.take(blocks)?;
        self.waiting.pop_front().map(|waiting| (waiting, first_block))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the last reference to the region is gone, so no TileBuffer points into the mapping.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.blocks as usize * BLOCK) };
    }
}

impl Drop for TileBuffer {
    fn drop(&mut self) {
        let mut state = self.region.lock();
        state.give_back(self.first_block, self.blocks);
        drop(Region::grant(&self.region, state));
    }
}

impl TileBuffer {
    fn start(&self) -> *mut u8 {
        // SAFETY: first_block < region.blocks, so the result stays inside the mapping.
        unsafe { self.region.base.as_ptr().add(self.first_block as usize * BLOCK) }
    }

    fn len(&self) -> usize {
        self.blocks as usize * BLOCK
    }

    /// Gives back what lies behind the blocks of the first `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let Some(keep) = blocks_for(bytes).filter(|keep| *keep < self.blocks) else { return };
        let mut state = self.region.lock();
        state.give_back(self.first_block + keep, self.blocks - keep);
        self.blocks = keep;
        drop(Region::grant(&self.region, state));
    }
}

impl Deref for TileBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the run is initialised (the kernel maps zeros), inside the mapping, and this buffer alone owns it.
        unsafe { std::slice::from_raw_parts(self.start(), self.len()) }
    }
}

impl DerefMut for TileBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` excludes every other view of the run.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len()) }
    }
}

impl AsRef<[u8]> for TileBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Granted(Mutex<Vec<(u64, TileBuffer)>>);

    impl BufferWaiter for Granted {
        fn granted(&self, ticket: u64, buffer: TileBuffer) {
            self.0.lock().expect("no panic under this lock").push((ticket, buffer));
        }
    }

    fn pool(blocks: usize) -> Pool {
        Pool::new(blocks * BLOCK).expect("a small mapping")
    }

    #[test]
    fn never_hands_out_more_than_its_limit_and_reuses_what_comes_back() {
        let pool = pool(4);
        let a = pool.try_reserve(2 * BLOCK).expect("room for two");
        let b = pool.try_reserve(BLOCK + 1).expect("room for two more");
        assert!(pool.try_reserve(1).is_none());
        assert_eq!(pool.used(), pool.capacity());
        drop(a);
        assert!(pool.try_reserve(3 * BLOCK).is_none());
        drop(b);
        assert_eq!(pool.try_reserve(4 * BLOCK).map(|all| all.len()), Some(4 * BLOCK));
    }

    #[test]
    fn what_a_buffer_does_not_need_goes_to_who_waits_for_it() {
        let pool = pool(4);
        let granted = Arc::new(Granted::default());
        let waiter: Arc<dyn BufferWaiter> = granted.clone();
        let mut guessed = pool.try_reserve(4 * BLOCK).expect("all");
        guessed.fill(7);
        assert!(matches!(pool.reserve_or_wait(3 * BLOCK, 1, &waiter), Some(Reserved::Later)));
        guessed.shrink_to(BLOCK - 1);
        assert_eq!((guessed.len(), pool.waiting()), (BLOCK, 0));
        granted.0.lock().expect("no panic").pop().expect("granted").1.fill(9);
        assert!(guessed.iter().all(|byte| *byte == 7));
        guessed.shrink_to(10 * BLOCK);
        assert_eq!(guessed.len(), BLOCK);
        drop(guessed);
        assert_eq!(pool.used(), 0, "every block comes back once");
    }

    #[test]
    fn buffers_are_block_aligned_and_do_not_overlap() {
        let pool = pool(8);
        let mut buffers: Vec<TileBuffer> = (0..4).filter_map(|_| pool.try_reserve(2 * BLOCK)).collect();
        for (n, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.as_ptr().addr().is_multiple_of(BLOCK));
            buffer.fill(u8::try_from(n).expect("small"));
        }
        for (n, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|byte| usize::from(*byte) == n));
        }
    }

    #[test]
    fn waiters_are_served_in_order_and_nobody_overtakes_them() {
        let pool = pool(4);
        let granted = Arc::new(Granted::default());
        let waiter: Arc<dyn BufferWaiter> = granted.clone();
        let a = pool.try_reserve(2 * BLOCK).expect("room");
        let b = pool.try_reserve(2 * BLOCK).expect("room");
        assert!(matches!(pool.reserve_or_wait(4 * BLOCK, 1, &waiter), Some(Reserved::Later)));
        assert!(matches!(pool.reserve_or_wait(BLOCK, 2, &waiter), Some(Reserved::Later)));
        drop(a);
        assert!(pool.try_reserve(BLOCK).is_none(), "overtook a waiter");
        drop(b);
        let first = granted.0.lock().expect("no panic").pop().expect("the first waiter was served");
        assert_eq!(first.0, 1);
        drop(first);
        let second = granted.0.lock().expect("no panic").pop().expect("the second waiter was served");
        assert_eq!(second.0, 2);
        assert_eq!(pool.waiting(), 0);
    }

    #[test]
    fn who_is_gone_leaves_the_queue_and_those_behind_move_up() {
        let pool = pool(4);
        let granted = Arc::new(Granted::default());
        let waiter: Arc<dyn BufferWaiter> = granted.clone();
        let held = pool.try_reserve(2 * BLOCK).expect("room");
        assert!(matches!(pool.reserve_or_wait(4 * BLOCK, 1, &waiter), Some(Reserved::Later)));
        assert!(matches!(pool.reserve_or_wait(BLOCK, 2, &waiter), Some(Reserved::Later)));
        let stranger: Arc<dyn BufferWaiter> = Arc::new(Granted::default());
        pool.cancel(1, &stranger);
        assert_eq!(pool.waiting(), 2, "another's ticket of the same number");
        pool.cancel(1, &waiter);
        assert_eq!(pool.waiting(), 0);
        assert_eq!(granted.0.lock().expect("no panic").pop().map(|(ticket, _)| ticket), Some(2));
        drop(held);
    }

    #[test]
    fn a_request_above_the_capacity_is_refused_rather_than_queued() {
        let waiter: Arc<dyn BufferWaiter> = Arc::new(Granted::default());
        assert!(pool(4).reserve_or_wait(5 * BLOCK, 1, &waiter).is_none());
    }
}

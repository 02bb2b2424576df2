//! The keeper: one thread that makes segments before they are needed and seals them when they are full.
//!
//! A segment is allocated, gets its header, and is synced with its directory before it is handed out, so that no
//! record is ever acknowledged in a file that a power cut can remove. Must never touch a segment that a writer holds.

use super::JournalError;
use super::filesystem::SegmentFile;
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES, Trailer, segment_file_name};
use super::store::Shared;
use super::writer::OpenSegment;
use crate::base::aligned::AlignedBytes;
use crate::base::limits::{BLOCK, round_up_to_block};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::io::IoSlice;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Below this, a nearly full file system gets no smaller segment but a refusal. Bytes.
const SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// Longest time between two looks at the disk's free space: it is others who free it.
const LOOK_AT_DISK_EVERY: Duration = Duration::from_secs(1);

enum Job {
    Prepare {
        lane: u16,
        bytes: u64,
        reply: Sender<Result<OpenSegment, JournalError>>,
    },
    Seal(OpenSegment),
    /// Says that everything asked for before is done.
    Tell(Sender<()>),
    Stop,
}

/// The keeper's thread.
pub(super) struct Keeper {
    jobs: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

/// One writer's access to the keeper: where its segments come from and go to.
pub(super) struct Supply {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    lane: u16,
    segment_bytes: u64,
    /// The spare that is being made or waits; only for writers that ask for one.
    spare: Option<Receiver<Result<OpenSegment, JournalError>>>,
    keeps_spare: bool,
}

impl Keeper {
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        // Unbounded in type; in fact at most one prepare a lane and one seal for each segment filled.
        let (jobs, inbox) = unbounded();
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || run(&shared, &inbox))?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    pub(super) fn supply(&self, shared: Arc<Shared>, lane: u16, segment_bytes: u64, keeps_spare: bool) -> Supply {
        Supply { shared, jobs: self.jobs.clone(), lane, segment_bytes, spare: None, keeps_spare }
    }

    /// Says when everything that was asked for so far is done; closed without a word when the thread has ended.
    pub(super) fn when_done(&self) -> Receiver<()> {
        let (tell, done) = bounded(1);
        let _ = self.jobs.send(Job::Tell(tell));
        done
    }

    /// Finishes what was asked for and ends the thread.
    pub(super) fn stop(&mut self) {
        let _ = self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Supply {
    /// A segment with room for a record of `bytes`: the spare if there is one, else a new one.
    pub(super) fn next(&mut self, bytes: u64) -> Result<OpenSegment, JournalError> {
        let wanted = self.segment_bytes.max(bytes + SEGMENT_HEADER_BYTES as u64);
        let segment = match self.spare.take().and_then(|spare| spare.recv().ok()) {
            Some(Ok(spare)) if spare.tail + bytes <= spare.allocated => spare,
            // A sync that failed is not made good by another one that does not (invariant 9).
            Some(Err(error)) if !matches!(error, JournalError::NoSpace { .. }) => return Err(error),
            other => {
                if let Some(Ok(small)) = other {
                    self.retire(small);
                }
                create_segment(&self.shared, self.lane, wanted, bytes)?
            }
        };
        if self.keeps_spare {
            let (reply, spare) = bounded(1);
            self.spare = Some(spare);
            let _ = self.jobs.send(Job::Prepare { lane: self.lane, bytes: self.segment_bytes, reply });
        }
        Ok(segment)
    }

    /// Hands a segment over for sealing.
    pub(super) fn retire(&self, segment: OpenSegment) {
        let _ = self.jobs.send(Job::Seal(segment));
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        if let Some(Ok(unused)) = self.spare.take().and_then(|spare| spare.recv().ok()) {
            self.retire(unused);
        }
    }
}

fn run(shared: &Shared, inbox: &Receiver<Job>) {
    loop {
        let job = match inbox.recv_timeout(LOOK_AT_DISK_EVERY) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                shared.look_at_disk();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match job {
            Job::Prepare { lane, bytes, reply } => {
                let at_least = SEGMENT_BYTES_MIN.min(bytes) - SEGMENT_HEADER_BYTES as u64;
                let made = create_segment(shared, lane, bytes, at_least);
                if let Err(error) = &made
                    && !matches!(error, JournalError::NoSpace { .. })
                {
                    tracing::error!(lane, %error, "could not make the next segment: the daemon stops when it needs it; check the disk");
                }
                // Told before the room is used: senders hear of a full disk before the first refusal.
                shared.look_at_disk();
                if let Err(unwanted) = reply.send(made)
                    && let Ok(segment) = unwanted.into_inner()
                {
                    seal_or_report(shared, segment);
                }
            }
            Job::Seal(segment) => seal_or_report(shared, segment),
            Job::Tell(done) => _ = done.send(()),
            Job::Stop => return,
        }
        shared.look_at_disk();
    }
}

/// The records are durable whether or not the seal succeeds: an unsealed segment is scanned at the next start.
fn seal_or_report(shared: &Shared, segment: OpenSegment) {
    let path = segment.path.clone();
    if let Err(error) = seal(shared, segment) {
        shared.count_seal_failure();
        tracing::error!(path = %path.display(), %error, "could not seal a segment: its records are safe and will be read again at the next start; check the disk");
    }
}

/// Makes a segment of `wanted` bytes, or as much as fits, but with room for a record of `at_least`.
pub(super) fn create_segment(
    shared: &Shared,
    lane: u16,
    wanted: u64,
    at_least: u64,
) -> Result<OpenSegment, JournalError> {
    let room = shared.room_for_segment(lane)?;
    let least = (at_least + SEGMENT_HEADER_BYTES as u64).next_multiple_of(BLOCK as u64);
    let bytes = wanted.min(room).max(least) / BLOCK as u64 * BLOCK as u64;
    if bytes > room || room < SEGMENT_BYTES_MIN.min(wanted) {
        return Err(shared.no_space());
    }
    let number = shared.take_segment_number();
    let header = SegmentHeader {
        store: shared.store,
        uuid: shared.filesystem.new_identity(),
        number,
        lane,
        created_ns: shared.filesystem.now_ns(),
    };
    let path = shared.segments_dir.join(segment_file_name(number, lane));
    let file = match shared.filesystem.create(&path, bytes) {
        Ok(file) => file,
        Err(error) if super::is_full(&error) => return Err(shared.no_space()),
        Err(error) => return Err(JournalError::failed(&path, "create")(error)),
    };
    let begun = write_header(&*file, &header);
    if let Err(("write", error)) = &begun
        && super::is_full(error)
    {
        // Some file systems find out only now. Nothing lies in the file yet.
        drop(file);
        shared.filesystem.remove(&path).map_err(JournalError::failed(&path, "remove"))?;
        return Err(shared.no_space());
    }
    begun.map_err(|(action, error)| JournalError::failed(&path, action)(error))?;
    shared.sync_segments_dir()?;
    let file: Arc<dyn SegmentFile> = Arc::from(file);
    shared.register_open(&header, &path, &file, bytes);
    Ok(OpenSegment::new(header, path, file, bytes))
}

fn write_header(file: &dyn SegmentFile, header: &SegmentHeader) -> Result<(), (&'static str, std::io::Error)> {
    let mut block = AlignedBytes::zeroed(SEGMENT_HEADER_BYTES);
    block.copy_from_slice(&header.encode());
    file.write_all_at(&mut [IoSlice::new(&block)], 0).map_err(|error| ("write", error))?;
    file.sync().map_err(|error| ("sync", error))
}

/// Seals a segment; one without records is removed instead.
pub(super) fn seal(shared: &Shared, segment: OpenSegment) -> Result<(), JournalError> {
    let number = segment.header.number;
    if segment.trailer.records == 0 {
        let path = segment.path;
        drop(segment.file);
        shared.filesystem.remove(&path).map_err(JournalError::failed(&path, "remove"))?;
        shared.forget(number);
        return shared.sync_segments_dir();
    }
    let (trailer, end) = write_seal(segment)?;
    shared.register_sealed(number, trailer, end);
    Ok(())
}

/// Writes and syncs the table, then the trailer; cuts the file behind it. Returns the trailer and the file's length.
pub(super) fn write_seal(segment: OpenSegment) -> Result<(Trailer, u64), JournalError> {
    let OpenSegment { header, path, file, tail, table, mut trailer, .. } = segment;
    trailer.table_offset = tail;
    trailer.table_crc = crc32fast::hash(&table);
    let table_bytes = round_up_to_block(table.len());
    let mut padded = AlignedBytes::zeroed(table_bytes);
    padded[..table.len()].copy_from_slice(&table);
    let mut last = AlignedBytes::zeroed(TRAILER_BYTES);
    last.copy_from_slice(&trailer.encode(&header));
    let end = tail + (table_bytes + TRAILER_BYTES) as u64;
    // The table is synced before the trailer is written: a start trusts a trailer without reading the table.
    file.write_all_at(&mut [IoSlice::new(&padded)], tail).map_err(JournalError::failed(&path, "write"))?;
    file.sync().map_err(JournalError::failed(&path, "sync"))?;
    let trailer_at = end - TRAILER_BYTES as u64;
    file.write_all_at(&mut [IoSlice::new(&last)], trailer_at).map_err(JournalError::failed(&path, "write"))?;
    file.set_len(end).map_err(JournalError::failed(&path, "truncate"))?;
    file.sync().map_err(JournalError::failed(&path, "sync"))?;
    Ok((trailer, end))
}

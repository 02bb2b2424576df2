//! Records below the catalog: whatever subset of unsynced writes survives a cut, every record whose sync returned is
//! there and equal, and nothing is invented.

use crate::dice::{Dice, cuts_wanted};
use crate::disk::{Call, CrashFs, Fault};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use tilecatcher::base::aligned::AlignedBytes;
use tilecatcher::journal::{
    CompactOptions, Damage, DamageKind, Filesystem, Journal, JournalError, JournalOptions, LaneWriter,
    RECORD_HEADER_BYTES, RecordDraft, RecordHeader, RecordKind, RecoveryReport, StoredRecord, TileStamp,
    compact_segments, verify_segments,
};
use tilecatcher::model::{AcqId, ByteRange, Checksum, FrameNumber, Location, Sequence, TileId, TileKey, TileVersion};

/// What a history knows: every payload it tried to store, and those that it was told are durable.
#[derive(Default)]
pub struct Knowledge {
    pub tried: BTreeSet<Vec<u8>>,
    pub durable: HashMap<Sequence, Vec<u8>>,
    next: u64,
}

/// Records appended to one writer and not synced yet.
pub type Unsynced = Vec<(Sequence, Vec<u8>)>;

impl Knowledge {
    pub fn payload(&mut self, len: usize) -> Vec<u8> {
        self.next += 1;
        let mut payload = self.next.to_le_bytes().repeat(len / 8 + 1);
        payload.truncate(len.max(8));
        self.tried.insert(payload.clone());
        payload
    }
}

pub fn journal_options() -> JournalOptions {
    JournalOptions { segment_bytes: 48 << 10, control_segment_bytes: 16 << 10, reserve_bytes: 0 }
}

pub fn data() -> PathBuf {
    PathBuf::from("/data")
}

pub fn append_tiles(
    writer: &mut LaneWriter,
    dice: &mut Dice,
    known: &mut Knowledge,
    unsynced: &mut Unsynced,
) -> Result<(), JournalError> {
    let payloads: Vec<Vec<u8>> = (0..=dice.below(3)).map(|_| known.payload(8 + dice.index(9000))).collect();
    append_all(writer, &payloads, unsynced)
}

/// Appends all at once; notes what was written, also when not all was.
fn append_all(writer: &mut LaneWriter, payloads: &[Vec<u8>], unsynced: &mut Unsynced) -> Result<(), JournalError> {
    let mut buffers: Vec<AlignedBytes> = payloads
        .iter()
        .map(|payload| {
            let mut buffer = AlignedBytes::zeroed(RECORD_HEADER_BYTES + payload.len());
            buffer[RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
            buffer
        })
        .collect();
    let mut drafts: Vec<RecordDraft<'_>> = payloads
        .iter()
        .zip(&mut buffers)
        .map(|(payload, buffer)| RecordDraft {
            kind: RecordKind::TILE,
            payload_len: u32::try_from(payload.len()).expect("small"),
            payload_crc: crc32fast::hash(payload),
            received_ns: i64::from(crc32fast::hash(payload)),
            tile: Some(stamp(payload)),
            bytes: buffer,
            placed: None,
        })
        .collect();
    let written = writer.append(&mut drafts);
    let placed = drafts.iter().zip(payloads).filter_map(|(draft, payload)| Some((draft.placed?.0, payload.clone())));
    unsynced.extend(placed);
    written
}

pub fn append_one(writer: &mut LaneWriter, payload: &[u8]) {
    let mut bytes = AlignedBytes::zeroed(RECORD_HEADER_BYTES + payload.len());
    bytes[RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
    let mut draft = [RecordDraft {
        kind: RecordKind::TILE,
        payload_len: u32::try_from(payload.len()).expect("small"),
        payload_crc: crc32fast::hash(payload),
        received_ns: 0,
        tile: Some(stamp(payload)),
        bytes: &mut bytes,
        placed: None,
    }];
    writer.append(&mut draft).expect("written");
}

/// Payloads begin with their number.
pub fn stamp(payload: &[u8]) -> TileStamp {
    TileStamp {
        id: TileId(u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"))),
        key: TileKey { acq: AcqId(1), col: 0, row: 0, frame: FrameNumber::STABLE },
        camera: 0,
        version: TileVersion::FIRST,
        image: ByteRange { offset: 0, len: 8 },
        image_crc: 0,
        checksum: Checksum::None,
        peer: None,
    }
}

/// Appends and syncs on two lanes and the control lane, until it is done or the power goes.
pub fn live(fs: &CrashFs, dice: &mut Dice, known: &mut Knowledge) -> Result<(), JournalError> {
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options())?;
    let mut lanes = [(journal.lane_writer(0), Unsynced::new()), (journal.lane_writer(1), Unsynced::new())];
    let mut control = journal.control_writer();
    for _ in 0..dice.below(40) {
        let (writer, unsynced) = &mut lanes[dice.index(2)];
        match dice.below(8) {
            0..4 => append_tiles(writer, dice, known, unsynced)?,
            4..6 => {
                writer.sync()?;
                known.durable.extend(unsynced.drain(..));
            }
            6 => drop(writer.prewrite(8192)?),
            _ => {
                let payloads: Vec<Vec<u8>> = (0..=dice.below(3)).map(|_| known.payload(8 + dice.index(3000))).collect();
                let records: Vec<(RecordKind, i64, &[u8])> =
                    payloads.iter().map(|payload| (RecordKind(0x1ff), 0, payload.as_slice())).collect();
                let placed = control.append_small(&records)?;
                control.sync()?;
                known
                    .durable
                    .extend(placed.into_iter().zip(&payloads).map(|((seq, _), payload)| (seq, payload.clone())));
            }
        }
    }
    for (writer, unsynced) in lanes {
        writer.close()?;
        known.durable.extend(unsynced);
    }
    control.close()?;
    journal.close();
    Ok(())
}

/// What a start finds.
pub struct Recovered {
    /// Each record's header, with no offset, and its payload.
    pub records: BTreeMap<Sequence, (RecordHeader, Vec<u8>)>,
    pub report: RecoveryReport,
    pub next: Sequence,
    pub max_tile: u64,
}

pub fn recovered(fs: &CrashFs) -> Recovered {
    let (journal, report) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("recovery");
    let corrupt = report.damage.iter().filter(|damage| damage.kind == DamageKind::Corrupt).count();
    assert_eq!(corrupt, 0, "a power cut is no corruption: {:?}", report.damage);
    let mut found = BTreeMap::new();
    let mut last = Sequence(0);
    for record in journal.records_after(Sequence(0)) {
        let record = record.expect("readable");
        assert!(record.header.sequence > last, "out of order");
        last = record.header.sequence;
        let location: Location = record.location();
        let mut payload = vec![0; location.payload_len as usize];
        let range = ByteRange { offset: 0, len: location.payload_len };
        journal.read(location, range, &mut payload).expect("readable");
        assert_eq!(crc32fast::hash(&payload), record.header.payload_crc);
        found.insert(record.header.sequence, (RecordHeader { offset: 0, ..record.header }, payload));
    }
    Recovered { records: found, report, next: journal.safe_sequence(), max_tile: journal.max_tile_id() }
}

fn one_history(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut known = Knowledge::default();
    let mut fs = CrashFs::default();
    for life in 0..3 {
        fs.burn_after(dice.below(150));
        let _ = live(&fs, &mut dice, &mut known);
        fs = fs.after_cut(&mut dice);
        let context = format!("seed {seed}, life {life}");
        let found = recovered(&fs).records;
        for (sequence, payload) in &known.durable {
            assert!(
                found.get(sequence).map(|(_, found)| found) == Some(payload),
                "{context}: record {sequence} was synced and is lost or altered"
            );
        }
        for (_, payload) in found.values() {
            assert!(known.tried.contains(payload), "{context}: a record was invented");
        }
        let again = recovered(&fs);
        let unchanged = again.records == found && again.report.damage.is_empty();
        assert!(unchanged, "{context}: a second recovery found something else");
        let verified = verify_segments(&data(), &fs, &mut |_| {}).expect("readable");
        assert!(verified.problems.is_empty(), "{context}: {:?}", verified.problems);
        // What was found is durable from now on, whether or not anybody was told.
        known.durable.extend(found.into_iter().map(|(sequence, (_, payload))| (sequence, payload)));
    }
}

#[test]
fn synced_records_survive_power_cuts_at_any_point() {
    for seed in 0..cuts_wanted(3000) / 3 {
        if std::panic::catch_unwind(|| one_history(seed)).is_err() {
            panic!("seed {seed}: see above");
        }
    }
}

/// The model's own test: without syncs it must lose records, else the test above shows nothing.
#[test]
fn the_model_loses_what_is_not_synced() {
    let mut dice = Dice::new(5);
    let (mut lost, mut kept) = (0, 0);
    for _ in 0..50 {
        let fs = CrashFs::default();
        let mut known = Knowledge::default();
        let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
        let mut writer = journal.lane_writer(0);
        let mut unsynced = Unsynced::new();
        append_tiles(&mut writer, &mut dice, &mut known, &mut unsynced).expect("written");
        fs.burn_after(0);
        let found = recovered(&fs.after_cut(&mut dice)).records;
        kept += unsynced.iter().filter(|(sequence, _)| found.contains_key(sequence)).count();
        lost += unsynced.iter().filter(|(sequence, _)| !found.contains_key(sequence)).count();
    }
    assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
}

#[test]
fn a_sync_that_failed_while_a_spare_was_made_is_an_error_when_the_spare_is_needed() {
    for call in [Call::Sync, Call::SyncDir] {
        let fs = CrashFs::default();
        let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
        let mut writer = journal.lane_writer(0);
        // The writer makes its first segment, the keeper the spare.
        fs.inject(Fault { call, nth: 2, errno: rustix::io::Errno::IO.raw_os_error(), lasts: false });
        let (mut dice, mut known, mut unsynced) = (Dice::new(1), Knowledge::default(), Unsynced::new());
        append_one(&mut writer, &known.payload(9000));
        journal.settle();
        writer.sync().expect("the segment in use has not failed");
        let files = fs.files("/data/journal").len();
        let error = (0..40).find_map(|_| append_tiles(&mut writer, &mut dice, &mut known, &mut unsynced).err());
        assert!(matches!(error, Some(JournalError::Failed { action: "sync", .. })), "{call:?}: {error:?}");
        assert_eq!(fs.files("/data/journal").len(), files, "{call:?}: another segment was made");
    }
}

const KIND: RecordKind = RecordKind(0x7000);

/// A lane's segment whose seal has failed, with records of which only the next segment says that they were synced.
pub fn unsealed_and_followed() -> (CrashFs, PathBuf, Vec<Location>) {
    let fs = CrashFs::default();
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    let mut writer = journal.lane_writer(0);
    let mut places = Vec::new();
    let mut append = |writer: &mut LaneWriter, byte: u8| {
        places.push(writer.append_small(&[(KIND, 0, &[byte; 5000])]).expect("written")[0].1);
    };
    append(&mut writer, 1);
    writer.sync().expect("synced");
    append(&mut writer, 2);
    append(&mut writer, 3);
    journal.settle();
    fs.inject(Fault { call: Call::Write, nth: 1, errno: rustix::io::Errno::IO.raw_os_error(), lasts: false });
    assert!(writer.rotate().expect("synced"));
    journal.settle();
    assert_eq!(journal.seal_failures(), 1);
    append(&mut writer, 4);
    writer.sync().expect("synced");
    let killed = fs.copy();
    writer.close().expect("closed");
    let path = killed.files("/data/journal").into_iter().next().expect("a segment");
    (killed, path, places)
}

#[test]
fn what_the_next_segment_vouches_for_is_damaged_and_not_torn() {
    let payload_at = |place: &Location| usize::try_from(place.offset).expect("small") + RECORD_HEADER_BYTES + 9;
    let header_at = |place: &Location| usize::try_from(place.offset).expect("small") + 20;
    for (n, at) in [(1, payload_at as fn(&Location) -> usize), (1, header_at), (2, payload_at), (2, header_at)] {
        let (fs, path, places) = unsealed_and_followed();
        fs.flip(&path, at(&places[n]));
        let damaged = fs.bytes_of(&path)[usize::try_from(places[n].offset).expect("small")..][..5000].to_vec();
        let begins = |problems: &[u64]| problems.contains(&places[n].offset);
        for start in 1..=2 {
            let context = format!("record {n}, byte {}, start {start}", at(&places[n]));
            let beside = verify_segments(&data(), &fs, &mut |_| {}).expect("readable").problems;
            assert!(begins(&beside.iter().map(|problem| problem.offset).collect::<Vec<_>>()), "{context}: {beside:?}");
            let (journal, report) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
            let is_torn = |damage: &Damage| damage.kind == DamageKind::Torn && damage.offset == places[n].offset;
            assert!(!report.damage.iter().any(is_torn), "{context}: {:?}", report.damage);
            let found: Vec<u64> =
                journal.records_after(Sequence(0)).map(|record| record.expect("readable").header.sequence.0).collect();
            let is_header = at(&places[n]) == header_at(&places[n]);
            let expected: Vec<u64> = (1..=4).filter(|found| !is_header || *found != n as u64 + 1).collect();
            assert_eq!(found, expected, "{context}");
            let scrubbed = journal.scrub_segment(places[n].segment, &|_| Ok(())).expect("readable").bad;
            assert!(begins(&scrubbed.iter().map(|bad| bad.offset).collect::<Vec<_>>()), "{context}: {scrubbed:?}");
            drop(journal);
            let bytes = fs.bytes_of(&path)[usize::try_from(places[n].offset).expect("small")..][..5000].to_vec();
            assert!(bytes == damaged, "{context}: the damaged place was written over");
        }
        let (filesystem, first): (Arc<dyn Filesystem>, _) = (Arc::new(fs.clone()), Sequence(1));
        let mut is_live = |record: &StoredRecord| record.header.sequence != first;
        let options = CompactOptions { min_dead_share: 0.0, reserve_bytes: 0, tile_floor: 0, sequence_floor: 0 };
        let report = compact_segments(&data(), &filesystem, &options, &mut is_live, &mut |_, _| {}).expect("readable");
        assert!(report.left_alone.iter().any(|left| left.path == path), "damage turned into silence: {report:?}");
    }
    let (fs, _, _) = unsealed_and_followed();
    let (_, report) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    assert!(report.damage.iter().all(|damage| damage.kind == DamageKind::Torn), "{:?}", report.damage);
    assert_eq!(verify_segments(&data(), &fs, &mut |_| {}).expect("readable").problems, []);
}

#[test]
fn a_table_that_can_not_be_read_costs_no_record() {
    let (fs, _, places) = unsealed_and_followed();
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    fs.inject(Fault { call: Call::Read, nth: 1, errno: rustix::io::Errno::IO.raw_os_error(), lasts: false });
    let found = journal.records_after(Sequence(0)).map(|record| record.expect("readable").location());
    assert_eq!(found.collect::<Vec<_>>(), places);
}

#[test]
fn records_that_were_refused_for_lack_of_space_do_not_come_back() {
    let fs = CrashFs::default();
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    let mut writer = journal.lane_writer(0);
    let mut known = Knowledge::default();
    let kept = known.payload(3000);
    append_one(&mut writer, &kept);
    writer.sync().expect("synced");
    journal.settle();
    fs.inject(Fault { call: Call::Write, nth: 1, errno: rustix::io::Errno::NOSPC.raw_os_error(), lasts: true });
    // Two of them get there whole; the seal that fails too takes the first one's header.
    let refused: Vec<Vec<u8>> = (0..5).map(|_| known.payload(8000)).collect();
    let full = append_all(&mut writer, &refused, &mut Unsynced::new());
    assert!(matches!(full, Err(JournalError::NoSpace { .. })), "{full:?}");
    journal.settle();
    assert_eq!(journal.seal_failures(), 1);
    fs.lock().heal();
    // Sent again.
    append_all(&mut writer, &refused, &mut Unsynced::new()).expect("written");
    writer.sync().expect("synced");
    let killed = fs.copy();
    writer.close().expect("closed");
    for _ in 0..2 {
        let found: Vec<Vec<u8>> = recovered(&killed).records.into_values().map(|(_, payload)| payload).collect();
        assert_eq!(found.len(), 6, "a refused record came back");
        assert!(found[0] == kept && found[1..] == refused);
    }
}

#[test]
fn a_segment_that_holds_nothing_but_what_was_refused_goes_before_the_refusal() {
    let fs = CrashFs::default();
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    let mut writer = journal.control_writer();
    // The first write is that of the segment's header.
    fs.inject(Fault { call: Call::Write, nth: 2, errno: rustix::io::Errno::NOSPC.raw_os_error(), lasts: false });
    let payload = [7; 4000];
    let full = writer.append_small(&[(KIND, 0, &payload[..]); 3]);
    assert!(matches!(full, Err(JournalError::NoSpace { .. })), "{full:?}");
    assert_eq!(fs.files("/data/journal"), Vec::<PathBuf>::new());
    writer.release_floor();
    assert_eq!(writer.append_small(&[(KIND, 0, &payload[..])]).expect("written").len(), 1);
}

//! The rows of the view store: keys, packed values, each value with its own CRC-32.
//!
//! | key | value |
//! |---|---|
//! | `t`, tile id / 64 (u64 BE) | pack of up to 64 tiles with neighbouring ids |
//! | `k`, acq (u64 BE), frame + 2^31 (u32 BE), col / 8, row / 8 (u32 BE) | ids of up to 8 x 8 neighbouring tiles |
//! | `v`, tile id (u64 BE), version (u32 BE) | a version that was replaced |
//! | `a`, acq (u64 BE) | an acquisition: start and end, ROIs, files; JSON |
//! | `c`, acq (u64 BE) | counters of an acquisition, JSON |
//! | `m` | the checkpoint, JSON |
//!
//! Further families in `board_rows`.
//!
//! Packed because sled pays by the row: in disk, in memory and in the time to open.

use super::store::{StoreError, ViewStore};
use crate::model::{
    AcqId, ByteRange, Checksum, ChecksumKind, FrameNumber, Judgement, Location, Measures, QualityFlags, Sequence,
    TileEntry, TileId, TileKey, TileVersion,
};

/// Places in a pack, and in a key block.
pub const SLOTS: u32 = 64;
/// Key of the checkpoint.
pub const CHECKPOINT: &[u8] = b"m";
/// Length of one judgement in its row.
const JUDGEMENT_BYTES: usize = 21;
/// Length of one tile in a pack.
const ENTRY_BYTES: usize = 136;

/// Up to 64 values by slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots<T> {
    values: Vec<Option<T>>,
}

impl<T: Copy> Default for Slots<T> {
    fn default() -> Self {
        Self { values: vec![None; SLOTS as usize] }
    }
}

impl<T: Copy> Slots<T> {
    /// Puts a value; returns what was there.
    pub fn put(&mut self, slot: u32, value: T) -> Option<T> {
        self.values[slot as usize].replace(value)
    }

    /// Takes a value out.
    pub fn take(&mut self, slot: u32) -> Option<T> {
        self.values[slot as usize].take()
    }

    pub fn get(&self, slot: u32) -> Option<T> {
        self.values[slot as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, T)> {
        (0..SLOTS).zip(&self.values).filter_map(|(slot, value)| value.map(|value| (slot, value)))
    }

    fn bitmap(&self) -> u64 {
        self.iter().fold(0, |bitmap, (slot, _)| bitmap | (1 << slot))
    }
}

/// A pack of tiles.
pub type Pack = Slots<TileEntry>;
/// A block of tile ids.
pub type KeyBlock = Slots<TileId>;

/// Key of the pack that holds a tile.
pub fn pack_key(id: TileId) -> Vec<u8> {
    [b"t".as_slice(), &(id.0 / u64::from(SLOTS)).to_be_bytes()].concat()
}

/// A tile's slot in its pack.
pub fn pack_slot(id: TileId) -> u32 {
    u32::try_from(id.0 % u64::from(SLOTS)).expect("below 64")
}

/// Key of the block that holds a tile key's id.
pub fn block_key(key: &TileKey) -> Vec<u8> {
    [
        b"k".as_slice(),
        &key.acq.0.to_be_bytes(),
        &(key.frame.0.cast_unsigned() ^ (1 << 31)).to_be_bytes(),
        &(key.col / 8).to_be_bytes(),
        &(key.row / 8).to_be_bytes(),
    ]
    .concat()
}

/// A tile key's slot in its block.
pub fn block_slot(key: &TileKey) -> u32 {
    (key.col % 8) * 8 + key.row % 8
}

/// The tile key of a slot in a block. `None` for a key that no tile has: of another length, or behind the last block.
pub fn key_of_slot(block: &[u8], slot: u32) -> Option<TileKey> {
    const BLOCKS: u32 = u32::MAX / 8;
    let block: &[u8; 20] = block.strip_prefix(b"k")?.try_into().ok()?;
    let u32_at = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    (u32_at(12) <= BLOCKS && u32_at(16) <= BLOCKS).then(|| TileKey {
        acq: AcqId((u64::from(u32_at(0)) << 32) | u64::from(u32_at(4))),
        frame: FrameNumber((u32_at(8) ^ (1 << 31)).cast_signed()),
        col: u32_at(12) * 8 + slot / 8,
        row: u32_at(16) * 8 + slot % 8,
    })
}

/// Key of a replaced version.
pub fn version_key(id: TileId, version: TileVersion) -> Vec<u8> {
    [b"v".as_slice(), &id.0.to_be_bytes(), &version.0.to_be_bytes()].concat()
}

/// Key of an acquisition's start.
pub fn acquisition_key(acq: AcqId) -> Vec<u8> {
    [b"a".as_slice(), &acq.0.to_be_bytes()].concat()
}

/// Key of an acquisition's counters.
pub fn counters_key(acq: AcqId) -> Vec<u8> {
    [b"c".as_slice(), &acq.0.to_be_bytes()].concat()
}

/// The acquisition of an `a` or `c` key.
pub fn acq_of_key(key: &[u8]) -> Option<AcqId> {
    Some(AcqId(u64::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

/// A row's key for people.
#[must_use]
pub fn row_name(key: &[u8]) -> String {
    let kind = key.first().map_or('?', |kind| char::from(*kind));
    format!("{kind} {}", crate::model::hex(key.get(1..).unwrap_or_default()))
}

/// Adds a value's CRC.
pub fn seal(mut value: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

/// Checks and removes a value's CRC.
pub fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    value
        .split_last_chunk::<4>()
        .filter(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(**crc))
        .map(|(body, _)| body)
        .ok_or_else(|| StoreError::Damaged(row_name(key)))
}

pub fn encode_pack(pack: &Pack) -> Vec<u8> {
    let mut value = pack.bitmap().to_le_bytes().to_vec();
    for (_, entry) in pack.iter() {
        encode_entry(&entry, &mut value);
    }
    seal(value)
}

pub fn decode_pack(key: &[u8], value: &[u8]) -> Result<Pack, StoreError> {
    decode_slots(key, value, ENTRY_BYTES, decode_entry)
}

pub fn encode_block(block: &KeyBlock) -> Vec<u8> {
    let mut value = block.bitmap().to_le_bytes().to_vec();
    for (_, id) in block.iter() {
        value.extend_from_slice(&id.0.to_le_bytes());
    }
    seal(value)
}

pub fn decode_block(key: &[u8], value: &[u8]) -> Result<KeyBlock, StoreError> {
    decode_slots(key, value, 8, |bytes| Some(TileId(u64::from_le_bytes(bytes.try_into().ok()?))))
}

/// What was found of tiles.
pub type Judgements = Slots<Judgement>;

pub fn encode_judgements(judgements: &Judgements) -> Vec<u8> {
    let mut value = judgements.bitmap().to_le_bytes().to_vec();
    for (_, Judgement { version, measures, flags }) in judgements.iter() {
        let Measures { mean_c, contrast_e4, saturated_e4, focus_e4 } = measures;
        for number in [version.0, mean_c, contrast_e4, saturated_e4, focus_e4] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.push(flags.0);
    }
    seal(value)
}

pub fn decode_judgements(key: &[u8], value: &[u8]) -> Result<Judgements, StoreError> {
    decode_slots(key, value, JUDGEMENT_BYTES, |bytes| {
        let number = |n: usize| u32::from_le_bytes(bytes[n * 4..n * 4 + 4].try_into().expect("four bytes"));
        let measures =
            Measures { mean_c: number(1), contrast_e4: number(2), saturated_e4: number(3), focus_e4: number(4) };
        Some(Judgement { version: TileVersion(number(0)), measures, flags: QualityFlags(bytes[20]) })
    })
}

/// The value of a `v` row.
pub fn encode_version(entry: &TileEntry) -> Vec<u8> {
    let mut value = Vec::with_capacity(ENTRY_BYTES + 4);
    encode_entry(entry, &mut value);
    seal(value)
}

pub fn decode_version(key: &[u8], value: &[u8]) -> Result<TileEntry, StoreError> {
    decode_entry(unseal(key, value)?).ok_or_else(|| StoreError::Damaged(row_name(key)))
}

/// Number of tiles in all packs.
///
/// # Errors
/// The store can not be read, a row is damaged.
pub fn count_tiles(store: &dyn ViewStore) -> Result<u64, StoreError> {
    let mut count = 0;
    let mut damage = None;
    store.scan(b"t", &mut |key, value| match decode_pack(key, value) {
        Ok(pack) => {
            count += pack.iter().count() as u64;
            true
        }
        Err(error) => {
            damage = Some(error);
            false
        }
    })?;
    damage.map_or(Ok(count), Err)
}

/// The id under a tile key.
///
/// # Errors
/// The store can not be read, a row is damaged.
pub fn read_tile_id(store: &dyn ViewStore, key: &TileKey) -> Result<Option<TileId>, StoreError> {
    let row = block_key(key);
    match store.get(&row)? {
        Some(value) => Ok(decode_slot(&row, &value, 8, block_slot(key))?.map(|bytes| {
            TileId(u64::from_le_bytes(bytes.try_into().expect("decode_slot gives as many bytes as asked for")))
        })),
        None => Ok(None),
    }
}

/// The current version of a tile.
///
/// # Errors
/// The store can not be read, a row is damaged.
pub fn read_tile(store: &dyn ViewStore, id: TileId) -> Result<Option<TileEntry>, StoreError> {
    let row = pack_key(id);
    match store.get(&row)? {
        Some(value) => match decode_slot(&row, &value, ENTRY_BYTES, pack_slot(id))? {
            Some(bytes) => decode_entry(bytes).map(Some).ok_or_else(|| StoreError::Damaged(row_name(&row))),
            None => Ok(None),
        },
        None => Ok(None),
    }
}

/// One slot's bytes, without decoding the others.
fn decode_slot<'a>(key: &[u8], value: &'a [u8], item: usize, slot: u32) -> Result<Option<&'a [u8]>, StoreError> {
    let damaged = || StoreError::Damaged(row_name(key));
    let (bitmap, items) = unseal(key, value)?.split_first_chunk::<8>().ok_or_else(damaged)?;
    let bitmap = u64::from_le_bytes(*bitmap);
    if bitmap & (1 << slot) == 0 {
        return Ok(None);
    }
    let before = (bitmap & ((1 << slot) - 1)).count_ones() as usize;
    items.get(before * item..(before + 1) * item).map(Some).ok_or_else(damaged)
}

fn decode_slots<T: Copy>(
    key: &[u8],
    value: &[u8],
    item: usize,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Slots<T>, StoreError> {
    let damaged = || StoreError::Damaged(row_name(key));
    let (bitmap, items) = unseal(key, value)?.split_first_chunk::<8>().ok_or_else(damaged)?;
    let bitmap = u64::from_le_bytes(*bitmap);
    if items.len() != bitmap.count_ones() as usize * item {
        return Err(damaged());
    }
    let mut slots = Slots::default();
    let taken = (0..SLOTS).filter(|slot| bitmap & (1 << slot) != 0);
    for (slot, bytes) in taken.zip(items.chunks_exact(item)) {
        slots.put(slot, decode(bytes).ok_or_else(damaged)?);
    }
    Ok(slots)
}

fn encode_entry(entry: &TileEntry, out: &mut Vec<u8>) {
    let start = out.len();
    for number in [entry.id.0, entry.key.acq.0, entry.location.segment, entry.location.offset, entry.sequence.0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&entry.received_ns.to_le_bytes());
    let numbers = [
        entry.key.col,
        entry.key.row,
        entry.key.frame.0.cast_unsigned(),
        entry.camera.cast_unsigned(),
        entry.version.0,
        entry.location.payload_len,
        entry.image.offset,
        entry.image.len,
        entry.image_crc,
        entry.payload_crc,
        u32::from(entry.checksum.kind() as u8),
    ];
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&entry.checksum.to_field());
    out.resize(start + ENTRY_BYTES, 0);
}

fn decode_entry(bytes: &[u8]) -> Option<TileEntry> {
    let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().ok()?;
    let wide = |n: usize| u64::from_le_bytes(bytes[n * 8..n * 8 + 8].try_into().expect("eight bytes"));
    let narrow = |n: usize| u32::from_le_bytes(bytes[48 + n * 4..52 + n * 4].try_into().expect("four bytes"));
    let kind = ChecksumKind::from_code(u8::try_from(narrow(10)).ok()?)?;
    Some(TileEntry {
        id: TileId(wide(0)),
        key: TileKey {
            acq: AcqId(wide(1)),
            col: narrow(0),
            row: narrow(1),
            frame: FrameNumber(narrow(2).cast_signed()),
        },
        camera: narrow(3).cast_signed(),
        version: TileVersion(narrow(4)),
        location: Location { segment: wide(2), offset: wide(3), payload_len: narrow(5) },
        image: ByteRange { offset: narrow(6), len: narrow(7) },
        image_crc: narrow(8),
        payload_crc: narrow(9),
        checksum: Checksum::from_wire(&bytes[92..92 + kind.len()]).ok()?,
        received_ns: wide(5).cast_signed(),
        sequence: Sequence(wide(4)),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn judgements_survive_their_rows() {
        let mut row = Judgements::default();
        let measures = Measures { mean_c: 1, contrast_e4: u32::MAX, saturated_e4: 3, focus_e4: 4 };
        row.put(0, Judgement { version: TileVersion(7), measures, flags: QualityFlags(5) });
        row.put(63, Judgement { version: TileVersion(1), measures: Measures::default(), flags: QualityFlags(0) });
        let value = encode_judgements(&row);
        assert_eq!(decode_judgements(b"q", &value).expect("whole"), row);
        (0..value.len()).for_each(|len| assert!(decode_judgements(b"q", &value[..len]).is_err(), "cut at {len}"));
    }

    pub fn entry(n: u64) -> TileEntry {
        let small = u32::try_from(n % 1000).expect("below 1000");
        TileEntry {
            id: TileId(n),
            key: TileKey { acq: AcqId(5), col: small, row: 7, frame: FrameNumber::STABLE },
            camera: 2,
            version: TileVersion::FIRST,
            location: Location { segment: n + 1, offset: n * 4096, payload_len: 900 },
            image: ByteRange { offset: 112, len: 700 },
            image_crc: 0xdead_0000 + small,
            payload_crc: 0xbeef_0000 + small,
            checksum: Checksum::Sha256([7; 32]),
            received_ns: -1,
            sequence: Sequence(n + 100),
        }
    }

    #[test]
    fn packs_and_blocks_survive_their_rows() {
        let mut pack = Pack::default();
        let mut block = KeyBlock::default();
        for n in [0, 3, 63] {
            pack.put(n, entry(u64::from(n)));
            block.put(n, TileId(u64::from(n) + 9));
        }
        assert_eq!(decode_pack(b"t", &encode_pack(&pack)).expect("whole"), pack);
        assert_eq!(decode_block(b"k", &encode_block(&block)).expect("whole"), block);
        assert_eq!(decode_version(b"v", &encode_version(&entry(4))).expect("whole"), entry(4));
    }

    #[test]
    fn a_flipped_bit_in_a_row_is_found() {
        let mut pack = Pack::default();
        pack.put(9, entry(9));
        let whole = encode_pack(&pack);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_pack(b"t", &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_key_behind_the_last_block_is_damage_not_a_panic() {
        let whole = block_key(&TileKey { acq: AcqId(1), col: 7, row: 7, frame: FrameNumber::STABLE });
        for place in [13, 17] {
            let mut damaged = whole.clone();
            damaged[place] = 0x20;
            assert_eq!(key_of_slot(&damaged, 63), None, "byte {place}");
        }
    }

    #[test]
    fn a_tile_key_is_found_in_its_block_and_back() {
        for (col, row, frame) in [(0, 0, -1), (17, 1023, -1), (8, 7, 5), (u32::MAX, u32::MAX, i32::MAX)] {
            let key = TileKey { acq: AcqId(u64::MAX - 3), col, row, frame: FrameNumber(frame) };
            assert_eq!(key_of_slot(&block_key(&key), block_slot(&key)), Some(key));
        }
    }
}

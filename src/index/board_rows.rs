//! The rows of boards, of an acquisition's tiles in the order of their ids, and of what all acquisitions share.
//!
//! | key | value |
//! |---|---|
//! | `r`, acq (u64 BE), drift (u8), col, row, frame (u32 BE) | a block: content, quality flags, states, leases |
//! | `o`, acq (u64 BE), tile id / 64 (u64 BE) | bitmap (u64 LE) of the ids in that pack that are of this acquisition |
//! | `q`, acq (u64 BE), tile id / 64 (u64 BE) | what was found of up to 64 tiles with neighbouring ids |
//! | `s` | names of states, JSON, in the order of their numbers |
//! | `g` | calibrations, TEMCAs, JSON |

use super::board::{Block, BlockKey, SlotLease, StateBits, StateId};
use super::rows::{SLOTS, row_name, seal, unseal};
use super::store::StoreError;
use crate::model::{AcqId, RoiIndex, TileId};

/// Key of the names of states.
pub const STATE_NAMES: &[u8] = b"s";
/// Key of the settings.
pub const SETTINGS: &[u8] = b"g";

const STATE_BYTES: usize = 12;
const LEASE_BYTES: usize = 13;

/// Prefix of an acquisition's rows of one family.
pub fn family_of(family: u8, acq: AcqId) -> Vec<u8> {
    [&[family], acq.0.to_be_bytes().as_slice()].concat()
}

/// Key of a block.
pub fn board_key(acq: AcqId, block: &BlockKey) -> Vec<u8> {
    let mut key = family_of(b'r', acq);
    key.push(u8::from(block.drift));
    for number in [block.col, block.row, block.frame] {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

/// Acquisition and block of a key. `None` for a key that no block has: of another length, or behind the last place.
pub fn block_of_key(key: &[u8]) -> Option<(AcqId, BlockKey)> {
    let bytes: &[u8; 21] = key.strip_prefix(b"r")?.try_into().ok()?;
    let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let acq = (u64::from(number(0)) << 32) | u64::from(number(4));
    let block = BlockKey { drift: bytes[8] == 1, col: number(9), row: number(13), frame: number(17) };
    (bytes[8] <= 1 && block.is_of_places()).then_some((AcqId(acq), block))
}

/// Key of the bitmap that holds a tile's place in its acquisition.
pub fn order_key(acq: AcqId, id: TileId) -> Vec<u8> {
    [family_of(b'o', acq).as_slice(), &(id.0 / u64::from(SLOTS)).to_be_bytes()].concat()
}

/// The first id of an order key's pack.
pub fn first_id_of_order_key(key: &[u8]) -> Option<u64> {
    let bytes: &[u8; 8] = key.get(9..)?.try_into().ok()?;
    u64::from_be_bytes(*bytes).checked_mul(u64::from(SLOTS))
}

pub fn encode_order(bits: u64) -> Vec<u8> {
    seal(bits.to_le_bytes().to_vec())
}

pub fn decode_order(key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    let bytes: Result<[u8; 8], _> = unseal(key, value)?.try_into();
    bytes.map(u64::from_le_bytes).map_err(|_| StoreError::Damaged(row_name(key)))
}

/// Key of the row that holds what was found of a tile.
pub fn judgement_key(acq: AcqId, id: TileId) -> Vec<u8> {
    [family_of(b'q', acq).as_slice(), &(id.0 / u64::from(SLOTS)).to_be_bytes()].concat()
}

pub fn encode_block_row(block: &Block) -> Vec<u8> {
    let count = |n: usize| u32::try_from(n).expect("a block has at most 64 x 65536 states").to_le_bytes();
    let mut value: Vec<u8> =
        [block.stored, block.flagged, block.undecodable].iter().flat_map(|bits| bits.to_le_bytes()).collect();
    value.extend_from_slice(&count(block.states.len()));
    for StateBits { roi, state, bits } in &block.states {
        value.extend_from_slice(&roi.0.to_le_bytes());
        value.extend_from_slice(&state.0.to_le_bytes());
        value.extend_from_slice(&bits.to_le_bytes());
    }
    for SlotLease { roi, slot, back_to, until_ns } in &block.leases {
        value.extend_from_slice(&roi.0.to_le_bytes());
        value.push(*slot);
        value.extend_from_slice(&back_to.0.to_le_bytes());
        value.extend_from_slice(&until_ns.to_le_bytes());
    }
    seal(value)
}

pub fn decode_block_row(key: &[u8], value: &[u8]) -> Result<Block, StoreError> {
    let body = unseal(key, value)?;
    parse_block(body).ok_or_else(|| StoreError::Damaged(row_name(key)))
}

fn parse_block(body: &[u8]) -> Option<Block> {
    let (stored, rest) = body.split_first_chunk::<8>()?;
    let (flagged, rest) = rest.split_first_chunk::<8>()?;
    let (undecodable, rest) = rest.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let states_len = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(STATE_BYTES)?;
    let (states, leases) = rest.split_at_checked(states_len)?;
    if !leases.len().is_multiple_of(LEASE_BYTES) {
        return None;
    }
    let short = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let wide = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let states = states.chunks_exact(STATE_BYTES).map(|item| {
        let (roi, state) = (RoiIndex(short(item, 0)), StateId(short(item, 2)));
        Some(StateBits { roi, state, bits: wide(&item[4..])? })
    });
    let leases = leases.chunks_exact(LEASE_BYTES).map(|item| {
        let until_ns = wide(&item[5..])?.cast_signed();
        let (roi, back_to) = (RoiIndex(short(item, 0)), StateId(short(item, 3)));
        Some(SlotLease { roi, slot: item[2].min(63), back_to, until_ns })
    });
    Some(Block {
        stored: u64::from_le_bytes(*stored),
        flagged: u64::from_le_bytes(*flagged),
        undecodable: u64::from_le_bytes(*undecodable),
        states: states.collect::<Option<_>>()?,
        leases: leases.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_their_rows() {
        let mut block =
            Block { stored: 0x8000_0000_0000_0001, flagged: 0x8000_0000_0000_0001, undecodable: 1, ..Block::default() };
        block.set(RoiIndex(3), 0b1011, StateId(2));
        block.set(RoiIndex(0), u64::MAX, StateId::READY);
        block.lend(SlotLease { roi: RoiIndex(3), slot: 1, back_to: StateId::READY, until_ns: -5 });
        let key = BlockKey { drift: true, col: u32::MAX, row: 7, frame: 9 };
        let row = board_key(AcqId(u64::MAX - 1), &key);
        assert_eq!(block_of_key(&row), Some((AcqId(u64::MAX - 1), key)));
        assert_eq!(decode_block_row(&row, &encode_block_row(&block)).expect("whole"), block);
        assert_eq!(decode_block_row(&row, &encode_block_row(&Block::default())).expect("whole"), Block::default());
    }

    #[test]
    fn a_block_of_more_states_than_16_bits_count_survives_its_row() {
        let states = (0..70_000u32).map(|n| StateBits {
            roi: RoiIndex(u16::try_from(n / 2).expect("small")),
            state: StateId(u16::try_from(n % 2).expect("small")),
            bits: 1 << (n % 2),
        });
        let block = Block { stored: 1, states: states.collect(), ..Block::default() };
        assert_eq!(decode_block_row(b"r", &encode_block_row(&block)).expect("whole"), block);
    }

    #[test]
    fn orders_survive_their_rows() {
        let key = order_key(AcqId(8), TileId(64 * 77 + 5));
        assert_eq!(first_id_of_order_key(&key), Some(64 * 77));
        assert_eq!(decode_order(&key, &encode_order(0b101)).expect("whole"), 0b101);
    }

    #[test]
    fn a_key_behind_the_last_place_is_damage_not_a_panic() {
        let stable = BlockKey { drift: false, col: 1, row: u32::MAX / 64, frame: 0 };
        let drift = BlockKey { drift: true, col: 1, row: u32::MAX, frame: i32::MAX.unsigned_abs() / 64 };
        let read = |key: BlockKey| block_of_key(&board_key(AcqId(1), &key)).map(|(_, key)| key);
        assert_eq!((read(stable), read(drift)), (Some(stable), Some(drift)));
        for damaged in [
            BlockKey { row: stable.row + 1, ..stable },
            BlockKey { frame: 1, ..stable },
            BlockKey { frame: drift.frame + 1, ..drift },
        ] {
            assert_eq!(read(damaged), None, "{damaged:?}");
        }
        let mut neither = board_key(AcqId(1), &stable);
        neither[9] = 2;
        assert_eq!(block_of_key(&neither), None);
    }

    #[test]
    fn a_cut_row_is_damage_not_a_panic() {
        let whole = encode_block_row(&Block { stored: 1, ..Block::default() });
        for len in 0..whole.len() {
            assert!(decode_block_row(b"r", &whole[..len]).is_err());
        }
    }
}

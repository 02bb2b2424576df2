//! Rows of any content, and folds of any facts: see `crate::fuzzing`.

use super::board_rows;
use super::fold::{FoldState, fold};
use super::open::{check_rows, resident};
use super::rows::{self, CHECKPOINT};
use super::store::{MemoryStore, ViewStore};
use crate::fuzzing::Input;
use crate::model::Fact;

/// A store with rows of any content: a check of it ends, and a row that is read is written as one that reads the same.
pub fn index_rows(data: &[u8]) {
    let mut input = Input::new(data);
    let store = MemoryStore::default();
    while !input.is_empty() {
        let (key, is_sealed) = (key(&mut input), input.byte() % 8 != 7);
        let value = input.bytes(1200).to_vec();
        let value = if is_sealed { rows::seal(value) } else { value };
        same_again(&key, &value);
        let _ = rows::row_name(&key);
        store.apply(vec![(key, Some(value))]).expect("memory takes rows");
    }
    if let Ok(state) = check_rows(&store) {
        let _ = resident(&store, &state);
    }
    let _ = resident(&store, &FoldState::default());
    let _ = rows::count_tiles(&store);
}

/// A key of some family, mostly of the right length.
fn key(input: &mut Input<'_>) -> Vec<u8> {
    let family = b"tkvacmrosg"[usize::from(input.byte() % 10)];
    let length = match family {
        b't' | b'a' | b'c' => 8,
        b'k' => 20,
        b'v' => 12,
        b'r' => 21,
        b'o' => 16,
        _ => 0,
    };
    let mut key = vec![family];
    while key.len() <= length {
        key.extend_from_slice(&input.wide().to_be_bytes());
    }
    key.truncate(length + 1);
    if input.byte() % 16 == 15 {
        key.truncate(usize::from(input.byte()) % (length + 1));
    }
    key
}

fn same_again(key: &[u8], value: &[u8]) {
    if let Ok(pack) = rows::decode_pack(key, value) {
        assert_eq!(rows::decode_pack(key, &rows::encode_pack(&pack)).expect("what we write we read"), pack);
    }
    if let Ok(block) = rows::decode_block(key, value) {
        assert_eq!(rows::decode_block(key, &rows::encode_block(&block)).expect("what we write we read"), block);
        let places = block.iter().filter_map(|(slot, _)| rows::key_of_slot(key, slot).map(|place| (slot, place)));
        for (slot, place) in places {
            assert_eq!((rows::block_key(&place).as_slice(), rows::block_slot(&place)), (key, slot));
        }
    }
    if let Ok(entry) = rows::decode_version(key, value) {
        assert_eq!(rows::decode_version(key, &rows::encode_version(&entry)).expect("what we write we read"), entry);
    }
    if let Ok(bits) = board_rows::decode_order(key, value) {
        assert_eq!(board_rows::encode_order(bits), value);
    }
    if let Ok(block) = board_rows::decode_block_row(key, value) {
        let again = board_rows::encode_block_row(&block);
        assert_eq!(board_rows::decode_block_row(key, &again).expect("what we write we read"), block);
    }
    if let Some((acq, block)) = board_rows::block_of_key(key) {
        let again = board_rows::board_key(acq, &block);
        assert_eq!(board_rows::block_of_key(&again), Some((acq, block)));
        let places = [0, 63].map(|slot| block.cell(slot));
        assert_eq!(places.map(|place| super::BlockKey::of(place)), [(block, 0), (block, 63)]);
    }
}

/// Folds facts, which are in order: the store passes its own check, and is the same however the facts were batched.
pub(crate) fn fold_both_ways(facts: &[Fact]) {
    let (whole, single) = (MemoryStore::default(), MemoryStore::default());
    let (mut state, mut steps) = (FoldState::default(), FoldState::default());
    fold(&whole, &mut state, facts).expect("memory takes rows");
    fold(&single, &mut steps, &[]).expect("memory takes rows");
    for fact in facts {
        fold(&single, &mut steps, std::slice::from_ref(fact)).expect("memory takes rows");
    }
    assert_eq!(all_rows(&whole), all_rows(&single), "batches leave traces");
    let checked = check_rows(&whole).expect("what was folded passes the check");
    assert_eq!(checked.checkpoint, state.checkpoint);
    assert_eq!(checked.acquisitions, state.acquisitions, "what is read back is what was in memory");
    resident(&whole, &checked).expect("readable");
}

fn all_rows(store: &MemoryStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let each = &mut |key: &[u8], value: &[u8]| {
        all.push((key.to_vec(), value.to_vec()));
        true
    };
    store.scan(b"", each).expect("memory is readable");
    assert!(all.iter().any(|(key, _)| key == CHECKPOINT));
    all
}

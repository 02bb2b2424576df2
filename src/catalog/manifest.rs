//! The manifest of an acquisition: which tiles it has, with their checksums, under one hash.
//!
//! One JSON object a line (`\n` at each end), keys in this order and no spaces: a header, a line for the current version
//! of each tile by frame (stable tiles first), column, row, and the last line with count and root:
//!
//! ```text
//! {"manifest":1,"acquisition":7}
//! {"col":1,"row":2,"frame":-1,"version":1,"name":"col0001_row0002_cam3.tif","size":5,"crc32":"0a0b0c0d","checksum":"md5:.."}
//! {"tiles":1,"root":".."}
//! ```
//!
//! The root is the Merkle tree hash of RFC 6962 (SHA-256) over all lines before the last, without their ends. Nothing in
//! it depends on where or when a tile is stored: the same tiles give the same manifest. Reading is strict, so that one
//! set of tiles has one manifest. Must never hold more than a line and O(log n) hashes.

use super::commands::{Catalog, CatalogError};
use crate::formats::TileName;
use crate::model::{AcqId, FrameNumber, TileEntry, TileId, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, Read};

/// Longest line that is read, bytes. Those that are written have at most 400.
const LINE_BYTES_MAX: usize = 1024;
/// Tiles that [`Catalog::manifest`] holds at a time; for more than these the acquisition is gone through repeatedly.
const TILES_AT_ONCE: usize = 200_000;
/// Tiles asked of the index with one call.
const PAGE: usize = 10_000;

/// A tile's place in the order of a manifest: frame, column, row.
pub type ManifestPlace = (FrameNumber, u32, u32);

/// What stands at the end of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestSummary {
    /// Number of tiles.
    pub tiles: u64,
    /// Merkle root, hex.
    pub root: String,
}

/// A tile's place in the order of a manifest.
#[must_use]
pub fn manifest_place(entry: &TileEntry) -> ManifestPlace {
    (entry.key.frame, entry.key.col, entry.key.row)
}

/// Puts tiles into the order of a manifest.
pub fn sort_for_manifest(entries: &mut [TileEntry]) {
    entries.sort_unstable_by_key(manifest_place);
}

/// Makes the lines of a manifest, one by one. Lines come without their ends.
pub struct ManifestWriter {
    header: String,
    tree: MerkleTree,
    tiles: u64,
    last: Option<ManifestPlace>,
}

impl ManifestWriter {
    /// Begins the manifest of an acquisition.
    #[must_use]
    pub fn new(acq: AcqId) -> Self {
        let header = format!(r#"{{"manifest":1,"acquisition":{acq}}}"#);
        let mut tree = MerkleTree::default();
        tree.push(header.as_bytes());
        Self { header, tree, tiles: 0, last: None }
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.header
    }

    /// The next tile's line.
    ///
    /// # Panics
    /// The tile does not lie behind the one before: the caller has not sorted them.
    pub fn push(&mut self, entry: &TileEntry) -> String {
        let place = manifest_place(entry);
        assert!(self.last.is_none_or(|last| last < place), "tiles of a manifest are sorted, each place once");
        self.last = Some(place);
        self.tiles += 1;
        let line = manifest_line(entry);
        self.tree.push(line.as_bytes());
        line
    }

    /// The last line, and what it says.
    #[must_use]
    pub fn finish(self) -> (String, ManifestSummary) {
        let summary = ManifestSummary { tiles: self.tiles, root: hex(&self.tree.root()) };
        (last_line(&summary), summary)
    }
}

/// A tile's line.
#[must_use]
pub fn manifest_line(entry: &TileEntry) -> String {
    let tile = ManifestTile {
        col: entry.key.col,
        row: entry.key.row,
        frame: entry.key.frame,
        version: entry.version.0,
        name: file_name(entry).to_string(),
        size: entry.image.len,
        crc32: format!("{:08x}", entry.image_crc),
        checksum: sender_checksum(entry),
    };
    serde_json::to_string(&tile).expect("a line is plain data: it has a JSON form")
}

/// The name of a tile's file in an acquisition folder.
#[must_use]
pub fn file_name(entry: &TileEntry) -> TileName {
    TileName::of(entry.key, entry.camera)
}

fn sender_checksum(entry: &TileEntry) -> Option<String> {
    let kind = entry.checksum.kind();
    (!kind.is_empty()).then(|| format!("{}:{}", kind.name(), entry.checksum))
}

fn last_line(summary: &ManifestSummary) -> String {
    format!(r#"{{"tiles":{},"root":"{}"}}"#, summary.tiles, summary.root)
}

/// A tile's line, read. Its keys are written in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestTile {
    /// Column.
    pub col: u32,
    /// Row.
    pub row: u32,
    /// -1 for a stable tile.
    pub frame: FrameNumber,
    /// Version of the content.
    pub version: u32,
    /// Name of its file in an acquisition folder; holds the camera.
    pub name: String,
    /// Length of the image, bytes.
    pub size: u32,
    /// CRC-32 of the image, 8 hex digits.
    pub crc32: String,
    /// The sender's checksum, `kind:hex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

impl ManifestTile {
    /// Its place in the order.
    #[must_use]
    pub fn place(&self) -> ManifestPlace {
        (self.frame, self.col, self.row)
    }

    /// What a line can not say, whatever the tile.
    fn problem(&self) -> Option<&'static str> {
        let lower_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let checksum_holds = |text: &str| {
            let lengths = [("crc32", 8), ("md5", 32), ("sha1", 40), ("sha256", 64)];
            text.split_once(':')
                .is_some_and(|(kind, digits)| lengths.contains(&(kind, digits.len())) && lower_hex(digits))
        };
        if self.frame < FrameNumber::STABLE || self.version == 0 {
            Some("the frame is below -1 or the version is 0")
        } else if self.crc32.len() != 8 || !lower_hex(&self.crc32) {
            Some("\"crc32\" is not 8 hex digits")
        } else if self.checksum.as_deref().is_some_and(|text| !checksum_holds(text)) {
            Some("\"checksum\" is not KIND:HEX")
        } else if !self.is_named_after_its_place() {
            Some("the name is that of another tile")
        } else {
            None
        }
    }

    fn is_named_after_its_place(&self) -> bool {
        let name = |camera| TileName { camera, col: self.col, row: self.row, frame: self.frame }.to_string();
        let of_camera_0 = name(0);
        let camera = of_camera_0.split_once("cam0").and_then(|(front, back)| {
            self.name.strip_prefix(front)?.strip_prefix("cam")?.strip_suffix(back)?.parse().ok()
        });
        camera.is_some_and(|camera| name(camera) == self.name)
    }
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A line is not what it should be, or does not fit to the others.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// It can not be read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    manifest: u32,
    acquisition: AcqId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    tiles: u64,
    root: String,
}

/// Reads a manifest: gives its tiles, and at its end has checked shape, order, count and root.
pub struct ManifestReader<R> {
    input: R,
    acq: AcqId,
    tree: MerkleTree,
    line: u64,
    tiles: u64,
    last: Option<ManifestPlace>,
    summary: Option<ManifestSummary>,
}

impl<R: BufRead> ManifestReader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// It is none of a manifest.
    pub fn open(input: R) -> Result<Self, ManifestError> {
        let (tree, acq) = (MerkleTree::default(), AcqId(0));
        let mut reader = Self { input, acq, tree, line: 0, tiles: 0, last: None, summary: None };
        let line = reader.next_line()?.ok_or_else(|| reader.wrong("no manifest: the file is empty"))?;
        let not_ours = || r#"no manifest of this version: it begins with {"manifest":1,"acquisition":N}"#;
        let header: Header = serde_json::from_str(&line).map_err(|_| reader.wrong(not_ours()))?;
        if header.manifest != 1 || ManifestWriter::new(header.acquisition).header() != line {
            return Err(reader.wrong(not_ours()));
        }
        reader.acq = header.acquisition;
        reader.tree.push(line.as_bytes());
        Ok(reader)
    }

    /// The acquisition.
    #[must_use]
    pub fn acq(&self) -> AcqId {
        self.acq
    }

    /// Number of the line that was read last, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next tile, with its line. `None` at the end, when everything was found to hold.
    ///
    /// # Errors
    /// A line that is not what it should be; a wrong order, count or root; the file can not be read.
    pub fn next_tile(&mut self) -> Result<Option<(ManifestTile, String)>, ManifestError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let line =
            self.next_line()?.ok_or_else(|| self.wrong("the file ends before the line with \"tiles\" and \"root\""))?;
        if line.starts_with(r#"{"tiles":"#) {
            self.summary = Some(self.check_end(&line)?);
            return Ok(None);
        }
        let tile: ManifestTile = serde_json::from_str(&line).map_err(|error| self.wrong(&error.to_string()))?;
        if let Some(problem) = tile.problem() {
            return Err(self.wrong(problem));
        }
        if serde_json::to_string(&tile).ok().as_deref() != Some(line.as_str()) {
            return Err(self.wrong("not written as a manifest's line: keys in order, no spaces"));
        }
        if self.last.is_some_and(|last| last >= tile.place()) {
            return Err(self.wrong("out of order: tiles come by frame, column, row, each once"));
        }
        self.last = Some(tile.place());
        self.tiles += 1;
        self.tree.push(line.as_bytes());
        Ok(Some((tile, line)))
    }

    /// Count and root, once [`Self::next_tile`] has come to the end.
    #[must_use]
    pub fn summary(&self) -> Option<&ManifestSummary> {
        self.summary.as_ref()
    }

    fn check_end(&mut self, line: &str) -> Result<ManifestSummary, ManifestError> {
        let last: Last = serde_json::from_str(line).map_err(|error| self.wrong(&error.to_string()))?;
        let found = self.found();
        if last.tiles != found.tiles {
            return Err(self.wrong(&format!("says {} tiles, there are {}", last.tiles, found.tiles)));
        }
        if last.root != found.root {
            return Err(self.wrong(&format!("the root does not match the lines, whose root is {}", found.root)));
        }
        if last_line(&found) != line {
            return Err(self.wrong("not written as a manifest's last line: keys in order, no spaces"));
        }
        if self.next_line()?.is_some() {
            return Err(self.wrong("something follows the last line"));
        }
        Ok(found)
    }

    fn found(&self) -> ManifestSummary {
        ManifestSummary { tiles: self.tiles, root: hex(&self.tree.root()) }
    }

    fn next_line(&mut self) -> Result<Option<String>, ManifestError> {
        let mut bytes = Vec::new();
        let most = LINE_BYTES_MAX as u64 + 1;
        self.input.by_ref().take(most).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if bytes.pop() != Some(b'\n') {
            let problem = if bytes.len() >= LINE_BYTES_MAX { "too long" } else { "the file ends inside the line" };
            return Err(self.wrong(problem));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| self.wrong("not UTF-8"))
    }

    fn wrong(&self, problem: &str) -> ManifestError {
        ManifestError::Line { line: self.line.max(1), problem: problem.to_owned() }
    }
}

/// Reads a whole manifest; gives each tile with its line to `each`.
///
/// # Errors
/// As [`ManifestReader::next_tile`].
pub fn parse_manifest(
    input: &mut dyn BufRead,
    each: &mut dyn FnMut(&ManifestTile, &str),
) -> Result<(AcqId, ManifestSummary), ManifestError> {
    let mut reader = ManifestReader::open(input)?;
    while let Some((tile, line)) = reader.next_tile()? {
        each(&tile, &line);
    }
    Ok((reader.acq, reader.found()))
}

/// The Merkle tree of RFC 6962, section 2.1, leaf by leaf: holds the roots of the full subtrees so far.
#[derive(Clone, Debug, Default)]
struct MerkleTree {
    /// Height and hash, highest first; no two of one height.
    roots: Vec<(u32, [u8; 32])>,
}

impl MerkleTree {
    fn push(&mut self, leaf: &[u8]) {
        let mut hash: [u8; 32] = Sha256::new().chain_update([0]).chain_update(leaf).finalize().into();
        let mut height = 0;
        while let Some((_, left)) = self.roots.pop_if(|(top, _)| *top == height) {
            hash = Self::node(&left, &hash);
            height += 1;
        }
        self.roots.push((height, hash));
    }

    fn root(&self) -> [u8; 32] {
        let hashes = self.roots.iter().rev().map(|(_, hash)| *hash);
        hashes.reduce(|right, left| Self::node(&left, &right)).unwrap_or_else(|| Sha256::digest([]).into())
    }

    fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
        Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
    }
}

/// Why a manifest was not made to its end.
#[derive(Debug, thiserror::Error)]
pub enum MakeManifestError {
    /// There is no such acquisition; the index can not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A line could not be handed on.
    #[error("the manifest could not be written: {0}")]
    Write(#[from] io::Error),
}

impl Catalog {
    /// The manifest of an acquisition as it is now; each line, without its end, goes to `each_line`. Tiles that are
    /// stored meanwhile may or may not be in it; what it says holds together in any case.
    ///
    /// # Errors
    /// There is no such acquisition; the index can not be read; `each_line` fails.
    pub fn manifest(
        &self,
        acq: AcqId,
        each_line: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<ManifestSummary, MakeManifestError> {
        if self.acquisition(acq).is_none() {
            return Err(CatalogError::UnknownAcquisition(acq).into());
        }
        let mut writer = ManifestWriter::new(acq);
        each_line(writer.header())?;
        let (mut behind, mut more) = (None, true);
        while more {
            let mut lowest = Lowest::new(behind, TILES_AT_ONCE);
            let mut after = TileId::NONE;
            loop {
                let page = self.index().tiles_of(acq, after, PAGE).map_err(CatalogError::from)?;
                let Some(last) = page.last() else { break };
                after = last.id;
                lowest.take(page);
            }
            let entries;
            (entries, more) = lowest.finish();
            for entry in &entries {
                each_line(&writer.push(entry))?;
            }
            behind = entries.last().map(manifest_place);
        }
        let (last, summary) = writer.finish();
        each_line(&last)?;
        Ok(summary)
    }
}

/// Of all tiles that it is given, in any order, keeps those that come first behind a place: memory is bounded however
/// many there are.
struct Lowest {
    behind: Option<ManifestPlace>,
    at_once: usize,
    kept: Vec<TileEntry>,
    more: bool,
}

impl Lowest {
    fn new(behind: Option<ManifestPlace>, at_once: usize) -> Self {
        Self { behind, at_once, kept: Vec::new(), more: false }
    }

    fn take(&mut self, page: Vec<TileEntry>) {
        let behind = self.behind;
        self.kept.extend(page.into_iter().filter(|entry| behind.is_none_or(|behind| manifest_place(entry) > behind)));
        if self.kept.len() >= 2 * self.at_once {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.kept.select_nth_unstable_by_key(self.at_once, manifest_place);
        self.kept.truncate(self.at_once);
        self.more = true;
    }

    /// Those, in order, and whether others follow.
    fn finish(mut self) -> (Vec<TileEntry>, bool) {
        if self.more && self.kept.len() > self.at_once {
            self.cut();
        }
        // Of one place only the newest: a tile may have been deleted and stored again while the pages were read.
        self.kept.sort_unstable_by_key(|entry| (manifest_place(entry), std::cmp::Reverse(entry.sequence)));
        self.kept.dedup_by_key(|entry| manifest_place(entry));
        (self.kept, self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ByteRange, Checksum, Location, Sequence, TileKey, TileVersion};

    fn tile(col: u32, row: u32, frame: i32) -> TileEntry {
        TileEntry {
            id: TileId(u64::from(col * 100 + row) + 1),
            key: TileKey { acq: AcqId(7), col, row, frame: FrameNumber(frame) },
            camera: 3,
            version: TileVersion(1 + col % 2),
            location: Location { segment: 1, offset: 4096, payload_len: 100 },
            image: ByteRange { offset: 10, len: 80 + row },
            image_crc: 0xab + col,
            payload_crc: 9,
            checksum: if row == 0 { Checksum::None } else { Checksum::Md5([0x5a; 16]) },
            received_ns: 5,
            sequence: Sequence(3),
        }
    }

    /// 3 columns x 2 rows of stable tiles and 1 drift frame, in order.
    fn tiles() -> Vec<TileEntry> {
        let places = [(0, 0, -1), (0, 1, -1), (1, 0, -1), (1, 1, -1), (2, 0, -1), (2, 1, -1), (0, 0, 0)];
        places.map(|(col, row, frame)| tile(col, row, frame)).to_vec()
    }

    fn lines(tiles: &[TileEntry]) -> Vec<String> {
        let mut writer = ManifestWriter::new(AcqId(7));
        let mut lines = vec![writer.header().to_owned()];
        lines.extend(tiles.iter().map(|tile| writer.push(tile)));
        lines.push(writer.finish().0);
        lines
    }

    fn text(lines: &[String]) -> String {
        lines.iter().map(|line| line.clone() + "\n").collect()
    }

    fn parse(text: &str) -> Result<(AcqId, ManifestSummary), ManifestError> {
        parse_manifest(&mut text.as_bytes(), &mut |_, _| {})
    }

    fn problem(lines: &[String]) -> String {
        parse(&text(lines)).expect_err("no good manifest").to_string()
    }

    /// The definition of RFC 6962, section 2.1, as it stands there.
    fn tree_hash(leaves: &[Vec<u8>]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => Sha256::new().chain_update([0]).chain_update(leaf).finalize().into(),
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                MerkleTree::node(&tree_hash(&leaves[..half]), &tree_hash(&leaves[half..]))
            }
        }
    }

    #[test]
    fn the_tree_is_that_of_rfc_6962() {
        let leaves: [&[u8]; 8] = [b"", b"\0", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"];
        let known = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = MerkleTree::default();
        assert_eq!(hex(&tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, root) in leaves.iter().zip(known) {
            tree.push(leaf);
            assert_eq!(hex(&tree.root()), root);
        }
    }

    #[test]
    fn a_tree_built_leaf_by_leaf_is_the_tree_of_the_definition() {
        let mut tree = MerkleTree::default();
        let leaves: Vec<Vec<u8>> = (0..200u32).map(|n| n.to_le_bytes().to_vec()).collect();
        for n in 0..leaves.len() {
            tree.push(&leaves[n]);
            assert_eq!(tree.root(), tree_hash(&leaves[..=n]), "{n}");
            assert!(tree.roots.len() <= 8);
        }
    }

    #[test]
    fn lines_are_written_as_documented_and_read_back() {
        let lines = lines(&tiles());
        assert_eq!(lines[0], r#"{"manifest":1,"acquisition":7}"#);
        assert_eq!(
            lines[1],
            r#"{"col":0,"row":0,"frame":-1,"version":1,"name":"col0000_row0000_cam3.tif","size":80,"crc32":"000000ab"}"#
        );
        assert!(lines[4].ends_with(r#","crc32":"000000ac","checksum":"md5:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"}"#));
        assert!(lines[7].contains(r#""frame":0,"version":1,"name":"Dump_cam3_frame000000_col0000_row0000.tif""#));
        let (acq, summary) = parse(&text(&lines)).expect("a good manifest");
        assert_eq!((acq, summary.tiles, last_line(&summary)), (AcqId(7), 7, lines[8].clone()));
    }

    #[test]
    fn an_acquisition_without_tiles_has_a_manifest() {
        let lines = lines(&[]);
        assert_eq!((lines.len(), parse(&text(&lines)).expect("good").1.tiles), (2, 0));
    }

    #[test]
    fn tiles_sort_by_frame_column_and_row() {
        let mut shuffled = tiles();
        shuffled.reverse();
        sort_for_manifest(&mut shuffled);
        assert_eq!(shuffled, tiles());
    }

    #[test]
    fn however_few_are_held_at_a_time_all_tiles_come_in_order() {
        let all: Vec<TileEntry> = (0..40).flat_map(|col| (0..5).map(move |row| tile(col, row, -1))).collect();
        let mut shuffled = all.clone();
        shuffled.sort_by_key(|entry| entry.id.0 * 7919 % 1009);
        for at_once in [1, 3, 50, 100, 101, 199, 200, 1000] {
            let (mut given, mut behind, mut more) = (Vec::new(), None, true);
            while more {
                let mut lowest = Lowest::new(behind, at_once);
                shuffled.chunks(17).for_each(|page| lowest.take(page.to_vec()));
                let entries;
                (entries, more) = lowest.finish();
                assert!(!more || entries.len() == at_once, "{at_once}");
                behind = entries.last().map(manifest_place);
                given.extend(entries);
            }
            assert_eq!(given, all, "{at_once}");
        }
    }

    #[test]
    fn nothing_in_a_line_depends_on_where_or_when_a_tile_is_stored() {
        let before = tile(1, 1, -1);
        let moved = TileEntry {
            id: TileId(99),
            location: Location { segment: 8, offset: 0, payload_len: 400 },
            image: ByteRange { offset: 300, ..before.image },
            payload_crc: 1,
            received_ns: 1,
            sequence: Sequence(99),
            ..before
        };
        assert_eq!(manifest_line(&before), manifest_line(&moved));
    }

    #[test]
    fn a_removed_added_or_reordered_line_is_found() {
        let good = lines(&tiles());
        for n in 0..good.len() {
            let mut fewer = good.clone();
            let removed = fewer.remove(n);
            assert!(parse(&text(&fewer)).is_err(), "without line {n}");
            for at in 0..=fewer.len() {
                let mut moved = fewer.clone();
                moved.insert(at, removed.clone());
                assert_eq!(parse(&text(&moved)).is_ok(), at == n, "line {n} moved to {at}");
                let mut twice = good.clone();
                twice.insert(at, removed.clone());
                assert!(parse(&text(&twice)).is_err(), "line {n} again at {at}");
            }
        }
        let mut added = good.clone();
        added.insert(7, manifest_line(&tile(5, 5, -1)));
        assert_eq!(problem(&added), "line 10: says 7 tiles, there are 8");
    }

    #[test]
    fn any_changed_byte_is_found() {
        let good = text(&lines(&tiles()));
        for at in 0..good.len() {
            for flip in [1u8, 4, 32] {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= flip;
                assert!(parse_manifest(&mut &bytes[..], &mut |_, _| {}).is_err(), "byte {at} with {flip}");
            }
            assert!(parse(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn problems_name_their_line() {
        let good = lines(&tiles());
        let with = |n: usize, line: &str| {
            let mut lines = good.clone();
            lines[n] = line.to_owned();
            problem(&lines)
        };
        assert!(with(0, "{}").starts_with("line 1: no manifest of this version"));
        assert_eq!(
            with(2, &good[2].replace("\"col\":0", "\"col\": 0")),
            "line 3: not written as a manifest's line: keys in order, no spaces"
        );
        assert_eq!(with(2, &good[2].replace("cam3", "cam03")), "line 3: the name is that of another tile");
        assert_eq!(with(2, &good[2].replace("md5:", "md4:")), "line 3: \"checksum\" is not KIND:HEX");
        assert!(with(2, &good[3]).starts_with("line 4: out of order"));
        assert!(with(3, "{\"x\":1}").starts_with("line 4: unknown field"));
        assert_eq!(with(3, &"x".repeat(1025)), "line 4: too long");
        assert!(with(8, &good[8].replace("\"tiles\":7", "\"tiles\":8")).starts_with("line 9: says 8 tiles"));
        assert!(with(5, &good[5].replace("\"size\":80", "\"size\":81")).starts_with("line 9: the root does not match"));
        assert_eq!(problem(&[good.clone(), vec![String::new()]].concat()), "line 10: something follows the last line");
        assert_eq!(problem(&[]), "line 1: no manifest: the file is empty");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = parse_manifest(&mut &bytes[..], &mut |_, _| {});
        }

        #[test]
        fn arbitrary_lines_behind_a_good_header_are_read_without_a_panic(
            lines in proptest::collection::vec("[{}\":,a-z0-9 -]{0,60}|\\{\"tiles\":[0-9]{1,30},\"root\":\"[0-9a-f]{0,70}\"\\}", 0..6),
        ) {
            let text = format!("{{\"manifest\":1,\"acquisition\":7}}\n{}\n", lines.join("\n"));
            let _ = parse(&text);
        }

        #[test]
        fn edited_manifests_are_refused_without_a_panic(at in 0usize..900, byte: u8) {
            let good = text(&lines(&tiles())).into_bytes();
            let mut bytes = good.clone();
            let at = at % bytes.len();
            bytes[at] = byte;
            let read = parse_manifest(&mut &bytes[..], &mut |_, _| {});
            proptest::prop_assert_eq!(read.is_ok(), bytes == good);
        }
    }
}

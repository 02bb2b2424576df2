//! The table of ROI tiles (`*_ROI_tiles.csv`): which tile of the mosaic lies in which region of interest.
//!
//! Owns which rows count. Must never drop a row that counts: what can not be placed in a section is an error, and so
//! is a quote that is not closed on its line, for it would hide the rows after it.

use super::{FormatError, RoiSection, excerpt};
use csv::{Reader, ReaderBuilder, StringRecord};
use std::collections::{HashMap, HashSet};

/// Warnings that are kept; the rest are counted in one more.
const WARNINGS_MAX: usize = 100;

/// The tiles that lie in regions of interest, in the order of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoiTileTable {
    /// Each (column, row, region) once.
    pub tiles: Vec<RoiTileRow>,
    /// One for each row that was skipped because of a bad number, up to 100, then one that counts the rest.
    pub warnings: Vec<String>,
}

/// A tile that lies in a region of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoiTileRow {
    /// Column in the mosaic, from 0.
    pub col: u32,
    /// Row in the mosaic, from 0.
    pub row: u32,
    /// Index into the sections that the table was read with.
    pub roi: usize,
}

/// Where the needed columns stand.
struct Columns {
    col: usize,
    row: usize,
    inclusion: usize,
    section: usize,
}

/// What a row says.
enum Row<'a> {
    Skipped,
    Counted { col: u32, row: u32, section: &'a str },
}

/// Reads the rows with an inclusion of 0 or more; `sections` are the regions of the specification sent with the table.
///
/// # Errors
/// An empty table, or one without a needed column; a row that counts names a section that is not among `sections`; a
/// quoted field runs over the end of its line.
pub fn parse_roi_tiles(bytes: &[u8], sections: &[RoiSection]) -> Result<RoiTileTable, FormatError> {
    let text = String::from_utf8_lossy(bytes);
    let mut rows = Rows::new(text.strip_prefix('\u{feff}').unwrap_or(&text));
    if !rows.advance()? {
        return Err(FormatError::Content("an empty table".to_owned()));
    }
    let columns = Columns::find(&rows.record).map_err(|problem| rows.at(problem))?;
    let rois = by_name(sections);
    let mut found = Found::default();
    while rows.advance()? {
        match columns.read(&rows.record) {
            Ok(Row::Skipped) => {}
            Ok(Row::Counted { col, row, section }) => {
                let roi = *rois.get(section).ok_or_else(|| rows.at(bad_section(section)))?;
                found.add(RoiTileRow { col, row, roi });
            }
            Err(problem) => found.warn(|| format!("{}, row skipped", rows.at(problem))),
        }
    }
    Ok(found.table())
}

/// Of sections with one name the first counts.
fn by_name(sections: &[RoiSection]) -> HashMap<&str, usize> {
    let mut rois = HashMap::new();
    for (index, section) in sections.iter().enumerate() {
        rois.entry(section.name.as_str()).or_insert(index);
    }
    rois
}

/// What the rows read so far have given.
#[derive(Default)]
struct Found {
    table: RoiTileTable,
    seen: HashSet<RoiTileRow>,
    bad_rows: usize,
}

impl Found {
    fn add(&mut self, tile: RoiTileRow) {
        if self.seen.insert(tile) {
            self.table.tiles.push(tile);
        }
    }

    /// The text is made only when it is kept: finding a row's line means reading all before it.
    fn warn(&mut self, warning: impl FnOnce() -> String) {
        self.bad_rows += 1;
        if self.bad_rows <= WARNINGS_MAX {
            self.table.warnings.push(warning());
        }
    }

    fn table(mut self) -> RoiTileTable {
        if self.bad_rows > WARNINGS_MAX {
            let more = self.bad_rows - WARNINGS_MAX;
            self.table.warnings.push(format!("{more} more rows with bad numbers skipped"));
        }
        self.table
    }
}

fn bad_section(name: &str) -> String {
    format!("bad section name \"{}\": not in the ROI specification", excerpt(name))
}

impl Columns {
    fn find(header: &StringRecord) -> Result<Self, String> {
        let find = |wanted: &str| {
            let index = header.iter().position(|name| plain(name).eq_ignore_ascii_case(wanted));
            index.ok_or_else(|| format!("no column \"{wanted}\""))
        };
        let (col, row) = (find("Col")?, find("Row")?);
        Ok(Self { col, row, inclusion: find("Inclusion")?, section: find("Section number")? })
    }

    /// Most rows lie in no region, so the inclusion is looked at first.
    fn read<'a>(&self, record: &'a StringRecord) -> Result<Row<'a>, String> {
        if record.len() < 2 {
            return Ok(Row::Skipped);
        }
        let inclusion: i64 = number(record, self.inclusion, "inclusion")?;
        if inclusion < 0 {
            return Ok(Row::Skipped);
        }
        let (col, row) = (number(record, self.col, "column")?, number(record, self.row, "row")?);
        Ok(Row::Counted { col, row, section: field(record, self.section) })
    }
}

fn number<T: std::str::FromStr>(record: &StringRecord, index: usize, what: &str) -> Result<T, String> {
    let text = field(record, index);
    text.parse().map_err(|_| format!("\"{}\" is no {what}", excerpt(text)))
}

/// A field that a short row does not have is empty.
fn field(record: &StringRecord, index: usize) -> &str {
    plain(record.get(index).unwrap_or_default())
}

/// The CSV reader takes the quotes off a field only where no space stands before them.
fn plain(field: &str) -> &str {
    field.trim().trim_matches('"').trim()
}

/// The records of a table, one at a time.
struct Rows<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
    record: StringRecord,
}

impl<'a> Rows<'a> {
    fn new(text: &'a str) -> Self {
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        Self { text, reader, record: StringRecord::new() }
    }

    /// Reads the next record; false at the end.
    fn advance(&mut self) -> Result<bool, FormatError> {
        let more = self.reader.read_record(&mut self.record).map_err(|error| self.at(error.to_string()))?;
        if self.record.as_slice().contains('\n') {
            return Err(self.at("a quoted field runs over the end of the line".to_owned()));
        }
        Ok(more)
    }

    fn at(&self, problem: String) -> FormatError {
        FormatError::Line { line: self.line(), problem }
    }

    /// The current record's line. The reader's own count is wrong after blank lines and Windows line ends: it puts a
    /// record where the one before it ended.
    fn line(&self) -> usize {
        let start = self.record.position().and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(0);
        let (before, rest) = self.text.as_bytes().split_at_checked(start).unwrap_or_default();
        let line_ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        before.iter().chain(line_ends).filter(|byte| **byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Col,Row,Inclusion,Excluded?,Included?,# Inclusions,Section number\r\n";

    fn sections() -> Vec<RoiSection> {
        let names = [(0, "30"), (1, "S.31"), (4, "x, 32.7")];
        names.map(|(region, name)| RoiSection { region, name: name.to_owned(), section: 7 }).into()
    }

    fn parse(text: &str) -> RoiTileTable {
        parse_roi_tiles(text.as_bytes(), &sections()).expect("a good table")
    }

    fn tiles(rows: &str) -> Vec<(u32, u32, usize)> {
        let table = parse(&format!("{HEADER}{rows}"));
        assert_eq!(table.warnings, [""; 0]);
        table.tiles.iter().map(|tile| (tile.col, tile.row, tile.roi)).collect()
    }

    fn error(text: &str) -> String {
        parse_roi_tiles(text.as_bytes(), &sections()).expect_err("a bad table").to_string()
    }

    #[test]
    fn rows_are_placed_by_the_name_of_their_section() {
        let rows = "0,0,-1,0,0,0,\r\n1,2,1,0,1,1,S.31\r\n3,4,0,0,1,1,30\r\n1,2,4,0,1,2,\"x, 32.7\"\r\n";
        assert_eq!(tiles(rows), [(1, 2, 1), (3, 4, 0), (1, 2, 2)]);
    }

    #[test]
    fn columns_are_found_by_name_in_any_order_and_case() {
        let table = parse("\u{feff} section NUMBER,extra, \"row\" ,inclusion,COL\n 30 ,x, 5 , 0 , \"6\"\n");
        assert_eq!(table.tiles, [RoiTileRow { col: 6, row: 5, roi: 0 }]);
    }

    #[test]
    fn blank_lines_single_fields_and_ragged_rows_are_passed_over() {
        let rows = "\r\n1,2,-1\r\n7\r\n\r\n1,3,-5,,,,,,,9\r\n1,4,2,0,1,1,30,more\r\n";
        assert_eq!(tiles(rows), [(1, 4, 0)]);
    }

    #[test]
    fn a_tile_given_twice_in_a_section_is_kept_once() {
        assert_eq!(tiles("1,2,0,,,,30\n1,2,1,,,,S.31\n01,2,5,,,,30\n"), [(1, 2, 0), (1, 2, 1)]);
    }

    #[test]
    fn a_row_with_a_bad_number_is_skipped_with_a_warning_that_names_its_line() {
        let rows =
            "x,2,0,,,,30\r\n\r\n1,-2,0,,,,30\r\n1,4294967296,0,,,,none\r\n1,2\r\n1,2,1.5,,,,30\r\n8,9,0,,,,30\r\n";
        let table = parse(&format!("{HEADER}{rows}"));
        let expected = [
            "line 2: \"x\" is no column, row skipped",
            "line 4: \"-2\" is no row, row skipped",
            "line 5: \"4294967296\" is no row, row skipped",
            "line 6: \"\" is no inclusion, row skipped",
            "line 7: \"1.5\" is no inclusion, row skipped",
        ];
        assert_eq!(table.warnings, expected);
        assert_eq!(table.tiles, [RoiTileRow { col: 8, row: 9, roi: 0 }]);
    }

    #[test]
    fn warnings_beyond_a_hundred_are_counted() {
        let of = |count| parse(&format!("{HEADER}{}", "x,1,0,,,,30\n".repeat(count))).warnings;
        assert_eq!(of(100).len(), 100);
        let many = of(1000);
        assert_eq!((many.len(), many[100].as_str()), (101, "900 more rows with bad numbers skipped"));
    }

    #[test]
    fn a_counted_row_of_another_section_is_refused_by_its_line() {
        for name in ["31", "s.31", "", "30;S.31"] {
            let problem = error(&format!("{HEADER}\r\n0,0,-1,0,0,0,{name}\r\n1,2,0,0,1,1,{name}\r\n"));
            assert_eq!(problem, format!("line 4: bad section name \"{name}\": not in the ROI specification"));
        }
        assert!(error(&format!("{HEADER}1,2,0\n")).starts_with("line 2: bad section name \"\""));
    }

    #[test]
    fn a_table_without_its_columns_is_refused() {
        assert_eq!((error(""), error("\r\n\r\n")), ("an empty table".to_owned(), "an empty table".to_owned()));
        assert_eq!(error("1,2,0,,,,30\n"), "line 1: no column \"Col\"");
        for missing in ["Col", "Row", "Inclusion", "Section number"] {
            let header = "Col,Row,Inclusion,Section number\n".replace(missing, "other");
            assert_eq!(error(&format!("\n{header}")), format!("line 2: no column \"{missing}\""));
        }
    }

    #[test]
    fn an_open_quote_does_not_hide_the_rows_after_it() {
        for rows in ["1,2,-1,\"\r\n3,4,0,,,,30\r\n", "1,2,-1,\"\n", "\"1,2,-1,\n3,4,0,,,,30\n5,6,0,,,,30\n"] {
            assert_eq!(error(&format!("{HEADER}{rows}")), "line 2: a quoted field runs over the end of the line");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_do_not_hide_the_rest() {
        let text = [HEADER.as_bytes(), b"1,2,\xff,,,,30\n1,3,0,\xb5,,,30\n"].concat();
        let table = parse_roi_tiles(&text, &sections()).expect("a good table");
        assert_eq!(table.warnings, ["line 2: \"\u{fffd}\" is no inclusion, row skipped"]);
        assert_eq!(table.tiles, [RoiTileRow { col: 1, row: 3, roi: 0 }]);
    }
}

//! Images of tiles and mosaics: the pixels are those of the source, holes are transparent, what can not be shown says
//! why, and the cache may vanish, rot or be too small at any time.

use super::support::{Daemon, LOG, await_ok, data_dir};
use super::web::{Answer, ask, create_rois, get, name, put};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use tilecatcher::formats::{encode_gray8, encode_gray16};

const ACQ: u64 = 123;
const SIDE: u32 = 256;

/// An image, as (grey, alpha) by column and row.
struct Shown {
    width: u32,
    height: u32,
    pixels: Vec<(u8, u8)>,
}

impl Shown {
    fn of(answer: Answer) -> Self {
        let answer = answer.with(200);
        assert_eq!(answer.header("content-type"), Some("image/png"));
        let mut reader = png::Decoder::new(Cursor::new(&answer.body)).read_info().expect("a PNG");
        let mut samples = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut samples).expect("an image");
        let pixels = match info.color_type {
            png::ColorType::Grayscale => samples.iter().map(|grey| (*grey, 255)).collect(),
            png::ColorType::GrayscaleAlpha => samples.chunks(2).map(|pair| (pair[0], pair[1])).collect(),
            other => panic!("{other:?}"),
        };
        Self { width: info.width, height: info.height, pixels }
    }

    fn at(&self, x: u32, y: u32) -> (u8, u8) {
        self.pixels[(y * self.width + x) as usize]
    }

    fn greys(&self) -> Vec<u8> {
        self.pixels.iter().map(|(grey, _)| *grey).collect()
    }
}

fn flat(grey: u8) -> Vec<u8> {
    encode_gray8(64, 48, &[grey; 64 * 48]).expect("an image")
}

fn image(col: u32, row: u32, query: &str) -> String {
    format!("/api/v1/acquisitions/{ACQ}/tile/{col}/{row}/image?{query}")
}

fn thumbnail(level: u32, x: u32, y: u32) -> String {
    format!("/api/v1/acquisitions/{ACQ}/thumbnails/{level}/{x}/{y}")
}

/// An answer that is no "come again".
fn made(daemon: &Daemon, path: &str) -> Answer {
    await_ok(|| Some(get(daemon, path)).filter(|answer| answer.status != 503).ok_or(path))
}

fn cached(data: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, found),
                path => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&data.join("cache"), &mut found);
    found
}

#[test]
fn a_tile_is_shown_pixel_by_pixel_smaller_cut_out_and_stretched() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let pixels: Vec<u8> = (0..100u32 * 80).map(|n| u8::try_from((n % 100) + (n / 100)).expect("small")).collect();
    let id = put(&daemon, ACQ, &name(1, 2), &encode_gray8(100, 80, &pixels).expect("an image"));

    let whole = Shown::of(made(&daemon, &format!("/api/v1/tiles/{id}/image")));
    assert_eq!((whole.width, whole.height, whole.greys()), (100, 80, pixels.clone()));
    assert_eq!(Shown::of(made(&daemon, &image(1, 2, ""))).greys(), pixels);

    let small = Shown::of(made(&daemon, &image(1, 2, "size=50")));
    assert_eq!((small.width, small.height), (50, 40));
    // The mean of 2 x 2: (x + y) at even places, plus 1.
    for (x, y) in [(0, 0), (49, 0), (7, 31), (49, 39)] {
        assert_eq!(u32::from(small.at(x, y).0), 2 * x + 2 * y + 1, "{x} {y}");
    }

    let part = Shown::of(made(&daemon, &image(1, 2, "region=10,20,3,2")));
    assert_eq!((part.width, part.height, part.greys()), (3, 2, vec![30, 31, 32, 31, 32, 33]));
    let stretched = Shown::of(made(&daemon, &image(1, 2, "region=0,0,100,1&contrast=0-50")));
    assert_eq!((stretched.at(0, 0).0, stretched.at(25, 0).0, stretched.at(60, 0).0), (0, 128, 255));
    let auto = Shown::of(made(&daemon, &image(1, 2, "contrast=auto")));
    assert_eq!((auto.at(0, 0).0, auto.at(99, 79).0), (0, 255));

    let wide: Vec<u16> = (0..64 * 64).map(|n| 1000 + n % 64).collect();
    put(&daemon, ACQ, &name(3, 3), &encode_gray16(64, 64, &wide).expect("an image"));
    let wide = Shown::of(made(&daemon, &image(3, 3, "")));
    assert_eq!((wide.at(0, 5).0, wide.at(63, 5).0), (0, 255), "16 bits are stretched where nothing is said");
    assert_eq!(Shown::of(made(&daemon, &image(3, 3, "contrast=none"))).at(0, 0).0, 4);
    daemon.stop();
}

#[test]
fn what_can_not_be_shown_says_why() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let id = put(&daemon, ACQ, &name(0, 0), b"no image at all");
    for path in [format!("/api/v1/tiles/{id}/image"), image(0, 0, "size=5"), thumbnail(0, 0, 0)] {
        for _ in 0..2 {
            assert!(made(&daemon, &path).refused(422).contains("not a TIFF"), "{path}");
        }
    }
    // A TIFF of a hundred bytes that says it has 60000 x 4000 pixels, and one cut in the middle.
    let mut liar = flat(9);
    let width = liar.windows(4).rposition(|window| window == 64u32.to_le_bytes()).expect("the width");
    liar[width..width + 4].copy_from_slice(&60_000u32.to_le_bytes());
    put(&daemon, ACQ, &name(1, 0), &liar);
    made(&daemon, &image(1, 0, "size=9")).refused(422);
    let whole = flat(9);
    put(&daemon, ACQ, &name(2, 0), &whole[..whole.len() / 2]);
    assert!(made(&daemon, &image(2, 0, "")).refused(422).contains("damaged"));

    put(&daemon, ACQ, &name(3, 0), &flat(200));
    for bad in ["size=0", "size=many", "contrast=9-3", "region=1,2,3", "region=60,40,5,9", "region=0,0,0,1"] {
        made(&daemon, &image(3, 0, bad)).refused(400);
    }
    for missing in [image(9, 9, ""), thumbnail(0, 9, 9), thumbnail(2, 1, 0), "/api/v1/tiles/999/image".to_owned()] {
        made(&daemon, &missing).refused(404);
    }
    made(&daemon, &thumbnail(32, 0, 0)).refused(400);
    made(&daemon, "/api/v1/acquisitions/77/thumbnails/0/0/0").refused(404);
    // Tiles that can not be shown are holes in what is.
    let mosaic = Shown::of(made(&daemon, &thumbnail(2, 0, 0)));
    assert_eq!([mosaic.at(5, 5), mosaic.at(200, 5), mosaic.at(5, 200)], [(0, 0), (200, 255), (0, 0)]);
    daemon.stop();
}

#[test]
fn a_mosaic_shows_its_tiles_where_they_are_and_changes_when_one_does() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for (col, row, grey) in [(0, 0, 10), (1, 0, 20), (1, 1, 30), (2, 3, 40)] {
        put(&daemon, ACQ, &name(col, row), &flat(grey));
    }
    let one = Shown::of(made(&daemon, &thumbnail(0, 1, 1)));
    assert_eq!((one.width, one.height), (SIDE, SIDE));
    assert!(one.pixels.iter().all(|pixel| *pixel == (30, 255)));
    let four = Shown::of(made(&daemon, &thumbnail(1, 0, 0)));
    assert_eq!(
        [four.at(9, 9), four.at(200, 9), four.at(9, 200), four.at(200, 200)],
        [(10, 255), (20, 255), (0, 0), (30, 255)]
    );
    let top = made(&daemon, &thumbnail(2, 0, 0));
    let etag = top.header("etag").expect("a tag").to_owned();
    let all = Shown::of(top);
    assert_eq!(
        [all.at(9, 9), all.at(100, 9), all.at(150, 250), all.at(250, 250)],
        [(10, 255), (20, 255), (40, 255), (0, 0)]
    );
    let higher = Shown::of(made(&daemon, &thumbnail(3, 0, 0)));
    assert_eq!([higher.at(4, 4), higher.at(75, 125), higher.at(129, 129)], [(10, 255), (40, 255), (0, 0)]);

    let held = ask(&daemon, "GET", &thumbnail(2, 0, 0), &format!("If-None-Match: {etag}\r\n"), b"").with(304);
    assert_eq!(held.header("etag"), Some(etag.as_str()));
    // A new tile in a hole, another content for a tile: what shows them is another image, the rest is not.
    let other = made(&daemon, &thumbnail(0, 0, 0)).header("etag").map(str::to_owned);
    put(&daemon, ACQ, &name(0, 1), &flat(50));
    put(&daemon, ACQ, &name(1, 1), &flat(60));
    let changed = made(&daemon, &thumbnail(2, 0, 0));
    assert_ne!(changed.header("etag"), Some(etag.as_str()));
    let changed = Shown::of(changed);
    assert_eq!([changed.at(9, 9), changed.at(9, 100), changed.at(100, 100)], [(10, 255), (50, 255), (60, 255)]);
    assert_eq!(made(&daemon, &thumbnail(0, 0, 0)).header("etag").map(str::to_owned), other);
    daemon.stop();
}

#[test]
fn a_mosaic_of_one_section_or_camera_shows_its_tiles_only() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    put(&daemon, ACQ, &name(0, 0), &flat(10));
    put(&daemon, ACQ, &name(1, 0), &flat(20));
    put(&daemon, ACQ, "col0001_row0001_cam2.tif", &flat(30));
    let of = |query: &str| Shown::of(made(&daemon, &format!("{}?{query}", thumbnail(1, 0, 0))));
    let corners = |shown: &Shown| [shown.at(9, 9), shown.at(200, 9), shown.at(200, 200)];
    assert_eq!(corners(&of("")), [(10, 255), (20, 255), (30, 255)]);
    assert_eq!(corners(&of("camera=2")), [(0, 0), (0, 0), (30, 255)]);
    made(&daemon, &format!("{}?section=5", thumbnail(1, 0, 0))).refused(404);
    create_rois(&daemon, ACQ, &[("5", &[(0, 0), (1, 1)])]).with(200);
    assert_eq!(corners(&of("section=5")), [(10, 255), (0, 0), (30, 255)]);
    made(&daemon, &format!("{}?section=5&camera=3", thumbnail(1, 0, 0))).refused(404);
    daemon.stop();
}

#[test]
fn the_cache_may_be_deleted_damaged_or_too_small_at_any_time() {
    let data = data_dir();
    let settings = ["preview.cache=1MiB"];
    let daemon = Daemon::start(data.path(), &settings);
    for (col, row) in (0..4).flat_map(|col| (0..4).map(move |row| (col, row))) {
        put(&daemon, ACQ, &name(col, row), &flat(u8::try_from(10 * col + row).expect("small")));
    }
    let pixels = Shown::of(made(&daemon, &thumbnail(2, 0, 0))).pixels;
    let same = |daemon: &Daemon| assert!(Shown::of(made(daemon, &thumbnail(2, 0, 0))).pixels == pixels);
    assert!(cached(data.path()).len() > 16);
    for (n, path) in cached(data.path()).iter().enumerate() {
        let mut bytes = std::fs::read(path).expect("a file");
        let at = bytes.len() * n / 40;
        bytes[at] ^= 0x40;
        std::fs::write(path, bytes).expect("written");
    }
    same(&daemon);
    cached(data.path()).iter().for_each(|path| std::fs::write(path, b"").expect("written"));
    same(&daemon);
    std::fs::remove_dir_all(data.path().join("cache")).expect("removed");
    same(&daemon);
    daemon.kill();
    // What is found at a start is used, and counted.
    let daemon = Daemon::start_bare(data.path(), &settings);
    same(&daemon);
    daemon.await_metric_that("tilecatcher_preview_cache_bytes", |bytes| bytes > 0.0 && bytes <= 1_048_576.0);
    let deleted = ask(&daemon, "DELETE", &format!("/service/v1/acquisition/{ACQ}?confirm={ACQ}"), "", b"");
    deleted.with(200);
    daemon.await_metric("tilecatcher_preview_cache_bytes", 0.0);
    assert_eq!(cached(data.path()), Vec::<PathBuf>::new());
    made(&daemon, &thumbnail(2, 0, 0)).refused(404);
    // The same places taken anew: nothing of what they showed is left.
    daemon.http.start_acquisition("123_8x8_logfile.ini", LOG.as_bytes()).expect("started");
    put(&daemon, ACQ, &name(0, 0), &flat(77));
    assert_eq!(Shown::of(made(&daemon, &thumbnail(2, 0, 0))).at(3, 3), (77, 255));
    daemon.stop();
}

#[test]
fn previews_that_are_switched_off_or_whose_decoder_panics_leave_the_rest_alone() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["preview.threads=0"]);
    put(&daemon, ACQ, &name(0, 0), &flat(1));
    assert!(get(&daemon, &image(0, 0, "")).refused(503).contains("preview.threads"));
    assert!(get(&daemon, &thumbnail(0, 0, 0)).refused(503).contains("preview.threads"));
    daemon.stop();
    let mut command = super::support::command(data.path(), &["log.level=off"]);
    command.env("CATCHER_FAILPOINT", "preview:1");
    let daemon = Daemon::run(command).may_panic();
    assert!(made(&daemon, &image(0, 0, "")).refused(422).contains("failed inside"));
    made(&daemon, &image(0, 0, "")).with(200);
    put(&daemon, ACQ, &name(0, 1), &flat(1));
    daemon.stop();
}

/// A page that opens: all it shows at once, while a microscope sends.
#[test]
fn two_hundred_thumbnails_at_once_hold_up_no_tile() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for n in 0..200 {
        put(&daemon, ACQ, &name(n % 20, n / 20), &flat(u8::try_from(n).expect("below 256")));
    }
    std::thread::scope(|scope| {
        for n in 0..200 {
            let daemon = &daemon;
            scope.spawn(move || {
                let shown = Shown::of(made(daemon, &thumbnail(0, n % 20, n / 20)));
                assert_eq!(shown.at(128, 128), (u8::try_from(n).expect("below 256"), 255));
            });
        }
        let mut connection = daemon.connect();
        (100..140).for_each(|col| connection.assert_works(col));
    });
    daemon.stop();
}

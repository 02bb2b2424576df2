//! The built binary where writes are cut short or interrupted, all the time: nobody sees it.

use super::{assert_stored, build_faults, has, send_ahead, succeeds, through};
use crate::support::{Daemon, command, data_dir, program};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const TILES: u32 = 200;

/// What `faults.c` did so far: writes below its directory.
#[derive(Debug, Default)]
struct Counts {
    seen: u64,
    interrupted: u64,
    /// Shortened ones of the call that the journal writes with.
    pwritev: u64,
    /// Shortened ones of pwrite64, writev and write.
    others: u64,
}

/// Runs programs whose writes below a directory are cut short.
struct Shortener {
    tools: TempDir,
    program: PathBuf,
    /// As the kernel tells it.
    dir: PathBuf,
}

impl Shortener {
    fn new() -> Option<Self> {
        let tools = data_dir();
        let program = build_faults(tools.path())?;
        let dir = tools.path().join("data");
        std::fs::create_dir(&dir).expect("a directory");
        let made = Self { program, dir: dir.canonicalize().expect("a path"), tools };
        has("seccomp's notifications", made.works()).then_some(made)
    }

    fn works(&self) -> bool {
        let mut copy = Command::new("/bin/dd");
        copy.args(["if=/dev/zero", "bs=100k", "count=5"]).arg(format!("of={}", self.dir.join("trial").display()));
        succeeds(&mut through(self.command(), &copy)) && self.counts().others > 0
    }

    fn counts_file(&self) -> PathBuf {
        self.tools.path().join("counts")
    }

    /// To be given a program.
    fn command(&self) -> Command {
        let _ = std::fs::remove_file(self.counts_file());
        let mut faults = Command::new(&self.program);
        faults.arg("short").arg(self.counts_file()).arg(&self.dir);
        faults
    }

    fn counts(&self) -> Counts {
        let bytes = std::fs::read(self.counts_file()).unwrap_or_default();
        let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
        match words.collect::<Vec<_>>().as_slice() {
            [seen, interrupted, pwritev, others @ ..] => {
                Counts { seen: *seen, interrupted: *interrupted, pwritev: *pwritev, others: others.iter().sum() }
            }
            _ => Counts::default(),
        }
    }
}

/// Tiles to a daemon whose writes are cut short; all are acknowledged, and there afterwards.
fn takes_no_notice(shortener: &Shortener, data: &Path, is_cached: bool) {
    // Small segments, so that some are sealed, too.
    let mut plain = command(data, &["storage.segment_size=1MiB", "log.level=warn"]);
    if is_cached {
        let mut cached = Command::new(&shortener.program);
        cached.arg("cached");
        plain = through(cached, &plain);
    }
    let daemon = Daemon::run(through(shortener.command(), &plain));
    daemon.start_acquisition();
    let sent = send_ahead(&daemon, 0, 0..TILES);
    assert_eq!(sent.len(), TILES as usize, "{}", daemon.log());
    assert!(!is_cached || daemon.log().contains("refuses O_DIRECT"), "{}", daemon.log());
    daemon.stop();
    let counts = shortener.counts();
    eprintln!("page cache {is_cached}: {counts:?}");
    let is_enough = counts.seen > 50 && counts.pwritev > 20 && counts.others > 0 && counts.interrupted > 5;
    assert!(is_enough, "the test shows nothing: {counts:?}");
    let daemon = Daemon::start_bare(data, &[]);
    assert_stored(&daemon, 0, &sent);
    daemon.stop();
    let verified = program().args(["verify", "--data"]).arg(data).output().expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn writes_that_are_cut_short_are_not_seen() {
    let Some(shortener) = Shortener::new() else { return };
    takes_no_notice(&shortener, &shortener.dir.join("direct"), false);
    takes_no_notice(&shortener, &shortener.dir.join("cached"), true);
}

//! Profiles: who sends what and when. Some are part of the program; `profile_file` reads their TOML.
//!
//! Owns what a profile is and what may stand in one. Must never let one through that can not be sent.

use super::profile_file::parse_file;
use super::sizes::TileSizes;
use crate::base::units::ByteSize;
use crate::client::ChecksumChoice;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The profiles that are part of the program: name and text.
pub const EMBEDDED: [(&str, &str); 5] = [
    ("temca2", include_str!("../../deploy/profiles/temca2.toml")),
    ("gridtape", include_str!("../../deploy/profiles/gridtape.toml")),
    ("piteam", include_str!("../../deploy/profiles/piteam.toml")),
    ("multisem", include_str!("../../deploy/profiles/multisem.toml")),
    ("lightsheet", include_str!("../../deploy/profiles/lightsheet.toml")),
];

/// Bounds of what can be asked for: a slip of the keyboard should not take the machine.
const SENDERS_MAX: u32 = 10_000;
const CONNECTIONS_MAX: u32 = 1024;
const WINDOW_MAX: u32 = 4096;
const TILE_BYTES_MAX: u64 = 256 << 20;

/// Who sends what and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// Where the figures come from.
    pub source: String,
    /// Figures that come from nowhere.
    pub assumption: String,
    /// Who waits for whom.
    pub mode: Mode,
    /// When tiles are due.
    pub timing: Timing,
    /// Groups of equal senders.
    pub senders: Vec<SenderGroup>,
}

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Tiles are due by the clock, whatever the server does.
    Open,
    /// Each connection always has a window of tiles in flight.
    Closed,
}

/// How tiles follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// At random, independent of one another.
    Poisson,
}

/// How the senders of a group begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Spread over a period.
    Spread,
    /// All at once.
    Together,
}

/// When tiles are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// How they follow one another.
    pub arrivals: Arrivals,
    /// How the senders of a group begin.
    pub phase: Phase,
    /// How the rate grows at the beginning.
    pub ramp: Option<Ramp>,
    /// Send for the first, pause for the second, and so on.
    pub run_and_break: Option<(Duration, Duration)>,
}

/// A share of the rate that grows linearly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Share at the beginning.
    pub from: f64,
    /// Share at its end and from then on.
    pub to: f64,
    /// How long it takes.
    pub over: Duration,
}

/// Equal senders.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderGroup {
    /// Its name.
    pub name: String,
    /// How many.
    pub count: u32,
    /// Lengths of tiles.
    pub sizes: TileSizes,
    /// Bursts a second of each sender.
    pub bursts_per_s: f64,
    /// Tiles that are due at once.
    pub burst: u32,
    /// Cameras of each.
    pub cameras: u32,
    /// Checksum of each tile.
    pub checksum: ChecksumChoice,
    /// Connections of each.
    pub connections: u32,
    /// Most tiles in flight on each connection.
    pub window: u32,
    /// What tiles hold.
    pub content: Content,
}

/// What tiles hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Incompressible bytes.
    Noise,
    /// A TIFF with incompressible pixels.
    Tiff,
}

/// Why a profile can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No profile of this name, and no such file.
    #[error("there is no profile \"{name}\" and no such file; known are {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file can not be read.
    #[error("profile {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// What it says can not be.
    #[error("profile {name}: {problem}")]
    Bad {
        /// Name or file.
        name: String,
        /// Line or key, and what is wrong with it.
        problem: String,
    },
}

/// Names of the profiles that are part of the program.
#[must_use]
pub fn names() -> Vec<&'static str> {
    EMBEDDED.iter().map(|(name, _)| *name).collect()
}

impl Profile {
    /// The profile of this name, or in this file.
    ///
    /// # Errors
    /// There is none, or it can not be used.
    pub fn load(name_or_file: &str) -> Result<Self, ProfileError> {
        let text = Self::text(name_or_file)?;
        Self::parse(&text).map_err(|problem| ProfileError::Bad { name: name_or_file.to_owned(), problem })
    }

    /// The text of the profile of this name, or in this file.
    ///
    /// # Errors
    /// There is none, or it can not be read.
    pub fn text(name_or_file: &str) -> Result<String, ProfileError> {
        if let Some((_, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_file) {
            return Ok((*text).to_owned());
        }
        let path = Path::new(name_or_file);
        if !path.exists() {
            return Err(ProfileError::Unknown { name: name_or_file.to_owned() });
        }
        let text = std::fs::read_to_string(path);
        text.map_err(|source| ProfileError::File { path: name_or_file.to_owned(), source })
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// What is wrong, with its line or key.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_file(text)
    }

    /// Tiles a second of all senders while they run, after the ramp.
    #[must_use]
    pub fn tiles_per_s(&self) -> f64 {
        self.senders.iter().map(SenderGroup::tiles_per_s).sum()
    }

    /// Bytes a second of all senders while they run, after the ramp.
    #[must_use]
    pub fn bytes_per_s(&self) -> f64 {
        self.senders.iter().map(|group| group.tiles_per_s() * group.sizes.mean()).sum()
    }

    /// Makes every sender this much faster.
    pub fn speed_up(&mut self, factor: f64) {
        self.senders.iter_mut().for_each(|group| group.bursts_per_s *= factor);
    }

    /// Checks what can have been changed since it was read.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.senders.is_empty() {
            return Err("there is no [[sender]]".to_owned());
        }
        let ramp = self.timing.ramp.iter().flat_map(|ramp| [ramp.from, ramp.to]);
        if ramp.clone().any(|share| !(0.0..=1000.0).contains(&share)) || self.timing.ramp.is_some_and(|r| r.to <= 0.0) {
            return Err("ramp: shares of the rate, from 0, to above 0".to_owned());
        }
        if self.timing.run_and_break.is_some_and(|(run, _)| run.is_zero()) {
            return Err("run: must be above 0".to_owned());
        }
        self.senders
            .iter()
            .try_for_each(|group| group.check().map_err(|what| format!("sender \"{}\": {what}", group.name)))
    }
}

impl SenderGroup {
    /// Tiles a second of all senders of the group.
    #[must_use]
    pub fn tiles_per_s(&self) -> f64 {
        f64::from(self.count) * self.bursts_per_s * f64::from(self.burst)
    }

    fn check(&self) -> Result<(), String> {
        let counts = [
            ("count", self.count, SENDERS_MAX),
            ("burst", self.burst, SENDERS_MAX),
            ("cameras", self.cameras, 1024),
            ("connections", self.connections, CONNECTIONS_MAX),
            ("window", self.window, WINDOW_MAX),
        ];
        for (key, n, most) in counts {
            if n == 0 || n > most {
                return Err(format!("{key} = {n}: 1 to {most}"));
            }
        }
        if !(self.bursts_per_s > 0.0 && self.bursts_per_s <= 1e6) {
            return Err("period or rate: above 0, and at most 1000000 a second".to_owned());
        }
        let strata = self.sizes.strata(64);
        let least = if self.content == Content::Tiff { 1024 } else { 1 };
        if strata.iter().any(|bytes| !(least..=TILE_BYTES_MAX).contains(bytes)) {
            return Err(format!("tile_bytes: {least} B to {}", ByteSize(TILE_BYTES_MAX)));
        }
        Ok(())
    }
}

/// The name of a checksum, as profiles and flags have it.
#[must_use]
pub fn checksum_name(choice: ChecksumChoice) -> &'static str {
    match choice {
        ChecksumChoice::None => "none",
        ChecksumChoice::Crc32 => "crc32",
        ChecksumChoice::Md5 => "md5",
        ChecksumChoice::Sha1 => "sha1",
        ChecksumChoice::Sha256 => "sha256",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: &str = "[[sender]]\nname = \"a\"\ntile_bytes = \"1MB\"\nperiod = \"100ms\"\n";

    fn with(head: &str, sender: &str) -> String {
        format!("name = \"x\"\nassumption = \"all\"\n{head}\n{sender}")
    }

    fn problem(text: &str) -> String {
        Profile::parse(text).expect_err("a bad profile")
    }

    /// What each profile is meant to come to, apart from what its file says.
    #[test]
    fn every_embedded_profile_comes_to_the_rates_of_its_microscope() {
        let expected = [
            ("temca2", 8.0 / 0.15 + 4.0, 8.0 / 0.15 * 5.3 + 80.0),
            ("gridtape", 100.0, 500.0),
            ("piteam", 187.5, 3000.0),
            ("multisem", 91.0 / 0.114, 91.0 / 0.114 * 1.5),
            ("lightsheet", 100.0, 838.8608),
        ];
        assert_eq!(names(), expected.map(|(name, ..)| name));
        for ((name, text), (_, tiles_per_s, mb_per_s)) in EMBEDDED.iter().zip(expected) {
            let profile = Profile::parse(text).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            assert_eq!(profile.name, *name);
            assert!((profile.tiles_per_s() - tiles_per_s).abs() < 0.01, "{name}: {}", profile.tiles_per_s());
            assert!((profile.bytes_per_s() / 1e6 - mb_per_s).abs() < 0.1, "{name}: {}", profile.bytes_per_s());
            for key in ["tiles_per_s = ", "mb_per_s = "] {
                assert!(text.contains(key), "{name} does not state {key}");
            }
        }
    }

    #[test]
    fn bad_toml_is_named_with_its_line_and_key() {
        assert_eq!(problem("name = \"x\"\nmode ="), "line 2: string values must be quoted, expected literal string");
        let unknown = problem(&with("speed = 3", SENDER));
        assert!(unknown.starts_with("line 3: unknown field `speed`"), "{unknown}");
        let size = problem(&with("", "[[sender]]\nname = \"a\"\ntile_bytes = \"1.5MB\"\nperiod = \"1s\"\n"));
        assert!(size.starts_with("line 6: \"1.5MB\" is no size"), "{size}");
        let time = problem(&with("", "[[sender]]\nname = \"a\"\ntile_bytes = \"1MB\"\nperiod = \"5\"\n"));
        assert!(time.starts_with("line 7: \"5\" is no time"), "{time}");
    }

    #[test]
    fn what_can_not_be_is_refused_with_the_key() {
        for (text, part) in [
            (with("", ""), "no [[sender]]"),
            ("name = \"x\"\n".to_owned() + SENDER, "source"),
            (with("run = \"1s\"", SENDER), "run and break"),
            (with("tiles_per_s = 12.0", SENDER), "tiles_per_s = 12, but the senders come to 10.00"),
            (with("", &(SENDER.to_owned() + "rate = 4.0\n")), "one of period and rate"),
            (with("", &(SENDER.to_owned() + "window = 0\n")), "window = 0"),
            (with("", &SENDER.replace("\"1MB\"", "\"0B\"")), "tile_bytes"),
            (with("", &SENDER.replace("\"100ms\"", "\"0s\"")), "period or rate"),
            (with("", &SENDER.replace("tile_bytes = \"1MB\"\n", "")), "one of tile_bytes"),
            (with("ramp = { from = 0.5, to = 0.0, over = \"1s\" }", SENDER), "ramp"),
        ] {
            let problem = problem(&text);
            assert!(problem.contains(part), "{problem:?} does not say {part:?}");
        }
    }

    #[test]
    fn distributions_ramps_and_breaks_are_read() {
        let senders = "[[sender]]\nname = \"a\"\ntile_bytes_mixture = [[\"1MB\", 3.0], [\"5MB\", 1.0]]\nrate = 8.0\nburst = 4\n\
            [[sender]]\nname = \"b\"\ntile_bytes_normal = [\"5MB\", \"500kB\"]\nrate = 1.0\nchecksum = \"md5\"\n";
        let head = "run = \"600s\"\nbreak = \"60s\"\nmode = \"closed\"\narrivals = \"poisson\"\n\
            ramp = { from = 0.1, to = 1.0, over = \"10s\" }";
        let profile = Profile::parse(&with(head, senders)).expect("a good profile");
        assert_eq!((profile.mode, profile.timing.arrivals), (Mode::Closed, Arrivals::Poisson));
        assert_eq!(profile.timing.run_and_break, Some((Duration::from_secs(600), Duration::from_secs(60))));
        assert_eq!((profile.senders[0].bursts_per_s, profile.tiles_per_s()), (2.0, 9.0));
        assert_eq!(profile.bytes_per_s(), 8.0 * 2e6 + 5e6);
        assert_eq!(profile.senders[1].checksum, ChecksumChoice::Md5);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Profile::load("temca9").expect_err("unknown").to_string();
        assert!(error.contains("temca2, gridtape, piteam, multisem, lightsheet"), "{error}");
    }
}

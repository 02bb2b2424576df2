//! A profile as a TOML file.
//!
//! Owns keys, defaults and units; every problem is named with its line or key. Must never let a profile through that does
//! not come to the rates that it states.

use super::profile::{Arrivals, Content, Mode, Phase, Profile, Ramp, SenderGroup, Timing};
use super::sizes::TileSizes;
use crate::base::units::{ByteSize, Span};
use crate::client::ChecksumChoice;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// What a profile states may differ from what it comes to.
const TOLERANCE: f64 = 0.01;

/// Reads a profile.
pub(super) fn parse_file(text: &str) -> Result<Profile, String> {
    let file: ProfileFile = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        let at = line.map_or(String::new(), |line| format!("line {line}: "));
        format!("{at}{}", error.message().lines().next().unwrap_or_default())
    })?;
    file.checked()
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    assumption: String,
    tiles_per_s: Option<f64>,
    mb_per_s: Option<f64>,
    #[serde(default = "open")]
    mode: Mode,
    #[serde(default = "constant")]
    arrivals: Arrivals,
    #[serde(default = "spread")]
    phase: Phase,
    run: Option<Time>,
    #[serde(rename = "break")]
    pause: Option<Time>,
    ramp: Option<RampFile>,
    #[serde(default)]
    sender: Vec<SenderFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RampFile {
    from: f64,
    to: f64,
    over: Time,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SenderFile {
    name: String,
    #[serde(default = "one")]
    count: u32,
    tile_bytes: Option<Size>,
    tile_bytes_uniform: Option<(Size, Size)>,
    tile_bytes_normal: Option<(Size, Size)>,
    tile_bytes_mixture: Option<Vec<(Size, f64)>>,
    period: Option<Time>,
    rate: Option<f64>,
    #[serde(default = "one")]
    burst: u32,
    #[serde(default = "one")]
    cameras: u32,
    #[serde(default)]
    checksum: NamedChecksum,
    #[serde(default = "one")]
    connections: u32,
    #[serde(default = "two")]
    window: u32,
    #[serde(default = "noise")]
    content: Content,
}

fn open() -> Mode {
    Mode::Open
}

fn constant() -> Arrivals {
    Arrivals::Constant
}

fn spread() -> Phase {
    Phase::Spread
}

fn noise() -> Content {
    Content::Noise
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let size: ByteSize = String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(size.0))
    }
}

struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let span: Span = String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(span.0))
    }
}

struct NamedChecksum(ChecksumChoice);

impl Default for NamedChecksum {
    fn default() -> Self {
        Self(ChecksumChoice::Crc32)
    }
}

impl<'de> Deserialize<'de> for NamedChecksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl ProfileFile {
    fn checked(self) -> Result<Profile, String> {
        if self.source.is_empty() && self.assumption.is_empty() {
            return Err("say in \"source\" or \"assumption\" where the figures come from".to_owned());
        }
        let run_and_break = match (self.run, self.pause) {
            (Some(run), Some(pause)) => Some((run.0, pause.0)),
            (None, None) => None,
            _ => return Err("run and break: both or none".to_owned()),
        };
        let ramp = self.ramp.map(|RampFile { from, to, over }| Ramp { from, to, over: over.0 });
        let timing = Timing { arrivals: self.arrivals, phase: self.phase, ramp, run_and_break };
        let senders = self.sender.into_iter().map(SenderFile::group).collect::<Result<Vec<_>, String>>()?;
        let (tiles_per_s, mb_per_s) = (self.tiles_per_s, self.mb_per_s);
        let (name, about, source, assumption, mode) = (self.name, self.about, self.source, self.assumption, self.mode);
        let profile = Profile { name, about, source, assumption, mode, timing, senders };
        profile.check()?;
        check_stated("tiles_per_s", tiles_per_s, profile.tiles_per_s())?;
        check_stated("mb_per_s", mb_per_s, profile.bytes_per_s() / 1e6)?;
        Ok(profile)
    }
}

fn check_stated(key: &str, stated: Option<f64>, real: f64) -> Result<(), String> {
    match stated {
        Some(stated) if (stated - real).abs() > TOLERANCE * real => {
            Err(format!("{key} = {stated}, but the senders come to {real:.2}: correct the one or the other"))
        }
        _ => Ok(()),
    }
}

impl SenderFile {
    fn group(self) -> Result<SenderGroup, String> {
        let sizes = self.sizes()?;
        let bad = |what: &str| Err(format!("sender \"{}\": {what}", self.name));
        let bursts_per_s = match (&self.period, self.rate) {
            (Some(period), None) => 1.0 / period.0.as_secs_f64(),
            (None, Some(rate)) => rate / f64::from(self.burst),
            _ => return bad("one of period and rate"),
        };
        Ok(SenderGroup {
            name: self.name,
            count: self.count,
            sizes,
            bursts_per_s,
            burst: self.burst,
            cameras: self.cameras,
            checksum: self.checksum.0,
            connections: self.connections,
            window: self.window,
            content: self.content,
        })
    }

    fn sizes(&self) -> Result<TileSizes, String> {
        let fixed = self.tile_bytes.as_ref().map(|size| TileSizes::Fixed(size.0));
        let uniform = self.tile_bytes_uniform.as_ref().map(|(least, most)| TileSizes::Uniform(least.0, most.0));
        let normal = self.tile_bytes_normal.as_ref().map(|(mean, sd)| TileSizes::Normal(mean.0, sd.0));
        let parts = |parts: &Vec<(Size, f64)>| parts.iter().map(|(size, weight)| (size.0, *weight)).collect();
        let mixture = self.tile_bytes_mixture.as_ref().map(|mixed| TileSizes::Mixture(parts(mixed)));
        let mut given = [fixed, uniform, normal, mixture].into_iter().flatten();
        let wrong = |what: &str| Err(format!("sender \"{}\": {what}", self.name));
        match (given.next(), given.next()) {
            (Some(TileSizes::Uniform(least, most)), None) if least > most => {
                wrong("tile_bytes_uniform: least, then most")
            }
            (Some(TileSizes::Mixture(parts)), None) if parts.is_empty() || !parts.iter().all(|part| part.1 > 0.0) => {
                wrong("tile_bytes_mixture: lengths with weights above 0")
            }
            (Some(sizes), None) => Ok(sizes),
            _ => wrong("one of tile_bytes, tile_bytes_uniform, tile_bytes_normal and tile_bytes_mixture"),
        }
    }
}

//! `simulate`: writes what a microscope would.

use super::replies::{megabytes, tile_bar};
use super::{BAD_INPUT, Failure, OrExit, Outcome};
use crate::model::{AcqId, CameraCount};
use crate::simulate::{Bits, SimulateOptions, Simulated};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct SimulateArgs {
    /// Directory in which the acquisition folder is made
    dir: PathBuf,
    #[command(flatten)]
    specimen: SpecimenArgs,
}

/// What is simulated.
#[derive(Args, Clone)]
pub(super) struct SpecimenArgs {
    /// Acquisition identifier
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) acq: u64,
    /// Cameras: 1 or 4
    #[arg(long, default_value_t = 4)]
    cameras: u32,
    /// Stage steps, X x Y
    #[arg(long, default_value = "6x4", value_name = "XxY")]
    steps: Pair,
    /// Tile size in pixels, WIDTH x HEIGHT
    #[arg(long, default_value = "2560x2160", value_name = "WxH")]
    size: Pair,
    /// Bits a pixel: 8 or 16
    #[arg(long, default_value_t = 8)]
    bits: u32,
    /// Another seed, another specimen
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Two numbers above 0, written with an x between.
#[derive(Clone, Copy, Debug)]
struct Pair(u32, u32);

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not like 6x4");
        let (a, b) = text.split_once('x').ok_or_else(wrong)?;
        match (a.parse(), b.parse()) {
            (Ok(a), Ok(b)) if a > 0 && b > 0 => Ok(Self(a, b)),
            _ => Err(wrong()),
        }
    }
}

impl SpecimenArgs {
    pub(super) fn options(&self) -> Result<SimulateOptions, Failure> {
        let bad = |what: String| Failure { code: BAD_INPUT, error: anyhow::anyhow!(what) };
        let cameras = match self.cameras {
            1 => CameraCount::One,
            4 => CameraCount::Four,
            other => return Err(bad(format!("--cameras {other}: a TEMCA has 1 or 4"))),
        };
        let bits = match self.bits {
            8 => Bits::Eight,
            16 => Bits::Sixteen,
            other => return Err(bad(format!("--bits {other}: 8 or 16"))),
        };
        let (Pair(x_steps, y_steps), Pair(width, height)) = (self.steps, self.size);
        if u64::from(width) * u64::from(height) > 1 << 28 || u64::from(x_steps) * u64::from(y_steps) > 1 << 20 {
            return Err(bad("--size: at most 2^28 pixels, --steps: at most 2^20".to_owned()));
        }
        Ok(SimulateOptions { acq: AcqId(self.acq), cameras, x_steps, y_steps, width, height, bits, seed: self.seed })
    }
}

/// Simulates with a progress bar.
pub(super) fn simulate_with_bar(dir: &std::path::Path, options: &SimulateOptions) -> Result<Simulated, Failure> {
    let bar = tile_bar("simulate", 0);
    let made = crate::simulate::simulate(dir, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    made.or_exit(BAD_INPUT)
}

pub(super) fn simulate(args: &SimulateArgs) -> Outcome {
    let made = simulate_with_bar(&args.dir, &args.specimen.options()?)?;
    eprintln!("{} tiles, {:.1} MB", made.tiles, megabytes(made.bytes));
    println!("{}", made.folder.display());
    Ok(ExitCode::SUCCESS)
}

//! `replay`: a run and its exit code. Arguments: `replay_args`. What is shown: `replay_view`.

use super::replay_args::{OutputArgs, ReplayArgs};
use super::replay_view::{View, table};
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::base::stop::Stop;
use crate::replay::{EMBEDDED, Profile, ReplayError, Report, html, run as replay, svg};
use std::path::Path;
use std::process::ExitCode;

/// Replays; exit code 1 when something is not as it should be, 3 when the daemon was not there to the end.
pub(super) fn run(args: &ReplayArgs) -> Outcome {
    if args.list_profiles {
        return list_profiles();
    }
    if let Some(name) = &args.print_profile {
        print!("{}", Profile::text(name).or_exit(BAD_INPUT)?);
        return Ok(ExitCode::SUCCESS);
    }
    let plan = args.plan()?;
    args.output.check()?;
    let stop = Stop::default();
    super::signals::watch_signals(&stop).or_exit(COULD_NOT_RUN)?;
    let mut view = View::new(&args.output, plan.duration);
    let replayed = replay(&plan, &stop, &mut |progress| view.show(progress));
    view.clear();
    let mut report = replayed.map_err(|error| Failure { code: exit_code(&error), error: error.into() })?;
    report.expect(&args.expectations());
    args.output.write(&report)?;
    for problem in &report.problems {
        eprintln!("tilecatcher: {problem}");
    }
    Ok(ExitCode::from(match (&report.failure, report.is_good()) {
        (Some(_), _) => COULD_NOT_RUN,
        (None, false) => FOUND_A_PROBLEM,
        (None, true) => 0,
    }))
}

fn exit_code(error: &ReplayError) -> u8 {
    match error {
        ReplayError::Usage(_) | ReplayError::Source(_) => BAD_INPUT,
        ReplayError::Http(_) | ReplayError::Capture(_) | ReplayError::Thread(_) => COULD_NOT_RUN,
    }
}

fn list_profiles() -> Outcome {
    for (name, text) in EMBEDDED {
        let profile =
            Profile::parse(text).map_err(|problem| anyhow::anyhow!("{name}: {problem}")).or_exit(BAD_INPUT)?;
        let (tiles, mb) = (profile.tiles_per_s(), profile.bytes_per_s() / 1e6);
        println!("{name:<11} {tiles:7.1} tiles/s {mb:7.1} MB/s  {}", profile.about);
    }
    Ok(ExitCode::SUCCESS)
}

impl OutputArgs {
    /// Before an hour's run rather than after it: can the files be written?
    fn check(&self) -> Result<(), Failure> {
        let json = self.json.as_deref().filter(|path| *path != Path::new("-"));
        for path in json.into_iter().chain(self.plot.as_deref()) {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
            opened.map_err(|error| anyhow::anyhow!("{}: {error}", path.display())).or_exit(BAD_INPUT)?;
        }
        Ok(())
    }

    fn write(&self, report: &Report) -> Result<(), Failure> {
        let write = |path: &Path, text: String| {
            let written = std::fs::write(path, text);
            written.map_err(|error| anyhow::anyhow!("{}: {error}", path.display())).or_exit(COULD_NOT_RUN)
        };
        let json = || serde_json::to_string_pretty(report).or_exit(COULD_NOT_RUN);
        match self.json.as_deref() {
            Some(path) if path == Path::new("-") => println!("{}", json()?),
            Some(path) => {
                write(path, json()? + "\n")?;
                print!("{}", table(report));
            }
            None => print!("{}", table(report)),
        }
        match self.plot.as_deref() {
            Some(path) if path.extension().is_some_and(|extension| extension == "html") => write(path, html(report)),
            Some(path) => write(path, svg(report)),
            None => Ok(()),
        }
    }
}

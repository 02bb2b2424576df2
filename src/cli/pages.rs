//! `completions` and `man`: what a package installs beside the program, made from the same arguments that it reads.

use super::{BAD_INPUT, COULD_NOT_RUN, Failure, OrExit, Outcome};
use clap::{Args, Command};
use clap_complete::aot::{Shell, generate};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NAME: &str = "tilecatcher";
const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// Shell
    #[arg(value_parser = SHELLS)]
    shell: String,
}

#[derive(Args)]
pub(super) struct ManArgs {
    /// Where the pages go
    dir: PathBuf,
}

/// Prints a shell's completions.
pub(super) fn completions(args: &CompletionsArgs, program: Command) -> Outcome {
    let shell: Shell = args.shell.parse().map_err(|problem: String| anyhow::anyhow!(problem)).or_exit(BAD_INPUT)?;
    let mut text = Vec::new();
    generate(shell, &mut visible(&program), NAME, &mut text);
    std::io::stdout().write_all(&text).or_exit(COULD_NOT_RUN)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for the program and one for each command.
pub(super) fn man(args: &ManArgs, program: Command) -> Outcome {
    write_pages(&args.dir, &shown(program)).map_err(|source| {
        let error = anyhow::anyhow!("{}: {source}; the pages need a directory that can be written", args.dir.display());
        Failure { code: BAD_INPUT, error }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The program without its hidden commands, which completions would offer.
fn visible(program: &Command) -> Command {
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new(NAME).version(env!("CARGO_PKG_VERSION")).subcommands(commands)
}

/// The program with what only a page says.
fn shown(program: Command) -> Command {
    program.disable_help_subcommand(true).after_help(
        "Files: /etc/tilecatcher/config.toml holds the daemon's settings where a package installed it. Environment: \
        TILECATCHER_* variables override the file; `tilecatcher config` names them. Exit codes: 0 ok, 1 found a problem, 2 \
        usage, input or configuration, 3 could not run, 4 storage failed, 5 a fault inside.",
    )
}

fn write_pages(dir: &Path, program: &Command) -> std::io::Result<()> {
    let mut program = program.clone();
    // Gives commands the names that their pages have: `tilecatcher-token-add`.
    program.build();
    std::fs::create_dir_all(dir)?;
    write_page(dir, &program)
}

/// A page for a command and those below it, but for hidden ones.
fn write_page(dir: &Path, command: &Command) -> std::io::Result<()> {
    // The day of a build is no property of the text.
    let page = clap_mangen::Man::new(command.clone()).manual(NAME).date("");
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(dir.join(page.get_filename()), text)?;
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|command| write_page(dir, command))
}

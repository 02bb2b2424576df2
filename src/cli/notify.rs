//! `notify --test`: does a message get through.

use super::settings::ConfigArgs;
use super::{BAD_INPUT, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::notify::{Channels, Message};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct NotifyArgs {
    /// Send a test message to every channel that is configured (notify.*), once, and say what came of it
    #[arg(long, required = true)]
    test: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &NotifyArgs) -> Outcome {
    let config = args.config.load().or_exit(BAD_INPUT)?.config;
    let channels = Channels::load(&config.notify).or_exit(BAD_INPUT)?;
    if channels.is_empty() {
        let error = anyhow::anyhow!(
            "nobody is told anything: set notify.webhook_url, notify.webhook_url_file or notify.mail_server"
        );
        return Err(Failure { code: BAD_INPUT, error });
    }
    let message = Message::test(&config.data.display().to_string());
    let mut is_good = true;
    for (target, outcome) in channels.test(&message) {
        match outcome {
            Ok(answer) => println!("{target}: sent, the server answered {answer}"),
            Err(problem) => {
                is_good = false;
                println!("{target}: NOT sent: {problem}");
            }
        }
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

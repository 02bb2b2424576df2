//! `admin`: what an operator says to a running daemon. One command for each route of `/api/v1/admin`.

use super::http_args::{HttpArgs, failure};
use super::{COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::client::HttpClient;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use std::process::ExitCode;
use std::time::Duration;

const BASE: &str = "/api/v1/admin";
/// Pause between two looks at what takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    at: HttpArgs,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
pub(super) enum AdminCommand {
    /// End the daemon: it answers what is in flight, syncs, seals
    Drain(Common),
    /// Hold tiles back: senders wait, nothing is refused on the capture port
    Pause(Common),
    /// Take tiles again
    Resume(Common),
    /// Say whether tiles are taken
    Capture(Common),
    /// Seal every open segment and go on in new ones
    Rotate(Common),
    /// Start or stop the scrub, or list what is damaged
    #[command(subcommand)]
    Scrub(ScrubCommand),
    /// Check the index against the journal, or build it anew, while the daemon runs
    #[command(subcommand)]
    Index(AdminIndexCommand),
    /// List who sends tiles now
    Senders(Common),
    /// Cut a sender's connection off
    Disconnect {
        /// Its number, as `admin senders` lists it
        id: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Print the log level, or set it
    LogLevel {
        /// off, error, warn, info, debug or trace
        level: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Print the limits that can be changed, or change some
    Limits {
        /// Limits to set
        #[arg(value_name = "KEY=VALUE", value_parser = key_and_value)]
        settings: Vec<(String, String)>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(super) enum ScrubCommand {
    /// Begin a pass now, or go on with the one that was stopped
    Start(Common),
    /// Stop it until it is started
    Stop(Common),
    /// What it does, and which records are damaged; exit code 1 when some are
    Report(Common),
}

#[derive(Subcommand)]
pub(super) enum AdminIndexCommand {
    /// Compare it with what the journal gives; exit code 1 when they differ
    Check(Common),
    /// Build it anew beside the one in use, and swap
    Rebuild(Common),
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is no KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn run(command: &AdminCommand) -> Outcome {
    match command {
        AdminCommand::Drain(common) => post(common, "drain", state_line),
        AdminCommand::Pause(common) => post(common, "capture/pause", state_line),
        AdminCommand::Resume(common) => post(common, "capture/resume", state_line),
        AdminCommand::Capture(common) => get(common, "capture", state_line),
        AdminCommand::Rotate(common) => {
            post(common, "journal/rotate", |answer| format!("{} segments sealed", answer["sealed"]))
        }
        AdminCommand::Scrub(ScrubCommand::Start(common)) => post(common, "scrub/start", scrub_line),
        AdminCommand::Scrub(ScrubCommand::Stop(common)) => post(common, "scrub/stop", scrub_line),
        AdminCommand::Scrub(ScrubCommand::Report(common)) => report(common),
        AdminCommand::Index(AdminIndexCommand::Check(common)) => index(common, "check"),
        AdminCommand::Index(AdminIndexCommand::Rebuild(common)) => index(common, "rebuild"),
        AdminCommand::Senders(common) => get(common, "senders", senders_table),
        AdminCommand::Disconnect { id, common } => {
            let answer = common.at.client()?.delete_path(&format!("{BASE}/senders/{id}")).map_err(failure)?;
            show(common, &answer, |answer| format!("sender {} is cut off", answer["sender"]))
        }
        AdminCommand::LogLevel { level: None, common } => get(common, "log-level", |answer| plain(&answer["level"])),
        AdminCommand::LogLevel { level: Some(level), common } => {
            let body = serde_json::json!({ "level": level });
            put(common, "log-level", &body, |answer| plain(&answer["level"]))
        }
        AdminCommand::Limits { settings, common } if settings.is_empty() => get(common, "limits", limits_table),
        AdminCommand::Limits { settings, common } => {
            let wanted: Map<String, Value> =
                settings.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
            put(common, "limits", &wanted.into(), limits_table)
        }
    }
}

type Print = fn(&Value) -> String;

fn get(common: &Common, path: &str, print: Print) -> Outcome {
    let answer = common.at.client()?.get_json(&format!("{BASE}/{path}")).map_err(failure)?;
    show(common, &answer, print)
}

fn post(common: &Common, path: &str, print: Print) -> Outcome {
    let answer = common.at.client()?.post_path(&format!("{BASE}/{path}")).map_err(failure)?;
    show(common, &answer, print)
}

fn put(common: &Common, path: &str, body: &Value, print: Print) -> Outcome {
    let answer = common.at.client()?.put_json(&format!("{BASE}/{path}"), body).map_err(failure)?;
    show(common, &answer, print)
}

fn show(common: &Common, answer: &Value, print: Print) -> Outcome {
    if common.json {
        println!("{}", serde_json::to_string_pretty(answer).or_exit(COULD_NOT_RUN)?);
    } else {
        println!("{}", print(answer));
    }
    Ok(ExitCode::SUCCESS)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn state_line(answer: &Value) -> String {
    let unchanged = if answer["changed"] == false { " (as before)" } else { "" };
    format!("capture is {}{unchanged}", plain(&answer["state"]))
}

fn scrub_line(answer: &Value) -> String {
    format!(
        "scrub {}, rate {}, {:.1} % of this pass read, {} passes; {} records are damaged",
        plain(&answer["phase"]),
        plain(&answer["rate"]),
        answer["progress"].as_f64().unwrap_or(0.0) * 100.0,
        answer["passes"],
        answer["damaged_records"],
    )
}

fn limits_table(answer: &Value) -> String {
    let line = |limit: &Value| {
        let [key, value, default, source, about] =
            ["key", "value", "default", "source", "about"].map(|name| plain(&limit[name]));
        format!("{key} = {value}    # default {default}; {source}; {about}")
    };
    let lines: Vec<String> = answer["limits"].as_array().into_iter().flatten().map(line).collect();
    lines.join("\n")
}

fn senders_table(answer: &Value) -> String {
    let line = |sender: &Value| {
        let (peer, port, since) = (plain(&sender["peer"]), plain(&sender["port"]), plain(&sender["since"]));
        let name = sender["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
        let (tiles, refused) = (&sender["tiles"], &sender["refused"]);
        let last = sender["last_tile"].as_str().map_or("no tile yet".to_owned(), |last| format!("last tile {last}"));
        format!("{} {peer}{name} on {port} since {since}: {tiles} tiles, {refused} refused, {last}", sender["id"])
    };
    let lines = answer["senders"].as_array().into_iter().flatten().map(line);
    lines.chain([format!("{} senders", answer["senders_total"])]).collect::<Vec<String>>().join("\n")
}

/// What is damaged: exit code 1 when something is.
fn report(common: &Common) -> Outcome {
    let answer: Value = common.at.client()?.get_json(&format!("{BASE}/scrub?length=10000")).map_err(failure)?;
    show(common, &answer, |answer| {
        let line = |damaged: &Value| {
            let tile = match &damaged["tile"] {
                Value::Null => String::new(),
                tile => format!(
                    ", tile {} of acquisition {} at column {}, row {}",
                    tile["id"], tile["acquisition"], tile["col"], tile["row"]
                ),
            };
            let (found, segment, what) =
                (plain(&damaged["found"]), plain(&damaged["segment"]), plain(&damaged["what"]));
            format!("{found} segment {segment} at {}: {what}{tile}", damaged["offset"])
        };
        let lines = answer["damaged"].as_array().into_iter().flatten().map(line);
        lines.chain([scrub_line(answer)]).collect::<Vec<String>>().join("\n")
    })?;
    Ok(if answer["damaged_records"] == 0 { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

/// Begins a check or rebuild and waits for its end.
fn index(common: &Common, what: &str) -> Outcome {
    let client = common.at.client()?;
    client.post_path(&format!("{BASE}/index/{what}")).map_err(failure)?;
    let answer = await_end(&client, what)?;
    show(common, &answer, index_line)?;
    match answer["state"].as_str() {
        Some("agrees" | "rebuilt") => Ok(ExitCode::SUCCESS),
        Some("differs") => Ok(ExitCode::from(FOUND_A_PROBLEM)),
        _ => Ok(ExitCode::from(COULD_NOT_RUN)),
    }
}

fn await_end(client: &HttpClient, what: &str) -> Result<Value, Failure> {
    loop {
        let answer: Value = client.get_json(&format!("{BASE}/index")).map_err(failure)?;
        if answer["job"] != what {
            let error = anyhow::anyhow!("the daemon forgot the {what}: it was restarted; begin again");
            return Err(Failure { code: COULD_NOT_RUN, error });
        }
        if answer["state"] != "running" {
            return Ok(answer);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn index_line(answer: &Value) -> String {
    let difference = |row: &Value| format!("row {}: {}", plain(&row["row"]), plain(&row["problem"]));
    let mut lines: Vec<String> = answer["differences"].as_array().into_iter().flatten().map(difference).collect();
    let (facts, took) = (&answer["facts"], answer["took_s"].as_f64().unwrap_or(0.0));
    lines.push(match answer["state"].as_str() {
        Some("agrees") => format!("the index agrees with all {facts} facts of the journal ({took:.1} s)"),
        Some("rebuilt") => format!("the index was built anew from {facts} facts ({took:.1} s)"),
        Some("differs") => {
            let at_least = if answer["more"] == true { "at least " } else { "" };
            format!(
                "{at_least}{} rows of the index differ: `tilecatcher admin index rebuild`",
                answer["differing_rows"]
            )
        }
        _ => format!("not done: {}", plain(&answer["problem"])),
    });
    lines.join("\n")
}

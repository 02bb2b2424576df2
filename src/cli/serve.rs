//! `serve` and `config`.

use super::settings::ConfigArgs;
use super::status_line::StatusLine;
use super::{BAD_INPUT, BROKE_INSIDE, COULD_NOT_RUN, OrExit, Outcome, STORAGE_FAILED};
use crate::base::stop::{Stop, StopReason};
use crate::catalog::CatalogError;
use crate::config::{Origin, environment_variable, temca_tables, template};
use crate::journal::JournalError;
use crate::server::{Server, ServerError};
use crate::service::{self, Ports};
use crate::telemetry::start_logging;
use crossbeam_channel::Receiver;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Runs the daemon until it is told to stop, or storage fails.
pub(super) fn run(args: &ConfigArgs) -> Outcome {
    let ports = Ports::inherited().or_exit(BAD_INPUT)?;
    // Before anything else: SIGHUP means reload from the first moment, and what a manager reloads must not die of it.
    let hangups = super::signals::watch_hangups().or_exit(COULD_NOT_RUN)?;
    let config = args.load().or_exit(BAD_INPUT)?.config;
    start_logging(config.log_format, config.log_level);
    let stop = Stop::default();
    super::signals::watch_signals(&stop).or_exit(COULD_NOT_RUN)?;
    service::notify_status("opening the data directory");
    let server = match Server::start_on(ports, &config, &stop) {
        Ok(server) => server,
        // It waited for the directory, and was told to end.
        Err(ServerError::Catalog(CatalogError::Locked { .. })) if stop.reason().is_some() => {
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(super::Failure { code: exit_code(&error), error: error.into() }),
    };
    reload_on(hangups, &server).or_exit(COULD_NOT_RUN)?;
    let mut status = StatusLine::new(Arc::clone(server.catalog()));
    service::notify_status("accepting tiles");
    service::notify_ready();
    service::start_status(move || status.next(), stop.clone()).or_exit(COULD_NOT_RUN)?;
    println!(
        "ready capture={}{} http={} data={}",
        server.capture_address().map_or_else(|| "off".to_owned(), |address| address.to_string()),
        server.capture_tls_address().map(|address| format!(" capture_tls={address}")).unwrap_or_default(),
        server.http_address(),
        server.data_dir().display()
    );
    std::io::stdout().flush().or_exit(COULD_NOT_RUN)?;
    let reason = stop.wait();
    service::notify_stopping();
    service::notify_status("stopping: answering what is in flight, syncing, sealing");
    tracing::info!("stopping: answering what is in flight, syncing, sealing");
    give_up_after(config.stop_time);
    let stopped = server.shut_down();
    match (stopped, reason) {
        (Ok(Some(StopReason::StorageFailed)), _) | (_, StopReason::StorageFailed) => {
            tracing::error!("stopped because storage failed; a restart recovers everything that was acknowledged");
            Ok(ExitCode::from(STORAGE_FAILED))
        }
        (Ok(Some(StopReason::Panicked)), _) | (_, StopReason::Panicked) => {
            tracing::error!(
                "stopped because of a fault inside: please report it, with the lines above; a restart recovers everything that was acknowledged"
            );
            Ok(ExitCode::from(BROKE_INSIDE))
        }
        (Ok(_), StopReason::Requested) => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        (Err(error), StopReason::Requested) => Err(error).or_exit(STORAGE_FAILED),
    }
}

/// SIGHUP: tokens and certificates are read again, the audit log is opened again.
fn reload_on(hangups: Receiver<()>, server: &Server) -> std::io::Result<()> {
    let (access, certificates) = (Arc::clone(server.access()), server.certificates());
    let reload = move || {
        for () in hangups {
            service::reload(|| {
                access.reload();
                certificates.reload();
                tracing::info!("SIGHUP: tokens and certificates are read again, the audit log is opened again");
            });
        }
    };
    std::thread::Builder::new().name("hangups".into()).spawn(reload).map(drop)
}

/// Wrong directory or port: the operator's input. Anything that the system refuses: could not run.
fn exit_code(error: &ServerError) -> u8 {
    match error {
        ServerError::Catalog(CatalogError::Journal(JournalError::Failed { .. })) => STORAGE_FAILED,
        ServerError::Catalog(CatalogError::Index(_))
        | ServerError::Watchdog(_)
        | ServerError::Sampler(_)
        | ServerError::NotifyThread(_) => COULD_NOT_RUN,
        ServerError::Exposure(_)
        | ServerError::Access(_)
        | ServerError::Catalog(_)
        | ServerError::Capture(_)
        | ServerError::Http(_)
        | ServerError::Notify(_)
        | ServerError::Tls(_) => BAD_INPUT,
    }
}

/// Ends the process when an orderly stop takes too long. Nothing acknowledged is lost by that.
fn give_up_after(limit: Duration) {
    let _ = std::thread::Builder::new().name("stop-limit".into()).spawn(move || {
        std::thread::sleep(limit);
        eprintln!("tilecatcher: not stopped within stop.time: ending at once; a restart recovers everything that was acknowledged");
        std::process::exit(i32::from(COULD_NOT_RUN));
    });
}

/// Prints a configuration file to start from.
pub(super) fn print_template(args: &ConfigArgs) -> Outcome {
    print!("{}", template(&args.load().or_exit(BAD_INPUT)?));
    Ok(ExitCode::SUCCESS)
}

/// Prints every key with value, unit, default and origin.
pub(super) fn print_config(args: &ConfigArgs, json: bool) -> Outcome {
    let settings = args.load().or_exit(BAD_INPUT)?;
    if json {
        let keys: Vec<_> = settings
            .iter()
            .map(|(key, value, origin)| {
                json!({
                    "key": key.name, "value": value, "unit": key.unit, "default": key.default,
                    "origin": origin.to_string(), "environment": environment_variable(key), "about": key.about,
                })
            })
            .collect();
        println!("{:#}", serde_json::Value::from(keys));
        return Ok(ExitCode::SUCCESS);
    }
    println!("# Effective configuration; as it stands this is a valid --config file.");
    let mut table = "";
    for (key, value, origin) in settings.iter() {
        let (this, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if this != table {
            println!("\n[{this}]");
            table = this;
        }
        let origin = if *origin == Origin::Default {
            "default".to_owned()
        } else {
            format!("{origin}; default {}", key.default)
        };
        println!("# {} ({}; {origin}; {})", key.about, key.unit, environment_variable(key));
        println!("{name} = {}", toml::Value::from(value));
    }
    print!("\n{}", temca_tables(&settings.config.temcas));
    Ok(ExitCode::SUCCESS)
}

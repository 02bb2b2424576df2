//! `token`: the file of tokens that a daemon knows by `access.tokens`.

use super::{BAD_INPUT, COULD_NOT_RUN, OrExit, Outcome};
use crate::access::{Scope, Scopes, Token, TokenEntry, TokenFile, TokenName};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print it, this once
    Add {
        /// What it is called in listings and in the audit log
        name: TokenName,
        /// read (queries, contents), ingest (what senders do) or admin (everything); may be repeated
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<Scope>,
        #[command(flatten)]
        file: FileArgs,
    },
    /// Names, scopes and days of all tokens
    List {
        #[command(flatten)]
        file: FileArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a token away; a running daemon knows within two seconds
    Revoke {
        /// Its name
        name: TokenName,
        #[command(flatten)]
        file: FileArgs,
    },
}

#[derive(Args)]
pub(super) struct FileArgs {
    /// File of tokens: the daemon's access.tokens
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
}

pub(super) fn run(command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Add { name, scope, file } => add(name, Scopes::of(&scope), file),
        TokenCommand::List { file, json } => list(file, json),
        TokenCommand::Revoke { name, file } => {
            TokenFile::at(&file.tokens).revoke(&name).or_exit(BAD_INPUT)?;
            eprintln!("token {name} revoked in {}", file.tokens.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn add(name: TokenName, scopes: Scopes, file: FileArgs) -> Outcome {
    let token = Token::new().or_exit(COULD_NOT_RUN)?;
    let made = jiff::Zoned::now().date().to_string();
    let entry = TokenEntry { name, scopes, digest: token.digest(), made };
    let tokens = TokenFile::at(&file.tokens);
    tokens.add(&entry).or_exit(BAD_INPUT)?;
    if let Err(error) = writeln!(std::io::stdout(), "{}", token.reveal()).and_then(|()| std::io::stdout().flush()) {
        // Nobody has it: it must not stay.
        tokens.revoke(&entry.name).or_exit(BAD_INPUT)?;
        return Err(error).or_exit(COULD_NOT_RUN);
    }
    eprintln!("token {} ({scopes}) added to {}; it is shown this once", entry.name, file.tokens.display());
    Ok(ExitCode::SUCCESS)
}

fn list(file: FileArgs, json: bool) -> Outcome {
    let entries = TokenFile::at(file.tokens).read().or_exit(BAD_INPUT)?;
    if json {
        let shape = |entry: &TokenEntry| json!({ "name": entry.name.to_string(), "scopes": entry.scopes.names(), "made": entry.made });
        println!("{:#}", serde_json::Value::from_iter(entries.iter().map(shape)));
        return Ok(ExitCode::SUCCESS);
    }
    for TokenEntry { name, scopes, made, .. } in entries {
        println!("{name}\t{scopes}\t{made}");
    }
    Ok(ExitCode::SUCCESS)
}

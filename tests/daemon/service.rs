//! What a service manager, its journal and a package expect of the program.

use super::manager::Manager;
use super::support::{Daemon, await_found, command, data_dir, program, signal};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Output, Stdio};

/// Waits for a notification that begins so.
fn await_beginning(manager: &Manager, beginning: &str) -> String {
    await_found(|| manager.notification().unwrap_or_default(), |text| text.starts_with(beginning))
}

#[test]
fn the_manager_is_told_of_reloads_and_how_the_daemon_is() {
    let (data, manager) = (data_dir(), Manager::new(None));
    let mut service = manager.start(data.path(), &[], None);
    await_beginning(&manager, "STATUS=opening");
    manager.await_notification("READY=1");
    let status = await_beginning(&manager, "STATUS=0 tiles");
    assert!(status.ends_with("pressure GREEN"), "{status:?}");
    service.signal("-HUP");
    let reloading = await_beginning(&manager, "RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading:?}");
    manager.await_notification("READY=1");
    service.signal("-TERM");
    manager.await_notification("STOPPING=1");
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn a_hangup_reloads_and_never_ends_a_daemon_even_one_without_tokens_and_certificates() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["log.level=info"]);
    for _ in 0..3 {
        signal(daemon.pid(), "-HUP");
    }
    await_found(|| daemon.log(), |log| log.contains("SIGHUP:"));
    daemon.connect().assert_works(1);
    daemon.stop();
}

/// A life with its stderr in a file that JOURNAL_STREAM names, or does not; what it logged.
fn logged(dir: &Path, is_journal: bool, settings: &[&str]) -> String {
    let path = dir.join("stderr");
    let file = std::fs::File::create(&path).expect("made");
    let about = file.metadata().expect("known");
    let stream = if is_journal { format!("{}:{}", about.dev(), about.ino()) } else { "1:1".to_owned() };
    // What is no network: a start that is refused, with a warning before it.
    let mut command = command(&dir.join("data"), settings);
    command.env("JOURNAL_STREAM", stream).stderr(file).stdout(Stdio::piped());
    let mut process = command.spawn().expect("the daemon starts");
    let mut ready = String::new();
    let mut stdout = std::io::BufReader::new(process.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut stdout, &mut ready).expect("a line");
    signal(process.id(), "-TERM");
    assert_eq!(super::support::wait(&mut process).code(), Some(0));
    std::fs::read_to_string(path).expect("text")
}

#[test]
fn the_journal_gets_priorities_and_no_times_and_others_get_what_they_got() {
    let dir = data_dir();
    let journal = logged(dir.path(), true, &["log.level=info"]);
    assert!(!journal.is_empty() && journal.lines().all(|line| line.starts_with("<6>")), "{journal}");
    assert!(!journal.contains("Z ") && !journal.contains('\u{1b}'), "{journal}");
    let journal = logged(dir.path(), true, &["log.level=info", "log.format=json"]);
    assert!(journal.lines().all(|line| line.starts_with("<6>{")), "{journal}");
    let other = logged(dir.path(), false, &["log.level=info"]);
    assert!(!other.is_empty() && !other.contains("<6>") && other.contains("Z "), "{other}");
}

fn run(args: &[&str]) -> Output {
    let output = program().args(args).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn completions_are_good_scripts_that_know_the_commands_and_hide_what_is_hidden() {
    for shell in ["bash", "zsh", "fish"] {
        let text = String::from_utf8(run(&["completions", shell]).stdout).expect("text");
        assert!(text.contains("watch") && text.contains("manifest"), "{shell}");
    }
    let script = run(&["completions", "bash"]).stdout;
    let dir = data_dir();
    let path = dir.path().join("tilecatcher");
    std::fs::write(&path, script).expect("written");
    let complete = "source \"$0\"; COMP_WORDS=(tilecatcher ma); COMP_CWORD=1; _tilecatcher tilecatcher ma tilecatcher; echo \"${COMPREPLY[@]}\"";
    let completed = std::process::Command::new("bash").args(["-c", complete]).arg(&path).output().expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "manifest", "{completed:?}");
}

#[test]
fn each_command_has_a_page() {
    let dir = data_dir();
    run(&["man", dir.path().to_str().expect("text")]);
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name));
    for name in ["tilecatcher.1", "tilecatcher-serve.1", "tilecatcher-token-add.1", "tilecatcher-index-rebuild.1"] {
        assert!(page(name).expect("a page").contains(".TH "), "{name}");
    }
    assert!(page("tilecatcher-man.1").is_err(), "a hidden command");
    assert!(page("tilecatcher.1").expect("a page").contains("tilecatcher\\-serve(1)"));
}

#[test]
fn the_configuration_that_a_package_installs_is_one_that_the_daemon_takes() {
    let dir = data_dir();
    let data = dir.path().join("data");
    let template = run(&["config", "--template", "--data", data.to_str().expect("text")]).stdout;
    let file = dir.path().join("config.toml");
    std::fs::write(&file, template).expect("written");
    let config = run(&["config", "--json", "--config", file.to_str().expect("text")]).stdout;
    let keys: Vec<serde_json::Value> = serde_json::from_slice(&config).expect("JSON");
    let set: Vec<_> = keys.iter().filter(|key| key["origin"] != "default").collect();
    assert_eq!((set.len(), &set[0]["key"], &set[0]["value"]), (1, &"storage.data".into(), &data.to_str().into()));
}

#[test]
fn the_package_names_files_that_are_there_and_scripts_that_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let package = &manifest["package"]["metadata"]["deb"];
    let assets = package["assets"].as_array().expect("a list");
    let sources: Vec<&str> = assets.iter().filter_map(|asset| asset[0].as_str()).collect();
    // The others are made by deploy/build-deb.sh.
    let kept: Vec<&&str> = sources.iter().filter(|source| !source.starts_with("target/")).collect();
    assert!(kept.len() >= 5, "{sources:?}");
    for source in kept {
        assert!(root.join(source).is_file(), "{source} is missing");
    }
    let scripts = root.join(package["maintainer-scripts"].as_str().expect("a directory"));
    for script in ["postinst", "prerm", "postrm"] {
        let read = std::process::Command::new("sh").arg("-n").arg(scripts.join(script)).status().expect("sh runs");
        assert!(read.success(), "{script}");
    }
}

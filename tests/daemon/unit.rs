//! The systemd units in deploy/: sound and tight by systemd's own judgement, and no tighter than the daemon can bear.
//!
//! systemd is not the first process where tests run, so the units are not started here. Instead the daemon runs under
//! strace, and what it asked of the kernel is held against what the units allow. Needs systemd and strace.

use super::manager::Manager;
use super::support::{ACQ, Daemon, command, data_dir, frame_with, key, noise, signal, tile, whole_trace};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tilecatcher::client::{ChecksumChoice, checksum_of};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
/// Ten times the exposure that `systemd-analyze security` may find: with own listeners, and with systemd's.
const EXPOSURE_MAX: &str = "11";
const EXPOSURE_MAX_SOCKET: &str = "3";

/// True when a test can not run here for want of a tool; an error where all tools must be there.
fn is_missing(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return false;
    }
    let required = std::env::var_os("TILECATCHER_REQUIRE_FAULT_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "{tool} is missing");
    eprintln!("not tested: {tool} is missing");
    true
}

/// The units, with the built binary in place of the installed one.
fn units(with_drop_in: bool) -> tempfile::TempDir {
    let dir = data_dir();
    let service = std::fs::read_to_string(format!("{DEPLOY}/tilecatcher.service")).expect("a unit");
    let service = service.replace("/usr/bin/tilecatcher", env!("CARGO_BIN_EXE_tilecatcher"));
    std::fs::write(dir.path().join("tilecatcher.service"), service).expect("written");
    std::fs::copy(format!("{DEPLOY}/tilecatcher.socket"), dir.path().join("tilecatcher.socket")).expect("copied");
    if with_drop_in {
        let drop_in = "tilecatcher.service.d/socket.conf";
        std::fs::create_dir(dir.path().join("tilecatcher.service.d")).expect("made");
        std::fs::copy(format!("{DEPLOY}/{drop_in}"), dir.path().join(drop_in)).expect("copied");
    }
    dir
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed() {
    if is_missing("systemd-analyze") {
        return;
    }
    for (with_drop_in, exposure_max) in [(false, EXPOSURE_MAX), (true, EXPOSURE_MAX_SOCKET)] {
        let dir = units(with_drop_in);
        let service = dir.path().join("tilecatcher.service");
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args([&service, &dir.path().join("tilecatcher.socket")])
            .output()
            .expect("runs");
        let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
        let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("tilecatcher")).collect();
        assert!(verified.status.success() && ours.is_empty(), "{complaints}");
        let judged = Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=true", &format!("--threshold={exposure_max}")])
            .arg(&service)
            .output()
            .expect("runs");
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    }
}

/// What a daemon asked of the kernel, line by line as strace writes it.
struct Trace {
    path: PathBuf,
}

impl Trace {
    /// Traces `traced`; strace stays beside it (`-D`), so that signals and exit codes are the daemon's own.
    fn of(traced: &Command, path: PathBuf) -> (Self, Command) {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-q", "-s", "0", "-o"]).arg(&path).arg("--");
        strace.arg(traced.get_program()).args(traced.get_args());
        for (name, _) in traced.get_envs().filter(|(_, value)| value.is_none()) {
            strace.env_remove(name);
        }
        (Self { path }, strace)
    }

    /// The calls of the process and its threads, once it has ended.
    fn calls(&self, pid: u32) -> Vec<String> {
        let call = |line: &str| line.split_once(' ').map(|(_, call)| call.trim_start().to_owned());
        whole_trace(&self.path, pid).lines().filter_map(call).collect()
    }
}

/// The name of the system call, if the line begins one.
fn name_of(call: &str) -> Option<&str> {
    let (name, _) = call.split_once('(')?;
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_').then_some(name)
}

/// Tiles by every checksum, on both ports, read back, listed, refused, deleted.
fn mixed_load(daemon: &Daemon) {
    let mut connection = daemon.connect();
    for (row, choice) in
        (0..).zip([ChecksumChoice::Crc32, ChecksumChoice::Md5, ChecksumChoice::Sha1, ChecksumChoice::Sha256])
    {
        let image = noise(u64::from(row), 40_000);
        connection.send(&frame_with(key(9, row), &image, checksum_of(choice, &image)));
        assert_eq!(connection.answer().status, 0);
    }
    let mut client = daemon.client(8);
    // More than a segment (4 MiB), so that one is sealed and another one made.
    for row in 0..30 {
        client.send(&tile(key(1, row), &noise(u64::from(row), 300_000)), row).expect("sent");
    }
    while client.receive().expect("answered").is_some() {}
    daemon.http.content(ACQ, 1, 3).expect("stored");
    daemon.http.tile(ACQ, 1, 3).expect("stored");
    for path in ["/metrics", "/readyz", "/service/v1/openapi.json", "/service/v1/acquisition/123/tiles?frame-type=all"]
    {
        daemon.http.get_path(path).expect("answered");
    }
    daemon.http.end_acquisition(ACQ).expect("ended");
}

/// The calls of a daemon's life: a new directory, load, an orderly stop; a start on what is there, load, kill -9; recovery.
fn trace_of_a_life(data: &Path, traces: &Path) -> Vec<String> {
    let mut calls = Vec::new();
    for (n, end) in ["-TERM", "-KILL", "-TERM"].into_iter().enumerate() {
        let (trace, strace) = Trace::of(&command(data, &["log.level=info"]), traces.join(n.to_string()));
        let mut daemon = Daemon::run(strace);
        daemon.start_acquisition();
        mixed_load(&daemon);
        signal(daemon.pid(), end);
        daemon.wait();
        calls.extend(trace.calls(daemon.pid()));
    }
    calls
}

/// The lines of the service file that set `name`, in order.
fn settings(name: &str) -> Vec<String> {
    let unit = std::fs::read_to_string(format!("{DEPLOY}/tilecatcher.service")).expect("a unit");
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
    unit.lines().filter_map(value).collect()
}

/// Every call that SystemCallFilter= allows: groups as systemd knows them, added and taken away line by line.
fn allowed_calls() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for setting in settings("SystemCallFilter") {
        let (takes_away, names) = setting.strip_prefix('~').map_or((false, setting.as_str()), |names| (true, names));
        for name in names.split_whitespace() {
            let calls = calls_of_group(name);
            if takes_away {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    allowed
}

fn calls_of_group(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let listed = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", name]).output().expect("runs");
    assert!(listed.status.success(), "systemd knows no {name}");
    let text = String::from_utf8(listed.stdout).expect("text");
    let members = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members.flat_map(calls_of_group).collect()
}

#[test]
fn the_daemon_lives_within_what_its_unit_allows() {
    if is_missing("strace") || is_missing("systemd-analyze") {
        return;
    }
    let (data, traces) = (data_dir(), data_dir());
    let calls = trace_of_a_life(data.path(), traces.path());
    let used: BTreeSet<&str> = calls.iter().filter_map(|call| name_of(call)).collect();
    assert!(used.contains("fdatasync") && used.contains("accept4"), "the trace shows little: {used:?}");

    let allowed = allowed_calls();
    // execve is what systemd itself does, and allows.
    let refused: Vec<&&str> = used.iter().filter(|call| !allowed.contains(**call) && **call != "execve").collect();
    assert!(refused.is_empty(), "SystemCallFilter= refuses {refused:?}");

    let families: BTreeSet<String> = settings("RestrictAddressFamilies")
        .iter()
        .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let sockets = families_of(&calls);
    assert!(sockets.is_subset(&families), "RestrictAddressFamilies= refuses some of {sockets:?}");

    let outside: Vec<&String> = calls.iter().filter(|call| writes_outside(call, data.path())).collect();
    assert!(outside.is_empty(), "ProtectSystem=strict refuses {outside:#?}");
    let made_code = calls.iter().filter(|call| makes_code(call)).collect::<Vec<_>>();
    assert!(made_code.is_empty(), "MemoryDenyWriteExecute= refuses {made_code:#?}");
    assert!(!calls.iter().any(|call| call.contains("CLONE_NEW")), "RestrictNamespaces= refuses a clone");
    eprintln!("{} calls, {} different ones, all allowed", calls.len(), used.len());
}

#[test]
fn on_listeners_of_systemd_the_daemon_opens_no_internet_socket() {
    if is_missing("strace") {
        return;
    }
    let (data, manager) = (data_dir(), Manager::new(None));
    let path = data.path().join("trace");
    let mut service = manager.start_traced(&data.path().join("data"), &path);
    manager.await_notification("READY=1");
    std::net::TcpStream::connect(manager.capture()).expect("a connection");
    service.signal("-TERM");
    manager.await_notification("STOPPING=1");
    assert_eq!(service.wait().code(), Some(0));
    let sockets = families_of(&Trace { path }.calls(service.pid()));
    assert_eq!(sockets, BTreeSet::from(["AF_UNIX".to_owned()]), "socket.conf allows AF_UNIX only");
}

fn families_of(calls: &[String]) -> BTreeSet<String> {
    let family = |call: &String| Some(call.strip_prefix("socket(")?.split(',').next()?.to_owned());
    calls.iter().filter_map(family).collect()
}

/// True for a call that changes a file outside of the data directory (and of what every process may write to).
fn writes_outside(call: &str, data: &Path) -> bool {
    const CHANGES: [&str; 12] = [
        "mkdir",
        "mkdirat",
        "unlink",
        "unlinkat",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "chmod",
        "truncate",
    ];
    let Some(name) = name_of(call) else { return false };
    let opens = name.starts_with("open") && ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| call.contains(flag));
    let data = data.to_str().expect("text");
    let mut paths = call.split('"').skip(1).step_by(2);
    (opens || CHANGES.contains(&name)) && paths.any(|path| !path.starts_with(data) && path != "/dev/null")
}

/// True for memory that is written and run.
fn makes_code(call: &str) -> bool {
    let runs = call.contains("PROT_EXEC");
    runs && (call.starts_with("mprotect(") || (call.starts_with("mmap(") && call.contains("PROT_WRITE")))
}

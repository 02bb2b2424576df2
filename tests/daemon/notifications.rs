//! People are told: a daemon, a server for its webhook and one for its letters.

use super::support::{ACQ, Daemon, PATIENCE, data_dir, frame_with, key, noise, program, remove_directory};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;
use tilecatcher::client::{ChecksumChoice, checksum_of};
use tilecatcher::notify::signature;

const SECRET: &str = "the webhook's secret";

/// What came to a server: the head and the body of a request, or a letter's lines.
struct Mailbox {
    address: SocketAddr,
    came: Receiver<(String, String)>,
}

impl Mailbox {
    /// Serves every connection by `talk` until the test ends.
    fn open(talk: fn(&TcpStream, &Sender<(String, String)>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, came) = channel();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| talk(&stream, &sender)));
        Self { address, came }
    }

    fn next(&self) -> (String, String) {
        self.came.recv_timeout(PATIENCE).expect("nothing came")
    }
}

/// Takes a request and answers 200.
fn take_request(stream: &TcpStream, sender: &Sender<(String, String)>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
        head.push_str(&std::mem::take(&mut line));
    }
    let mut body = vec![0; field(&head, "content-length").parse().expect("a length")];
    reader.read_exact(&mut body).expect("a body");
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("answered");
    _ = sender.send((head, String::from_utf8(body).expect("text")));
}

fn field(head: &str, name: &str) -> String {
    let value = |line: &str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    head.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// Takes a letter, as far as a server must to be sent one.
fn take_letter(stream: &TcpStream, sender: &Sender<(String, String)>) {
    let mut say = stream;
    let (mut envelope, mut letter, mut is_letter) = (String::new(), String::new(), false);
    _ = say.write_all(b"220 test\r\n");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if is_letter && line != "." {
            letter += &format!("{line}\n");
            continue;
        }
        let ended = std::mem::replace(&mut is_letter, line == "DATA");
        let answer: &[u8] = if is_letter { b"354 go on\r\n" } else { b"250 ok\r\n" };
        envelope += &format!("{line}\n");
        _ = say.write_all(answer);
        if ended {
            _ = sender.send((std::mem::take(&mut envelope), std::mem::take(&mut letter)));
        }
    }
}

fn secret_file(dir: &Path) -> String {
    let path = dir.join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("set");
    path.to_str().expect("text").to_owned()
}

fn settings(webhook: SocketAddr, mail: SocketAddr, secret: &str) -> Vec<String> {
    vec![
        format!("notify.webhook_url=http://{webhook}/hook"),
        format!("notify.webhook_secret_file={secret}"),
        format!("notify.mail_server={mail}"),
        "notify.mail_security=none".to_owned(),
        "notify.mail_from=tilecatcher@lab.example".to_owned(),
        "notify.mail_to=operator@lab.example, owner@lab.example".to_owned(),
        // The disk of whoever runs the tests may be low.
        "notify.disk_low=0".to_owned(),
    ]
}

fn start(data: &Path, settings: &[String]) -> Daemon {
    Daemon::start(data, &settings.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A message, once its signature is found to be right.
fn signed((head, body): (String, String)) -> Value {
    let timestamp = field(&head, "Tilecatcher-Timestamp").parse().expect("seconds");
    assert_eq!(field(&head, "Tilecatcher-Signature"), signature(SECRET, timestamp, &body));
    serde_json::from_str(&body).expect("JSON")
}

fn send_all_but(daemon: &Daemon, left_out: &[(u32, u32)]) {
    let mut connection = daemon.connect();
    for place in (0..8).flat_map(|col| (0..8).map(move |row| (col, row))).filter(|place| !left_out.contains(place)) {
        let image = noise(7, 100);
        connection.send(&frame_with(key(place.0, place.1), &image, checksum_of(ChecksumChoice::Crc32, &image)));
        assert_eq!(connection.answer().status, 0);
    }
}

#[test]
fn people_are_told_how_an_acquisition_ended() {
    let (data, hook, post) = (data_dir(), Mailbox::open(take_request), Mailbox::open(take_letter));
    let secret = secret_file(data.path());
    let daemon = start(&data.path().join("data"), &settings(hook.address, post.address, &secret));
    send_all_but(&daemon, &[(2, 5), (2, 6), (7, 0)]);
    daemon.http.end_acquisition(ACQ).expect("ended");
    let incomplete = signed(hook.next());
    assert_eq!((&incomplete["kind"], &incomplete["state"]), (&"acquisition_incomplete".into(), &"happened".into()));
    assert_eq!(incomplete["title"], "acquisition 123 ended with 3 of 64 tiles missing");
    assert_eq!(incomplete["details"]["first_missing"][0]["last_row"], 6, "{incomplete:#}");
    let (envelope, letter) = post.next();
    assert!(
        envelope.contains("RCPT TO:<operator@lab.example>") && envelope.contains("RCPT TO:<owner@lab.example>"),
        "{envelope}"
    );
    assert!(letter.contains("3 of 64 tiles missing") && letter.contains("column 2 rows 5 to 6"), "{letter}");

    send_all_but(&daemon, &[]);
    daemon.http.end_acquisition(ACQ).expect("ended");
    let complete = signed(hook.next());
    assert_eq!(complete["title"], "acquisition 123 ended complete, 64 tiles");
    assert_ne!(complete["id"], incomplete["id"]);
    assert!(post.next().1.contains("ended complete"));
    daemon.await_metric("tilecatcher_notifications_sent_total{channel=\"webhook\"}", 2.0);
    daemon.await_metric("tilecatcher_notifications_sent_total{channel=\"mail\"}", 2.0);
    daemon.stop();
    assert!(hook.came.try_recv().is_err(), "something was told that is not worth it");
}

/// Only the webhook, with more settings.
fn told_by_webhook(hook: &Mailbox, secret: &str, more: &[&str]) -> Vec<String> {
    let settings = settings(hook.address, hook.address, secret).into_iter().filter(|text| !text.contains("mail"));
    settings.chain(more.iter().map(|text| (*text).to_owned())).collect()
}

/// Kind and state of the next message.
fn next_state(hook: &Mailbox) -> (String, String) {
    let message = signed(hook.next());
    let text = |name: &str| message[name].as_str().expect("text").to_owned();
    (text("kind"), text("state"))
}

fn state(kind: &str, state: &str) -> (String, String) {
    (kind.to_owned(), state.to_owned())
}

#[test]
fn a_stalled_capture_and_a_low_disk_are_told_and_the_first_tile_ends_the_one() {
    let (data, hook) = (data_dir(), Mailbox::open(take_request));
    let secret = secret_file(data.path());
    let settings = told_by_webhook(&hook, &secret, &["notify.disk_low=1000000TiB", "notify.stalled_after=1s"]);
    let daemon = start(&data.path().join("data"), &settings);
    assert_eq!(next_state(&hook), state("disk_low", "raised"));
    assert_eq!(next_state(&hook), state("capture_stalled", "raised"));
    // Tiles keep coming until the daemon has looked again: it looks once a second, which is as long as what it calls silence.
    let (mut connection, began) = (daemon.connect(), Instant::now());
    let told = loop {
        let image = began.elapsed().as_nanos().to_le_bytes();
        connection.send(&frame_with(key(1, 7), &image, checksum_of(ChecksumChoice::Crc32, &image)));
        assert_eq!(connection.answer().status, 0);
        if let Ok(told) = hook.came.try_recv() {
            break signed(told);
        }
        assert!(began.elapsed() < PATIENCE, "nothing is said of the end");
    };
    assert_eq!((&told["kind"], &told["state"]), (&"capture_stalled".into(), &"resolved".into()));
    daemon.stop();
}

#[test]
fn a_mirror_that_is_lost_and_back_is_told_twice() {
    let (data, hook) = (data_dir(), Mailbox::open(take_request));
    let secret = secret_file(data.path());
    let (mirror, away) = (data.path().join("mirror"), data.path().join("away"));
    let mirror_data = format!("mirror.data={}", mirror.display());
    let settings = told_by_webhook(&hook, &secret, &[&mirror_data, "mirror.retry=100ms"]);
    let daemon = start(&data.path().join("data"), &settings);
    std::fs::rename(&mirror, &away).expect("renamed");
    assert_eq!(next_state(&hook), state("mirror_lost", "raised"));
    std::fs::rename(&away, &mirror).expect("renamed");
    assert_eq!(next_state(&hook), state("mirror_lost", "resolved"));
    daemon.stop();
}

#[test]
fn a_damaged_tile_is_told_with_its_place() {
    let (data, hook) = (data_dir(), Mailbox::open(take_request));
    let secret = secret_file(data.path());
    let dir = data.path().join("data");
    let daemon = start(&dir, &told_by_webhook(&hook, &secret, &[]));
    let image = noise(5, 300);
    let mut connection = daemon.connect();
    connection.send(&frame_with(key(3, 4), &image, checksum_of(ChecksumChoice::Crc32, &image)));
    assert_eq!(connection.answer().status, 0);
    let (segment, at) = super::rot::find(&dir, &image);
    super::rot::Flip::make(&segment, at);
    daemon.http.get_path("/service/v1/acquisition/123/tile/3/4/content").expect_err("damaged");
    let message = signed(hook.next());
    assert_eq!((&message["kind"], &message["state"]), (&"damage".into(), &"raised".into()));
    assert_eq!(
        (&message["details"]["new"][0]["tile"]["row"], &message["details"]["new"][0]["found_by"]),
        (&4.into(), &"read".into())
    );
    assert!(message["text"].as_str().expect("text").contains("acquisition 123 column 3 row 4"), "{message:#}");
}

#[test]
fn servers_that_are_dead_cost_counted_messages_and_nothing_else() {
    let data = data_dir();
    let secret = secret_file(data.path());
    // Nobody listens on the one; the other one takes connections and says nothing.
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let daemon = start(&data.path().join("data"), &settings(dead, silent.local_addr().expect("an address"), &secret));
    let began = Instant::now();
    daemon.http.end_acquisition(ACQ).expect("ended");
    daemon.connect().assert_works(1);
    daemon.http.end_acquisition(ACQ).expect("ended");
    // Attempts and pauses take 15 s and more: nothing waited for them.
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "it took {:?}", began.elapsed());
    daemon.await_metric_that("tilecatcher_notifications_failed_total{channel=\"webhook\"}", |failed| failed >= 1.0);
    daemon.stop();
}

#[test]
fn a_storage_failure_is_told_before_the_process_ends() {
    let (data, hook) = (data_dir(), Mailbox::open(take_request));
    let secret = secret_file(data.path());
    let dir = data.path().join("data");
    // Of the disk, whose state can not be told any more, nothing is said here.
    let settings = ["notify.events=storage_failed", "stop.time=40s"];
    let mut daemon = start(&dir, &told_by_webhook(&hook, &secret, &settings));
    // The journal's directory is gone: the next sync finds it out.
    remove_directory(&dir.join("journal"));
    let mut connection = daemon.connect();
    let image = noise(7, 100);
    connection.send(&frame_with(key(0, 0), &image, checksum_of(ChecksumChoice::Crc32, &image)));
    assert_eq!(daemon.wait().code(), Some(4));
    assert_eq!(signed(hook.next())["kind"], "storage_failed");
}

fn test_notifications(settings: &[String]) -> Output {
    let mut command: Command = program();
    command.args(["notify", "--test"]);
    settings.iter().for_each(|setting| _ = command.args(["--set", setting]));
    command.output().expect("runs")
}

#[test]
fn a_test_message_says_which_channel_works() {
    let (dir, hook, post) = (data_dir(), Mailbox::open(take_request), Mailbox::open(take_letter));
    let secret = secret_file(dir.path());
    let works = test_notifications(&settings(hook.address, post.address, &secret));
    let text = String::from_utf8_lossy(&works.stdout).into_owned();
    assert_eq!((works.status.code(), text.matches(": sent, ").count()), (Some(0), 2), "{works:?}");
    assert_eq!(signed(hook.next())["kind"], "test");
    assert!(post.next().1.contains("Subject: [tilecatcher"));

    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let half = test_notifications(&settings(hook.address, dead, &secret));
    let text = String::from_utf8_lossy(&half.stdout).into_owned();
    assert_eq!(half.status.code(), Some(1), "{half:?}");
    assert!(text.contains("webhook http://127.0.0.1: sent") && text.contains("NOT sent"), "{text}");
}

#[test]
fn what_can_not_work_is_refused_at_the_start_with_its_key() {
    for (setting, key) in [
        ("notify.webhook_url=nonsense", "notify.webhook_url"),
        ("notify.mail_server=mail.lab", "notify.mail_from"),
        ("notify.events=everything", "notify.events"),
        ("notify.repeat=59s", "notify.repeat"),
        ("notify.webhook_secret_file=/nowhere", "notify.webhook_url"),
    ] {
        let data = data_dir();
        let (status, log) = Daemon::try_run(super::support::command(data.path(), &[setting])).err().expect("refused");
        assert_eq!(status.code(), Some(2), "{setting}: {log}");
        assert!(log.contains(key), "{setting}: {log}");
    }
    let nobody = test_notifications(&[]);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
}

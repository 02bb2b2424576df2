//! Hostile and unlucky peers of the capture port: each gets what the contract says, memory stays within its bounds, and
//! honest senders go on.

use super::hostile::{
    BUFFERS, assert_sound, dial_from, dial_with_buffer, dial_with_small_buffer, long, processor_time, reset, resident,
    send_until_stuck, stays,
};
use super::support::{ACQ, Daemon, await_found, await_that, command, data_dir, frame, key, noise, tile};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// The beginning of a frame of this length, and one byte of it.
fn bomb(length: usize) -> Vec<u8> {
    [&u32::try_from(length).expect("a length").to_le_bytes()[..], b"x"].concat()
}

#[test]
fn ten_thousand_idle_connections_take_at_most_16_kib_each() {
    let data = data_dir();
    let settings = ["capture.connections_max=12000", "capture.connections_per_peer=12000"];
    let daemon = Daemon::start(data.path(), &settings);
    daemon.connect().assert_works(0);
    let before = resident(daemon.pid());
    // A process of its own: both ends in one would need twice the descriptors.
    let mut idle = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "overload::the_far_end_of_idle_connections", "--ignored", "--nocapture"])
        .env("CATCHER_IDLE_TO", daemon.capture.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(idle.stdout.take().expect("a pipe")).lines();
    let opened = lines.find_map(|line| line.expect("a line").strip_prefix("opened ")?.parse::<u32>().ok());
    let opened = opened.expect("it says how many it opened");
    daemon.await_metric_that("tilecatcher_connections", |open| open >= f64::from(opened));
    daemon.connect().assert_works(1);
    let each = resident(daemon.pid()).saturating_sub(before) / opened as usize;
    eprintln!("{opened} idle connections, {each} bytes each");
    assert!(each <= 16 << 10, "{each} bytes for each idle connection");
    drop(idle.stdin.take());
    assert!(idle.wait().expect("ends").success());
    daemon.await_metric("tilecatcher_connections", 0.0);
    assert_sound(&daemon, BUFFERS);
}

/// Not a test by itself: opens connections and keeps them until its input ends.
#[test]
#[allow(clippy::print_stdout)] // For the test that runs it.
#[ignore = "run by ten_thousand_idle_connections_take_at_most_16_kib_each"]
fn the_far_end_of_idle_connections() {
    let Ok(to) = std::env::var("CATCHER_IDLE_TO") else { return };
    let to: SocketAddr = to.parse().expect("an address");
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).expect("raised");
    // The daemon has the same limit, and keeps some for its files.
    let most = limit.map_or(10_000, |limit| usize::try_from(limit).expect("small").saturating_sub(1200));
    let open: Vec<TcpStream> = (0..most.min(10_000)).map(|_| TcpStream::connect(to).expect("open")).collect();
    println!("\nopened {}", open.len());
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn one_address_can_not_take_all_connections() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.connections_max=6", "capture.connections_per_peer=4"]);
    let greedy: Vec<TcpStream> =
        (0..8).map(|_| dial_from(2, daemon.capture).expect("accepted by the system")).collect();
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"peer_limit\"}", 4.0);
    daemon.connect().assert_works(0);
    drop(greedy);
    daemon.await_metric("tilecatcher_connections", 0.0);
    let mut again = dial_from(2, daemon.capture).expect("a connection");
    again.write_all(&frame(key(1, 1), b"x")).expect("sent");
    assert_eq!(again.read(&mut [0; 4]).expect("an answer"), 4);
}

#[test]
fn the_system_is_told_to_ask_silent_peers_whether_they_are_there() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut capture = daemon.connect();
    capture.assert_works(0);
    let mut http = TcpStream::connect(daemon.http_address).expect("a connection");
    http.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    assert!(http.read(&mut [0; 4096]).expect("an answer") > 0);
    for (port, end) in [(daemon.capture.port(), &capture.stream), (daemon.http_address.port(), &http)] {
        let far = end.local_addr().expect("an address").port();
        let line = format!("0100007F:{port:04X} 0100007F:{far:04X} 01");
        // Timer 2 is the keepalive timer, its end in hundredths of a second; others run while bytes are under way.
        let timer = || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
            let row = table.lines().find_map(|row| row.split_once(&line)).expect("a row").1;
            row.split_whitespace().nth(1).expect("a timer").to_owned()
        };
        let timer = await_found(timer, |timer| timer.starts_with("02:"));
        assert!(u32::from_str_radix(&timer[3..], 16).expect("hex") <= 3000, "{timer}");
    }
}

#[test]
fn without_descriptors_accepting_rests_and_goes_on_when_there_are_some() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    daemon.connect().assert_works(0);
    daemon.await_metric("tilecatcher_connections", 0.0);
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("small")).expect("a process");
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("a list").count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(open + 3), maximum };
    let was = prlimit(Some(pid), Resource::Nofile, limit).expect("lowered");
    let mut waiting: Vec<_> = (0..12).map(|_| daemon.connect()).collect();
    let before = processor_time(daemon.pid());
    std::thread::sleep(Duration::from_secs(1));
    let spent = processor_time(daemon.pid()) - before;
    assert!(spent < Duration::from_millis(400), "{spent:?} of processor time in a second without descriptors");
    prlimit(Some(pid), Resource::Nofile, was).expect("raised");
    for (col, connection) in (0..).zip(&mut waiting) {
        connection.assert_works(col);
    }
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn limits_that_do_not_fit_the_descriptors_are_lowered_and_said() {
    let data = data_dir();
    let plain = command(data.path(), &["capture.connections_max=1000", "log.level=warn"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    plain.get_envs().filter(|(_, value)| value.is_none()).for_each(|(name, _)| {
        limited.env_remove(name);
    });
    let daemon = Daemon::run(limited);
    daemon.start_acquisition();
    assert!(daemon.log().contains("raise LimitNOFILE"), "{}", daemon.log());
    let mut crowd: Vec<_> = (0..100).map(|_| daemon.connect()).collect();
    daemon.await_metric_that("tilecatcher_connections_closed_total{reason=\"limit\"}", |closed| closed >= 50.0);
    // There is still a descriptor for everything that storing needs.
    for n in 0..30 {
        crowd[0].send(&frame(key(n, 0), &noise(u64::from(n), 700_000)));
        assert_eq!(crowd[0].answer().status, 0);
    }
    drop(crowd);
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn lengths_that_lie_take_no_memory_from_others() {
    let data = data_dir();
    let buffers = 160 * MIB;
    let settings = ["capture.frame_max=64MiB", "memory.buffers=160MiB", "capture.slow_grace=60s"];
    let daemon = Daemon::start(data.path(), &settings);
    for length in [0, 1 << 31, u32::MAX as usize] {
        let mut connection = daemon.connect();
        connection.send(&bomb(length)[..4]);
        assert_eq!(connection.answer().status, 1, "length {length}");
    }
    // Far more is announced than there is, from one address; another has its tiles stored at once.
    let mut bombs: Vec<TcpStream> = Vec::new();
    for _ in 0..300 {
        let mut stream = dial_from(2, daemon.capture).expect("a connection");
        stream.write_all(&bomb(64 * MIB)).expect("sent");
        bombs.push(stream);
    }
    daemon.await_metric_that("tilecatcher_connections", |open| open >= 300.0);
    daemon.await_metric_that("tilecatcher_buffer_bytes", |bytes| bytes >= 64.0 * MIB as f64);
    let tiles: Vec<Vec<u8>> = (0..20).map(|col| frame(key(col, 0), &noise(u64::from(col), 1_000_000))).collect();
    let began = Instant::now();
    let mut honest = daemon.connect();
    for tile in &tiles {
        honest.send(tile);
        assert_eq!(honest.answer().status, 0);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "honest tiles waited for bombs: {:?}", began.elapsed());
    let resident = resident(daemon.pid());
    assert!(resident < buffers + 80 * MIB, "{resident} bytes resident");
    bombs.into_iter().for_each(reset);
    daemon.await_metric_that("tilecatcher_connections", |open| open <= 1.0);
    assert_sound(&daemon, buffers);
}

/// Two addresses hold all the memory there is, each with the beginning of a tile of 7 MiB.
fn hold_all_memory(daemon: &Daemon) -> Vec<TcpStream> {
    let mut holders = Vec::new();
    for host in [2, 3] {
        let mut stream = dial_from(host, daemon.capture).expect("a connection");
        stream.write_all(&bomb(7 * MIB)).expect("sent");
        holders.push(stream);
    }
    daemon.await_metric_that("tilecatcher_buffer_bytes", |bytes| bytes >= 14.0 * MIB as f64);
    holders
}

#[test]
fn who_waits_for_memory_stands_in_the_queue_once_and_leaves_it_when_it_goes() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["memory.buffers=20MiB", "capture.slow_grace=600s"]);
    let holders = hold_all_memory(&daemon);
    let mut waiting: Vec<TcpStream> = Vec::new();
    for host in 4..24 {
        let mut stream = dial_from(host, daemon.capture).expect("a connection");
        stream.write_all(&bomb(7 * MIB)).expect("sent");
        waiting.push(stream);
    }
    daemon.await_metric("tilecatcher_buffer_waiters", 20.0);
    for _ in 0..50 {
        for stream in &mut waiting {
            stream.write_all(b"y").expect("sent");
        }
    }
    assert_eq!(daemon.metric("tilecatcher_buffer_waiters"), 20.0);
    waiting.into_iter().for_each(reset);
    daemon.await_metric("tilecatcher_buffer_waiters", 0.0);
    daemon.await_metric("tilecatcher_connections", 2.0);
    drop(holders);
    assert_sound(&daemon, 20 * MIB);
}

#[test]
fn a_stalled_sender_is_disconnected_sooner_while_others_wait_for_memory() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["memory.buffers=20MiB", "capture.slow_grace=24s"]);
    let slow = "tilecatcher_connections_closed_total{reason=\"slow\"}";
    let holders = hold_all_memory(&daemon);
    // Longer than the sixth of the grace that counts below.
    stays(Duration::from_secs(5), || daemon.metric(slow) == 0.0);
    let tile = frame(key(3, 3), &noise(1, 7_000_000));
    let began = Instant::now();
    let mut honest = daemon.connect();
    honest.send(&tile);
    assert_eq!(honest.answer().status, 0);
    assert!(began.elapsed() < Duration::from_secs(15), "it waited {:?}", began.elapsed());
    daemon.await_metric(slow, 2.0);
    drop(holders);
    assert_sound(&daemon, 20 * MIB);
}

#[test]
fn senders_that_never_read_their_answers_are_disconnected_and_hold_nothing() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.unread_max=1s"]);
    // Empty frames: 4 bytes in, a whole answer out.
    let frames = vec![0; 4 * MIB];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = dial_with_small_buffer(daemon.capture);
                send_until_stuck(&mut stream, &frames);
                daemon.await_metric_that("tilecatcher_connections_closed_total{reason=\"unread\"}", |n| n >= 4.0);
            });
        }
    });
    daemon.await_metric("tilecatcher_connections", 0.0);
    assert_sound(&daemon, BUFFERS);
}

/// Sends empty frames until the daemon or the test has enough, and takes the refusals, whose bytes it counts.
fn flood(stream: &TcpStream, refused: &AtomicU64) {
    let (mut writer, mut reader) = (stream, stream);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut answers = vec![0; 256 << 10];
            while let Ok(read @ 1..) = reader.read(&mut answers) {
                refused.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
        let zeros = vec![0; 256 << 10];
        while writer.write_all(&zeros).is_ok() {}
    });
}

/// Ends a connection, also when the test fails.
struct EndOnDrop<'a>(&'a TcpStream);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[test]
fn who_is_refused_as_fast_as_he_sends_takes_no_turns_from_others() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    // Many, with much room: where the answers of one fill its socket for a moment, its turn ends by chance.
    let hostile: Vec<TcpStream> = (0..16).map(|_| dial_with_buffer(daemon.capture, 64 * MIB)).collect();
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _ends: Vec<EndOnDrop<'_>> = hostile.iter().map(EndOnDrop).collect();
        hostile.iter().for_each(|stream| drop(scope.spawn(|| flood(stream, &refused))));
        await_that("refusals come", || refused.load(Ordering::Relaxed) > 100_000);
        let mut honest = daemon.connect();
        let time = |col| {
            let began = Instant::now();
            honest.assert_works(col);
            began.elapsed()
        };
        let mut times: Vec<Duration> = (0..10).map(time).collect();
        times.sort_unstable();
        // Each of the ten waited for more than a second when such a peer could keep its turn; now for some milliseconds.
        assert!(times[4] < Duration::from_secs(1), "honest tiles waited {times:?}");
    });
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn a_pipeline_far_beyond_the_window_is_answered_whole_and_in_order() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.in_flight_max=4", "capture.connection_memory_max=1MiB"]);
    let mut connection = daemon.connect();
    let mut writer = connection.stream.try_clone().expect("a clone");
    let sender = std::thread::spawn(move || {
        for n in 0..400u32 {
            let message =
                if n % 5 == 4 { vec![0; 4] } else { frame(key(n % 20, n / 20), &noise(u64::from(n), 20_000)) };
            writer.write_all(&message).expect("sent");
        }
    });
    let statuses: Vec<i16> = (0..400).map(|_| connection.answer().status).collect();
    sender.join().expect("a sender");
    assert!((0..400).all(|n| statuses[n] == i16::from(n % 5 == 4)), "{statuses:?}");
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn ninety_one_senders_at_once_are_all_served() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    std::thread::scope(|scope| {
        for beam in 0..91 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut client = daemon.client(4);
                for row in 0..6 {
                    let image = noise(u64::from(beam * 10 + row), 100_000);
                    client.send(&tile(key(beam, row), &image), row).expect("sent");
                }
                while let Some(answered) = client.receive().expect("an answer") {
                    assert_eq!(answered.response.status, 0);
                }
            });
        }
    });
    for beam in [0, 45, 90] {
        assert_eq!(daemon.http.content(ACQ, beam, 5).expect("stored").bytes, noise(u64::from(beam * 10 + 5), 100_000));
    }
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"new\"}", 91.0 * 6.0);
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn a_reset_at_every_byte_of_a_frame_leaves_nothing_and_the_tile_can_be_sent_again() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.connections_max=4096"]);
    let message = frame(key(5, 5), b"a small image");
    for cut in 1..message.len() {
        let mut stream = TcpStream::connect(daemon.capture).expect("a connection");
        stream.write_all(&message[..cut]).expect("sent");
        reset(stream);
        // No byte of the broken one joins the next.
        if cut % 16 == 0 {
            daemon.connect().assert_works(0);
        }
    }
    assert!(daemon.http.tile(ACQ, 5, 5).is_err(), "half a tile was stored");
    let mut connection = daemon.connect();
    connection.send(&message);
    assert_eq!(connection.answer().status, 0);
    drop(connection);
    // In the middle of a large one, whose buffer is held.
    let large = frame(key(6, 6), &noise(6, 3_000_000));
    for cut in (1..large.len()).step_by(if long() { 10_007 } else { 200_003 }) {
        let mut stream = TcpStream::connect(daemon.capture).expect("a connection");
        stream.write_all(&large[..cut]).expect("sent");
        reset(stream);
    }
    daemon.await_metric("tilecatcher_connections", 0.0);
    assert!(daemon.http.tile(ACQ, 6, 6).is_err(), "half a tile was stored");
    assert_sound(&daemon, BUFFERS);
}

/// Connections that trickle: to the capture port inside a tile, to the HTTP port inside a head. Those that are closed
/// come back.
fn trickle(daemon: &Daemon, connections: usize, attack: &AtomicBool, end: &AtomicBool) {
    let open = |n: usize| {
        let (to, bytes) = if n.is_multiple_of(3) {
            (daemon.http_address, b"GET /service/v1/tiles HTTP/1.1\r\nX: ".to_vec())
        } else {
            (daemon.capture, bomb(6 * MIB))
        };
        let mut stream = dial_from(2, to).ok()?;
        stream.write_all(&bytes).ok()?;
        Some(stream)
    };
    let mut streams: Vec<Option<TcpStream>> = (0..connections).map(|_| None).collect();
    while !end.load(Ordering::Relaxed) {
        for (n, place) in streams.iter_mut().enumerate() {
            if !attack.load(Ordering::Relaxed) {
                *place = None;
            } else if place.as_mut().is_none_or(|stream| stream.write_all(b"x").is_err()) {
                *place = open(n);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Tiles answered to four honest senders, as they send without a pause.
fn send_honestly(daemon: &Daemon, sender: u32, answered: &AtomicU64, end: &AtomicBool) {
    let mut client = daemon.client(8);
    let image = noise(u64::from(sender), 8000);
    for n in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let sent = client.send(&tile(key(sender * 100 + n % 100, n / 100), &image), n).expect("sent");
        if let Some(sent) = sent {
            assert_eq!(sent.response.status, 0);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn honest_senders_keep_their_throughput_while_hundreds_trickle() {
    let data = data_dir();
    let settings = ["capture.slow_grace=3s", "http.head_time=1s", "capture.connections_per_peer=1000"];
    let daemon = Daemon::start(data.path(), &settings);
    let (attack, end, answered) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let (window, rounds, wanted) =
        if long() { (Duration::from_secs(4), 3, 0.8) } else { (Duration::from_millis(700), 3, 0.5) };
    let connections = if long() { 700 } else { 300 };
    let mut ratios = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| trickle(&daemon, connections, &attack, &end));
        for sender in 0..4 {
            let (daemon, answered, end) = (&daemon, &answered, &end);
            scope.spawn(move || send_honestly(daemon, sender, answered, end));
        }
        let measure = |under_attack: bool| {
            attack.store(under_attack, Ordering::Relaxed);
            // The attack needs a moment to build up, and to go.
            std::thread::sleep(window / 2);
            let before = answered.load(Ordering::Relaxed);
            std::thread::sleep(window);
            (answered.load(Ordering::Relaxed) - before) as f64
        };
        for _ in 0..rounds {
            let (without, with) = (measure(false) + measure(false), measure(true) + measure(true));
            ratios.push(with / without);
            if with >= wanted * without {
                break;
            }
        }
        daemon.await_metric_that("tilecatcher_connections_closed_total{reason=\"slow\"}", |closed| closed >= 4.0);
        daemon.await_metric_that("tilecatcher_http_connections_closed_total{reason=\"slow_head\"}", |n| n >= 10.0);
        end.store(true, Ordering::Relaxed);
    });
    eprintln!("{connections} trickling connections: throughput of four senders, part of what it was: {ratios:?}");
    // Other work on the machine can only lower a ratio or raise it by chance once: the best of the rounds is judged.
    assert!(ratios.iter().any(|ratio| *ratio >= wanted), "{ratios:?}");
    assert_sound(&daemon, BUFFERS);
}

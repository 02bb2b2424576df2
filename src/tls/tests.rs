//! Two sessions and a pair of buffers between them: what a session holds, and what it says of its socket.

use super::{ClientFiles, ClientSession, ClientTls, ServerFiles, ServerSession, ServerTls};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::Ipv4Addr;
use std::rc::Rc;

type Bytes = Rc<RefCell<VecDeque<u8>>>;

/// One end of a connection that never waits, and takes only so much before the other end reads.
struct Pipe {
    from: Bytes,
    to: Bytes,
    room: usize,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut from = self.from.borrow_mut();
        if from.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { from.read(into) }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut to = self.to.borrow_mut();
        let fits = bytes.len().min(self.room - to.len());
        if fits == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { to.write(&bytes[..fits]) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Pair {
    client: ClientSession,
    client_end: Pipe,
    server: ServerSession,
    server_end: Pipe,
}

fn would_block<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.expect_err("it would have to wait").kind(), io::ErrorKind::WouldBlock);
}

impl Pair {
    /// A session that is open, on a connection with so much room each way.
    fn open(room: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a good name");
        let key = rcgen::KeyPair::generate().expect("a key");
        let (certificate, key_path) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        std::fs::write(&certificate, params.self_signed(&key).expect("signed").pem()).expect("written");
        std::fs::write(&key_path, key.serialize_pem()).expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).expect("changed");
        }
        let files = ClientFiles { ca: certificate.clone(), identity: None, server_name: None };
        let client = ClientTls::load(&files).expect("good files").session(Ipv4Addr::LOCALHOST.into());
        let server = ServerTls::load(&ServerFiles { certificate, key: key_path, client_ca: None });
        let (there, back) = (Bytes::default(), Bytes::default());
        let mut pair = Self {
            client: client.expect("a session"),
            client_end: Pipe { from: Rc::clone(&back), to: Rc::clone(&there), room },
            server: server.expect("good files").session().expect("a session"),
            server_end: Pipe { from: there, to: back, room },
        };
        while pair.client.shake_hands(&mut pair.client_end).is_err() || pair.server.is_handshaking() {
            would_block(pair.server.read(&mut pair.server_end, &mut [0]));
        }
        pair
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.client.write(&mut self.client_end, &[IoSlice::new(bytes)])
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.server.read(&mut self.server_end, into)
    }
}

#[test]
fn a_session_that_holds_records_does_not_say_that_all_is_read() {
    let mut pair = Pair::open(1 << 20);
    for n in 0..3 {
        assert_eq!(pair.send(&[n; 1000]).expect("room"), 1000);
    }
    let mut into = [9; 5000];
    assert_eq!(pair.receive(&mut into[..600]).expect("arrived"), 600);
    assert!(!pair.server.has_emptied(), "two records are held, and the rest of one");
    pair.send(&[3; 1000]).expect("room");
    assert_eq!(pair.receive(&mut into[600..]).expect("held"), 2400);
    assert!(!pair.server.has_emptied(), "the socket was not asked, and has news");
    assert_eq!(pair.receive(&mut into[3000..]).expect("arrived"), 1000);
    assert!(pair.server.has_emptied());
    would_block(pair.receive(&mut [0]));
    assert!(into[..4000].chunks(1000).zip(0..).all(|(part, n)| part == [n; 1000]));
}

#[test]
fn what_a_socket_takes_in_pieces_is_accepted_once_and_arrives_once() {
    let mut pair = Pair::open(5000);
    let sent: Vec<u8> = (0..400_000u32).map(|n| u8::try_from(n % 251).expect("small")).collect();
    let (mut accepted, mut received) = (0, Vec::new());
    let mut into = [0; 7000];
    while received.len() < sent.len() {
        match pair.send(&sent[accepted..]) {
            Ok(bytes) => accepted += bytes,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        match pair.receive(&mut into) {
            Ok(bytes) => received.extend_from_slice(&into[..bytes]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        if accepted == sent.len() {
            continue;
        }
        assert!(accepted <= received.len() + (256 << 10), "no more is accepted than can be on its way");
    }
    assert!(received == sent);
}

#[test]
fn parts_of_any_length_become_one_stream() {
    let mut pair = Pair::open(1 << 20);
    let lengths = [0, 1, 131, 16_383, 16_384, 16_385, 0, 50_000, 7];
    let parts: Vec<Vec<u8>> = (0..).zip(lengths).map(|(n, len)| vec![n; len]).collect();
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let whole = parts.concat();
    assert_eq!(pair.client.write(&mut pair.client_end, &slices).expect("room"), whole.len());
    let mut into = vec![0; whole.len() + 1];
    let mut got = 0;
    while got < whole.len() {
        got += pair.receive(&mut into[got..]).expect("arrived");
    }
    assert!(into[..got] == whole);
}

#[test]
fn a_record_that_was_changed_on_its_way_ends_the_session_behind_what_came_before() {
    let mut pair = Pair::open(1 << 20);
    pair.send(b"good").expect("room");
    let behind = pair.client_end.to.borrow().len();
    pair.send(b"changed").expect("room");
    pair.client_end.to.borrow_mut()[behind + 7] ^= 1;
    let mut into = [0; 100];
    assert_eq!(pair.receive(&mut into).expect("arrived"), 4);
    assert!(!pair.server.has_emptied(), "the error is still to be said");
    for _ in 0..3 {
        assert_eq!(pair.receive(&mut into).expect_err("changed").kind(), io::ErrorKind::InvalidData);
    }
    let told = pair.client.read(&mut pair.client_end, &mut into).expect_err("an alert");
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
}

//! Both channels over TLS, against servers with a certificate of a CA that is trusted, and one that is not.

use super::{Channels, MailOptions, MailSecurity, Message, NotifyOptions, WebhookOptions};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A certificate for 127.0.0.1 that vouches for itself, and what a server needs of it.
struct Identity {
    pem: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("they go together");
        Self { pem: made.cert.pem(), config: Arc::new(config) }
    }

    fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        std::fs::write(&path, &self.pem).expect("written");
        path
    }

    fn encrypt(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        StreamOwned::new(ServerConnection::new(Arc::clone(&self.config)).expect("a session"), stream)
    }
}

/// A line, or what came before the end.
fn line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// Takes commands and a letter until the other side is gone or, where it may, wants to encrypt; the commands.
fn smtp(stream: &mut (impl Read + Write), may_encrypt: bool) -> Vec<String> {
    let mut commands = Vec::new();
    let mut is_letter = false;
    loop {
        let command = line(stream);
        let answer = match command.as_str() {
            "" if !is_letter => return commands,
            "." => "250 taken\r\n",
            _ if is_letter => "",
            "DATA" => "354 go on\r\n",
            "STARTTLS" => "220 go on\r\n",
            hello if hello.starts_with("EHLO") && may_encrypt => "250-test\r\n250 STARTTLS\r\n",
            _ => "250 ok\r\n",
        };
        if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() || command == "STARTTLS" {
            return commands;
        }
        is_letter = command != "." && (is_letter || command == "DATA");
        commands.push(command);
    }
}

/// Serves one connection; gives what was said inside of the encryption.
fn serve(identity: Identity, security: Option<MailSecurity>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let talk = move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        if security == Some(MailSecurity::StartTls) {
            stream.write_all(b"220 test\r\n").expect("greeted");
            smtp(&mut stream, true);
        }
        let mut inside = identity.encrypt(stream);
        match security {
            Some(MailSecurity::Tls) if inside.write_all(b"220 test\r\n").is_err() => Vec::new(),
            Some(_) => smtp(&mut inside, false),
            None => vec![post(&mut inside)],
        }
    };
    (address, std::thread::spawn(talk))
}

/// Takes a request, answers 200; its first line.
fn post(stream: &mut (impl Read + Write)) -> String {
    let (first, mut length) = (line(stream), 0);
    loop {
        let field = line(stream).to_lowercase();
        if field.is_empty() {
            break;
        }
        length = field.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().expect("a length"));
    }
    _ = stream.read_exact(&mut vec![0; length]);
    _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    _ = stream.flush();
    first
}

fn send(options: NotifyOptions) -> Result<String, String> {
    let channels = Channels::load(&options).expect("good options");
    let (_, outcome) = channels.test(&Message::test("")).next().expect("one channel");
    outcome
}

fn by_mail(server: String, security: MailSecurity, ca: &Path) -> NotifyOptions {
    let (from, to) = ("a@lab.example".to_owned(), vec!["b@lab.example".to_owned()]);
    let mail = MailOptions { server, security, from, to, ..MailOptions::default() };
    NotifyOptions { mail: Some(mail), ca: ca.to_owned(), ..NotifyOptions::default() }
}

fn by_webhook(address: &str, ca: &Path) -> NotifyOptions {
    let webhook = WebhookOptions { url: format!("https://{address}/hook"), ..WebhookOptions::default() };
    NotifyOptions { webhook: Some(webhook), ca: ca.to_owned(), ..NotifyOptions::default() }
}

#[cfg(feature = "mail")]
#[test]
fn letters_travel_encrypted_from_the_first_byte_or_after_starttls() {
    for security in [MailSecurity::Tls, MailSecurity::StartTls] {
        let (dir, identity) = (tempfile::tempdir().expect("a directory"), Identity::new());
        let ca = identity.write(dir.path());
        let (address, served) = serve(identity, Some(security));
        assert_eq!(send(by_mail(address, security, &ca)), Ok("250".to_owned()), "{security:?}");
        let inside = served.join().expect("served");
        assert!(inside.iter().any(|command| command.starts_with("RCPT")), "{security:?}: {inside:?}");
    }
}

#[test]
fn a_webhook_is_told_over_https() {
    let (dir, identity) = (tempfile::tempdir().expect("a directory"), Identity::new());
    let ca = identity.write(dir.path());
    let (address, served) = serve(identity, None);
    assert_eq!(send(by_webhook(&address, &ca)), Ok("200 OK".to_owned()));
    assert_eq!(served.join().expect("served"), ["POST /hook HTTP/1.1"]);
}

#[test]
fn a_server_that_nobody_vouches_for_is_told_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = Identity::new().write(dir.path());
    let (address, served) = serve(Identity::new(), None);
    assert!(send(by_webhook(&address, &ca)).is_err());
    assert_eq!(served.join().expect("served"), [""]);
    if cfg!(feature = "mail") {
        let (address, served) = serve(Identity::new(), Some(MailSecurity::Tls));
        assert!(send(by_mail(address, MailSecurity::Tls, &ca)).is_err());
        assert!(served.join().expect("served").is_empty());
    }
}

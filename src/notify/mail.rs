//! Messages as letters, through the SMTP server of the house.

use super::channel::{Channel, SendError};
use super::message::Message;
use super::{MailOptions, MailSecurity, NotifyError, secret};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::Tls;
use lettre::{SmtpTransport, Transport};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For each answer of the server.
const TIME_MAX: Duration = Duration::from_secs(10);
const SERVER_KEY: &str = "notify.mail_server";
const PASSWORD_KEY: &str = "notify.mail_password_file";

/// An SMTP server, and whom it is to reach.
pub(super) struct Mail {
    host: String,
    port: u16,
    tls: Tls,
    login: Option<(String, PathBuf)>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mail {
    /// # Errors
    /// An address is none, a file can not be used.
    pub(super) fn load(options: &MailOptions, ca: &Path) -> Result<Self, NotifyError> {
        let (host, port) = host_and_port(&options.server, options.security)?;
        let mailbox = |key: &'static str, text: &String| {
            text.parse().map_err(|error| NotifyError::new(key, format!("\"{text}\" is no e-mail address: {error}")))
        };
        let from = mailbox("notify.mail_from", &options.from)?;
        let to = options.to.iter().map(|text| mailbox("notify.mail_to", text)).collect::<Result<_, _>>()?;
        let login = options.password_file.clone().map(|path| (options.user.clone(), path));
        if let Some((_, path)) = &login {
            secret::read(PASSWORD_KEY, path)?;
        }
        let tls = tls(&host, options.security, ca)?;
        Ok(Self { host, port, tls, login, from, to })
    }

    fn transport(&self) -> Result<SmtpTransport, NotifyError> {
        let transport =
            SmtpTransport::builder_dangerous(&self.host).port(self.port).timeout(Some(TIME_MAX)).tls(self.tls.clone());
        let Some((user, path)) = &self.login else { return Ok(transport.build()) };
        let password = secret::read(PASSWORD_KEY, path)?;
        Ok(transport.credentials(Credentials::new(user.clone(), password)).build())
    }

    fn letter(&self, message: &Message) -> Result<lettre::Message, SendError> {
        let letter = self.to.iter().fold(lettre::Message::builder(), |letter, to| letter.to(to.clone()));
        let letter: MessageBuilder = letter
            .from(self.from.clone())
            .subject(message.headline())
            .message_id(Some(format!("<{}@{}>", message.id, self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN);
        letter.body(message.letter()).map_err(SendError::lasting)
    }
}

impl Channel for Mail {
    fn target(&self) -> String {
        let to: Vec<String> = self.to.iter().map(|to| to.email.to_string()).collect();
        format!("mail {} by {}:{}", to.join(", "), self.host, self.port)
    }

    fn send(&self, message: &Message) -> Result<String, SendError> {
        let (letter, transport) = (self.letter(message)?, self.transport()?);
        let refused = |error: lettre::transport::smtp::Error| SendError {
            // "permanent" alone does not say what the server said.
            problem: std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), |why| format!("{error}: {why}")),
            is_passing: !error.is_permanent(),
        };
        let response = transport.send(&letter).map_err(refused)?;
        Ok(response.code().to_string())
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT`; without one, the port that goes with the encryption.
fn host_and_port(server: &str, security: MailSecurity) -> Result<(String, u16), NotifyError> {
    let wrong = || NotifyError::new(SERVER_KEY, format!("\"{server}\" is no server: HOST or HOST:PORT"));
    let usual = match security {
        MailSecurity::StartTls => 587,
        MailSecurity::Tls => 465,
        MailSecurity::Off => 25,
    };
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (server, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@', ' ']) { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(feature = "tls")]
fn tls(host: &str, security: MailSecurity, ca: &Path) -> Result<Tls, NotifyError> {
    use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
    if security == MailSecurity::Off {
        return Ok(Tls::None);
    }
    crate::tls::provide_for_all();
    let wrong = |problem: String| NotifyError::new("notify.ca", format!("{}: {problem}", ca.display()));
    // Read by the same rules as every other CA file, which name what is wrong with it.
    crate::tls::check_authorities(ca).map_err(|error| NotifyError::new("notify.ca", error))?;
    let pem = std::fs::read(ca).map_err(|error| wrong(error.to_string()))?;
    let certificates = Certificate::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
    let parameters = TlsParameters::builder(host.to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(certificates)
        .build()
        .map_err(|error| NotifyError::new(SERVER_KEY, error))?;
    Ok(if security == MailSecurity::Tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

#[cfg(not(feature = "tls"))]
fn tls(_: &str, security: MailSecurity, _: &Path) -> Result<Tls, NotifyError> {
    match security {
        MailSecurity::Off => Ok(Tls::None),
        _ => Err(NotifyError::new("notify.mail_security", "this program was built without TLS (feature tls): none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    /// Takes one letter, answers the recipient with `to_recipient`; gives every line that came.
    fn server(to_recipient: &'static str) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let serve = move || talk(&listener.accept().expect("a connection").0, to_recipient);
        (address, std::thread::spawn(serve))
    }

    fn talk(stream: &TcpStream, to_recipient: &str) -> Vec<String> {
        let (mut lines, mut is_letter) = (Vec::new(), false);
        let mut say = stream;
        say.write_all(b"220 test\r\n").expect("greeted");
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let answer = match line.split(' ').next().unwrap_or_default() {
                "." if is_letter => "250 taken",
                _ if is_letter => "",
                "DATA" => "354 go on",
                "RCPT" => to_recipient,
                "EHLO" => "250-test\r\n250 8BITMIME",
                _ => "250 ok",
            };
            is_letter = line != "." && (is_letter || line == "DATA");
            lines.push(line);
            if !answer.is_empty() && say.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
                break;
            }
        }
        lines
    }

    fn options(server: &str, security: MailSecurity) -> MailOptions {
        MailOptions {
            server: server.to_owned(),
            security,
            from: "tilecatcher <daemon@lab.example>".to_owned(),
            to: vec!["a@lab.example".to_owned(), "b@lab.example".to_owned()],
            ..MailOptions::default()
        }
    }

    #[test]
    fn a_letter_reaches_every_recipient() {
        let (address, received) = server("250 ok");
        let mail = Mail::load(&options(&address, MailSecurity::Off), Path::new("")).expect("good");
        let message = Message::test("/data/tiles");
        assert_eq!(mail.send(&message), Ok("250".to_owned()));
        let lines = received.join().expect("served");
        let recipients: Vec<&String> = lines.iter().filter(|line| line.starts_with("RCPT")).collect();
        assert_eq!(recipients.len(), 2, "{lines:#?}");
        for wanted in ["Subject: [tilecatcher", "/data/tiles", &message.id] {
            assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted} is missing from {lines:#?}");
        }
    }

    #[test]
    fn a_recipient_that_is_refused_for_good_is_not_tried_again() {
        for (answer, is_passing) in [("550 no such user", false), ("451 later", true)] {
            let (address, received) = server(answer);
            let mail = Mail::load(&options(&address, MailSecurity::Off), Path::new("")).expect("good");
            let error = mail.send(&Message::test("")).expect_err("refused");
            assert_eq!(error.is_passing, is_passing, "{error:?}");
            assert!(error.problem.contains(&answer[4..]), "{error:?}");
            drop(mail);
            received.join().expect("served");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_server_without_encryption_gets_no_letter_when_it_is_asked_for() {
        let ca = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, ca.cert.pem()).expect("written");
        let (address, received) = server("250 ok");
        let mail = Mail::load(&options(&address, MailSecurity::StartTls), &path).expect("good");
        assert!(mail.send(&Message::test("")).is_err());
        let lines = received.join().expect("served");
        assert!(!lines.iter().any(|line| line.starts_with("MAIL")), "{lines:?}");
    }

    #[test]
    fn what_can_not_work_is_refused_at_the_start() {
        let refused = |options: MailOptions| Mail::load(&options, Path::new("/nowhere")).err().expect("refused").key;
        let good = options("mail.lab", MailSecurity::Off);
        assert_eq!(refused(MailOptions { to: vec!["nobody".into()], ..good.clone() }), "notify.mail_to");
        assert_eq!(refused(MailOptions { from: "x y".into(), ..good.clone() }), "notify.mail_from");
        assert_eq!(refused(options("mail.lab:x", MailSecurity::Off)), SERVER_KEY);
        assert_eq!(refused(options("http://mail.lab", MailSecurity::Off)), SERVER_KEY);
        let login = MailOptions { user: "x".into(), password_file: Some("/nowhere".into()), ..good };
        assert_eq!(refused(login), PASSWORD_KEY);
        assert!(Mail::load(&options("mail.lab", MailSecurity::Tls), Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_server_without_a_port_gets_the_usual_one() {
        let read = |text| host_and_port(text, MailSecurity::StartTls).expect("good");
        assert_eq!(read("mail.lab"), ("mail.lab".to_owned(), 587));
        assert_eq!(read("mail.lab:2525"), ("mail.lab".to_owned(), 2525));
        assert_eq!(read("[::1]:25"), ("::1".to_owned(), 25));
        assert_eq!(read("::1"), ("::1".to_owned(), 587));
    }
}

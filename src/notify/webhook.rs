//! Messages as JSON by HTTP POST, signed, so that the receiver knows who sent them and when.

use super::channel::{Channel, SendError};
use super::message::Message;
use super::{NotifyError, WebhookOptions, secret};
use crate::model::hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::path::Path;
use std::time::Duration;
use ureq::http::Uri;

/// From the look-up of the name to the end of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
const URL_KEY: &str = "notify.webhook_url";
const URL_FILE_KEY: &str = "notify.webhook_url_file";
const SECRET_KEY: &str = "notify.webhook_secret_file";

/// A server that takes messages.
pub(super) struct Webhook {
    agent: ureq::Agent,
    /// What the agent is made for.
    encrypts: bool,
    options: WebhookOptions,
}

/// A server's URL.
struct Address {
    url: String,
    encrypts: bool,
    /// Scheme and host: the rest of a URL is often a secret.
    target: String,
}

impl Address {
    /// Read anew for each use where it is in a file.
    fn of(options: &WebhookOptions) -> Result<Self, NotifyError> {
        let (key, url) = match &options.url_file {
            Some(path) => (URL_FILE_KEY, secret::read(URL_FILE_KEY, path)?),
            None => (URL_KEY, options.url.clone()),
        };
        let uri: Uri = url.parse().map_err(|error| NotifyError::new(key, format!("no URL: {error}")))?;
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.authority().map(|name| name.host()));
        let Some(host) = host.filter(|_| ["http", "https"].contains(&scheme)) else {
            let problem = "no URL of HTTP: it begins with http:// or https:// and names a host";
            return Err(NotifyError::new(key, problem));
        };
        Ok(Self { encrypts: scheme == "https", target: format!("webhook {scheme}://{host}"), url })
    }
}

/// The signature of a body that is sent at `timestamp` (seconds since 1970), as the header `Tilecatcher-Signature` has it:
/// `sha256=` and the hex form of HMAC-SHA256 over the timestamp's digits, a dot, and the body.
#[must_use]
pub fn signature(secret: &str, timestamp: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

impl Webhook {
    /// # Errors
    /// The URL is none, a file can not be used.
    pub(super) fn load(options: &WebhookOptions, ca: &Path) -> Result<Self, NotifyError> {
        let encrypts = Address::of(options)?.encrypts;
        if let Some(path) = &options.secret_file {
            secret::read(SECRET_KEY, path)?;
        }
        Ok(Self { agent: agent(encrypts, ca)?, encrypts, options: options.clone() })
    }

    /// Where the message goes now.
    fn address(&self) -> Result<Address, NotifyError> {
        let address = Address::of(&self.options)?;
        if address.encrypts != self.encrypts {
            let problem = "http instead of https, or the other way round, since the start: restart the daemon";
            return Err(NotifyError::new(URL_FILE_KEY, problem));
        }
        Ok(address)
    }

    fn signed(&self, timestamp: u64, body: &str) -> Result<Option<String>, NotifyError> {
        let secret = self.options.secret_file.as_ref().map(|path| secret::read(SECRET_KEY, path)).transpose()?;
        Ok(secret.map(|secret| signature(&secret, timestamp, body)))
    }
}

fn agent(encrypts: bool, ca: &Path) -> Result<ureq::Agent, NotifyError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIME_MAX))
        .http_status_as_error(false)
        // A message is for the server that is configured, and for no other.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("tilecatcher/", env!("CARGO_PKG_VERSION")));
    if !encrypts {
        return Ok(config.build().into());
    }
    let files = crate::tls::ClientFiles { ca: ca.to_owned(), identity: None, server_name: None };
    let tls = crate::tls::ClientTls::load(&files).map_err(|error| NotifyError::new("notify.ca", error))?;
    #[cfg(feature = "tls")]
    let config = config.tls_config(tls.for_http());
    #[cfg(not(feature = "tls"))]
    let _ = tls;
    Ok(config.build().into())
}

impl Channel for Webhook {
    fn target(&self) -> String {
        Address::of(&self.options).map_or_else(|_| "webhook".to_owned(), |address| address.target)
    }

    fn send(&self, message: &Message) -> Result<String, SendError> {
        let body = message.json();
        let timestamp = u64::try_from(crate::base::clock::unix_ns() / 1_000_000_000).unwrap_or(0);
        let address = self.address()?;
        let mut request = self
            .agent
            .post(&address.url)
            .content_type("application/json")
            .header("Tilecatcher-Timestamp", timestamp.to_string())
            .header("Tilecatcher-Delivery", &message.id);
        if let Some(signature) = self.signed(timestamp, &body)? {
            request = request.header("Tilecatcher-Signature", signature);
        }
        let status = request.send(&body).map_err(|error| SendError::passing(without_url(&error)))?.status();
        match status.as_u16() {
            200..300 => Ok(status.to_string()),
            // Too early, too many, or the server's own trouble.
            408 | 425 | 429 | 500..600 => Err(SendError::passing(format!("the server answered {status}"))),
            _ => Err(SendError::lasting(format!("the server answered {status}"))),
        }
    }
}

/// What went wrong, without the URL that some errors quote.
fn without_url(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) => "the URL can not be used".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::path::PathBuf;

    /// Answers one request for each status; gives each request's head and body.
    fn server(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<Vec<(String, String)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/secret-path", listener.local_addr().expect("an address"));
        let serve = move || statuses.iter().map(|status| answer(&listener, *status)).collect();
        (url, std::thread::spawn(serve))
    }

    fn answer(listener: &TcpListener, status: u16) -> (String, String) {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(&stream);
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).expect("a line") > 2 {
            head.push_str(&std::mem::take(&mut line));
        }
        let field = |name: &str| field(&head, name);
        let mut body = vec![0; field("content-length").parse().expect("a length")];
        reader.read_exact(&mut body).expect("a body");
        let answer = format!(
            "HTTP/1.1 {status} x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        (&stream).write_all(answer.as_bytes()).expect("answered");
        (head, String::from_utf8(body).expect("text"))
    }

    fn field(head: &str, name: &str) -> String {
        let value = |line: &str| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        head.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {head}"))
    }

    fn webhook(url: &str, secret_file: Option<PathBuf>) -> Result<Webhook, NotifyError> {
        let options = WebhookOptions { url: url.to_owned(), secret_file, ..WebhookOptions::default() };
        Webhook::load(&options, Path::new("/nowhere/ca.pem"))
    }

    #[test]
    fn a_signature_is_what_others_compute() {
        // By Python: hmac.new(b"Jefe", b"1.what do ya want for nothing?", hashlib.sha256).hexdigest()
        let known = "sha256=a9049465ce89cfb8e9aac62333abda66f80e3403f51f57f6bae3c3a4485eca38";
        assert_eq!(signature("Jefe", 1, "what do ya want for nothing?"), known);
    }

    #[test]
    fn a_message_arrives_signed_and_is_known_by_its_id() {
        let (url, received) = server(&[204]);
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), "s3cret\n").expect("written");
        let message = Message::test("/data");
        let hook = webhook(&url, Some(secret.path().to_owned())).expect("good");
        hook.send(&message).expect("sent");
        let (head, body) = received.join().expect("served").remove(0);
        let timestamp = field(&head, "Tilecatcher-Timestamp").parse().expect("a number");
        assert_eq!(field(&head, "Tilecatcher-Signature"), signature("s3cret", timestamp, &body));
        assert_eq!(field(&head, "Tilecatcher-Delivery"), message.id);
        assert_eq!(body, message.json());
        assert!(!hook.target().contains("secret-path"), "{}", hook.target());
    }

    #[test]
    fn a_url_that_is_a_secret_comes_from_a_file_and_may_change() {
        let (first, second) = (server(&[200]), server(&[200]));
        let file = tempfile::NamedTempFile::new().expect("a file");
        let write = |url: &str| std::fs::write(file.path(), format!("{url}\n")).expect("written");
        write(&first.0);
        let options = WebhookOptions { url_file: Some(file.path().to_owned()), ..WebhookOptions::default() };
        let load = || Webhook::load(&options, Path::new("/nowhere/ca.pem"));
        let hook = load().expect("good");
        hook.send(&Message::test("")).expect("sent");
        write(&second.0);
        hook.send(&Message::test("")).expect("sent");
        assert_eq!([first, second].map(|(_, received)| received.join().expect("served").len()), [1, 1]);
        write("https://x/");
        assert!(hook.send(&Message::test("")).expect_err("was http").problem.contains("restart"));
        write("hooks");
        assert_eq!(load().err().expect("no URL").key, URL_FILE_KEY);
    }

    #[test]
    fn a_server_in_trouble_is_asked_again_and_one_that_refuses_is_not() {
        let (url, received) = server(&[500, 429, 404, 301]);
        let hook = webhook(&url, None).expect("good");
        let passing = |_| hook.send(&Message::test("")).expect_err("refused").is_passing;
        assert_eq!([0; 4].map(passing), [true, true, false, false]);
        let requests = received.join().expect("served");
        assert!(!requests[0].0.to_lowercase().contains("tilecatcher-signature"), "{}", requests[0].0);
        assert!(hook.send(&Message::test("")).expect_err("nobody there").is_passing);
    }

    #[test]
    fn what_is_no_url_or_has_no_certificates_is_refused_at_the_start() {
        for (url, key) in [("ftp://x/", URL_KEY), ("hooks", URL_KEY), ("", URL_KEY), ("https://x/", "notify.ca")] {
            assert_eq!(webhook(url, None).err().expect("refused").key, key, "{url}");
        }
        assert_eq!(webhook("http://x/", Some("/nowhere".into())).err().expect("refused").key, SECRET_KEY);
    }
}

//! How notifications are configured.

use super::message::Kind;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Who is told what.
#[derive(Clone, Debug, Default)]
pub struct NotifyOptions {
    /// A server that is told by HTTP.
    pub webhook: Option<WebhookOptions>,
    /// People who are told by e-mail.
    pub mail: Option<MailOptions>,
    /// Whose certificates servers must have, PEM.
    pub ca: PathBuf,
    /// What is told.
    pub events: BTreeSet<Kind>,
    /// Free space below which the disk is low, bytes; 0: never.
    pub disk_low_bytes: u64,
    /// Silence in an open acquisition after which it has stalled; zero: never.
    pub stalled_after: Duration,
    /// Shortest time between two messages of one kind about one thing.
    pub repeat: Duration,
}

/// A server that is told by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookOptions {
    /// Where messages are posted.
    pub url: String,
    /// A file with that URL in place of it: many URLs are secrets.
    pub url_file: Option<PathBuf>,
    /// What they are signed with; `None`: not at all.
    pub secret_file: Option<PathBuf>,
}

/// An SMTP server, and whom it is to reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailOptions {
    /// HOST or HOST:PORT.
    pub server: String,
    /// How the connection is encrypted.
    pub security: MailSecurity,
    /// Who logs in; empty: nobody.
    pub user: String,
    /// The password.
    pub password_file: Option<PathBuf>,
    /// The sender's address.
    pub from: String,
    /// The recipients' addresses.
    pub to: Vec<String>,
}

/// How a connection to an SMTP server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailSecurity {
    /// In the clear first, then encrypted, or not used (port 587).
    #[default]
    StartTls,
    /// From the first byte (port 465).
    Tls,
    /// Not at all (port 25).
    Off,
}

impl FromStr for MailSecurity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "starttls" => Ok(Self::StartTls),
            "tls" => Ok(Self::Tls),
            "none" => Ok(Self::Off),
            other => Err(format!("\"{other}\" is no way to encrypt: starttls, tls or none")),
        }
    }
}

impl NotifyOptions {
    /// The webhook's options, for keys to fill.
    pub(crate) fn webhook(&mut self) -> &mut WebhookOptions {
        self.webhook.get_or_insert_default()
    }

    /// The mail's options, for keys to fill.
    pub(crate) fn mail(&mut self) -> &mut MailOptions {
        self.mail.get_or_insert_default()
    }

    /// Relations between keys. What names no server is no channel.
    ///
    /// # Errors
    /// Something is set that does nothing, or something needed is not.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        if let Some(webhook) = self.webhook.take() {
            let is_named = [!webhook.url.is_empty(), webhook.url_file.is_some()];
            match (is_named, webhook.secret_file.is_some()) {
                ([true, true], _) => {
                    return Err("notify.webhook_url_file: set it or notify.webhook_url, not both".to_owned());
                }
                ([false, false], true) => {
                    return Err("notify.webhook_secret_file: set notify.webhook_url, too".to_owned());
                }
                ([false, false], false) => {}
                _ => self.webhook = Some(webhook),
            }
        }
        if let Some(mail) = self.mail.take() {
            self.mail = mail.settled()?;
        }
        Ok(())
    }
}

impl MailOptions {
    fn settled(self) -> Result<Option<Self>, String> {
        let named = [&self.user, &self.from].iter().any(|text| !text.is_empty());
        if self.server.is_empty() {
            return match named || !self.to.is_empty() || self.password_file.is_some() {
                true => Err("notify.mail_*: set notify.mail_server, or none of them".to_owned()),
                false => Ok(None),
            };
        }
        if self.from.is_empty() || self.to.is_empty() {
            return Err("notify.mail_server: set notify.mail_from and notify.mail_to, too".to_owned());
        }
        if self.user.is_empty() != self.password_file.is_none() {
            return Err("notify.mail_user: set it and notify.mail_password_file, or none of them".to_owned());
        }
        if self.security == MailSecurity::Off && !self.user.is_empty() {
            return Err("notify.mail_security: none would send the password in the clear: starttls or tls, or no notify.mail_user".to_owned());
        }
        Ok(Some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail() -> MailOptions {
        MailOptions {
            server: "mail.lab".into(),
            from: "a@lab".into(),
            to: vec!["b@lab".into()],
            ..MailOptions::default()
        }
    }

    #[test]
    fn what_can_not_work_is_refused_with_the_keys_that_would_mend_it() {
        let refused = |mail: MailOptions| mail.settled().expect_err("can not work");
        assert!(refused(MailOptions { from: String::new(), ..mail() }).contains("mail_from"));
        assert!(refused(MailOptions { to: Vec::new(), ..mail() }).contains("mail_to"));
        assert!(refused(MailOptions { server: String::new(), ..mail() }).contains("mail_server"));
        assert!(refused(MailOptions { user: "x".into(), ..mail() }).contains("mail_password_file"));
        let login = MailOptions { user: "x".into(), password_file: Some("p".into()), ..mail() };
        assert_eq!(login.clone().settled(), Ok(Some(login.clone())));
        assert!(refused(MailOptions { security: MailSecurity::Off, ..login }).contains("in the clear"));
        assert_eq!(MailOptions::default().settled(), Ok(None));
    }

    #[test]
    fn a_secret_without_a_webhook_is_a_mistake() {
        let mut options = NotifyOptions::default();
        options.webhook().secret_file = Some("s".into());
        assert!(options.settle().expect_err("no url").contains("webhook_url"));
        let mut options = NotifyOptions::default();
        options.webhook().url = "http://x".into();
        options.settle().expect("good");
        assert!(options.webhook.is_some());
        options.webhook().url_file = Some("u".into());
        assert!(options.clone().settle().expect_err("two URLs").contains("webhook_url_file"));
        options.webhook().url.clear();
        options.settle().expect("good");
        assert!(options.webhook.is_some());
    }
}

//! What a client is called: the first name in its certificate's SAN, else the common name of its subject.
//!
//! Only certificates that were verified come here. A name has at most 64 characters, none of them a control character.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

const NAME_CHARS_MAX: usize = 64;
/// DER tags.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The name in a certificate; `unnamed` when it has none.
pub(super) fn client_name(certificate: &CertificateDer<'_>) -> String {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return "unnamed".to_owned() };
    let of_san = certificate.valid_dns_names().next().or_else(|| certificate.valid_uri_names().next());
    let name = of_san.map(str::to_owned).or_else(|| common_name(certificate.subject()));
    let printable =
        |name: String| -> String { name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect() };
    name.map(printable).filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_owned())
}

/// The last common name of a subject, given without its outer header: sets of pairs of identifier and text.
fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while !subject.is_empty() {
        let (set, rest) = take(subject, SET)?;
        let (pair, _) = take(set, SEQUENCE)?;
        let (identifier, value) = take(pair, OBJECT_IDENTIFIER)?;
        if identifier == COMMON_NAME {
            let (text, _) = take(value, *value.first()?)?;
            found = String::from_utf8(text.to_vec()).ok();
        }
        subject = rest;
    }
    found
}

/// The content of the first element, which must have this tag, and what follows it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, short], rest) = der.split_first_chunk::<2>()?;
    let (len, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        0x82 => rest.split_first_chunk::<2>().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(len)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn named(names: &[&str], common: Option<&str>) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "a laboratory");
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        let key = KeyPair::generate().expect("a key");
        client_name(params.self_signed(&key).expect("a certificate").der())
    }

    #[test]
    fn the_san_names_a_client_else_its_common_name_else_nothing() {
        assert_eq!(named(&["scope-7.lab", "other"], Some("camera pc")), "scope-7.lab");
        assert_eq!(named(&[], Some("camera pc 7")), "camera pc 7");
        assert_eq!(named(&["192.0.2.7"], Some("by address")), "by address");
        assert_eq!(named(&[], None), "unnamed");
    }

    #[test]
    fn a_name_is_short_and_printable() {
        assert_eq!(named(&[], Some("a\nb\u{7}c")), "abc");
        assert_eq!(named(&[], Some(&"é".repeat(300))).chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn a_subject_that_is_cut_anywhere_has_no_name_and_breaks_nothing() {
        let subject = [&[SET, 12, SEQUENCE, 10, OBJECT_IDENTIFIER, 3][..], COMMON_NAME, &[0x0c, 3], b"pc7"].concat();
        assert_eq!(common_name(&subject).as_deref(), Some("pc7"));
        for cut in 1..subject.len() {
            assert_eq!(common_name(&subject[..cut]), None, "cut at {cut}");
        }
    }
}

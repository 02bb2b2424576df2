use super::*;

const PEER: &str = "198.51.100.7";

fn access(options: AccessOptions) -> Arc<Access> {
    Access::start(options, &Arc::new(Metrics::new())).expect("access")
}

fn options(networks: &str) -> AccessOptions {
    let networks = networks.parse().expect("networks");
    AccessOptions { networks, open_paths: vec!["/healthz".to_owned()], ..AccessOptions::default() }
}

/// A file with one token of each scope; their texts in the order of [`Scope::ALL`].
fn tokens(dir: &tempfile::TempDir) -> (PathBuf, Vec<Token>) {
    let file = TokenFile::at(dir.path().join("tokens"));
    let add = |scope: Scope| {
        let token = Token::new().expect("random");
        let (name, scopes, digest) = (scope.name().parse().expect("a name"), Scopes::of(&[scope]), token.digest());
        file.add(&TokenEntry { name, scopes, digest, made: "2026-03-04".to_owned() }).expect("added");
        token
    };
    let tokens = Scope::ALL.into_iter().map(add).collect();
    (file.path().to_owned(), tokens)
}

fn asked<'a>(peer: &str, need: Need) -> Asked<'a> {
    let peer = peer.parse().expect("an address");
    Asked {
        peer,
        bearer: None,
        host: Some("127.0.0.1:5001"),
        origin: None,
        asked_by: None,
        path: "/x",
        need: Some(need),
    }
}

fn judged(access: &Access, peer: &str) -> [Result<(), Denied>; 4] {
    [Need::Reading, Need::SenderReading, Need::Ingesting, Need::Administering]
        .map(|need| access.judge(&asked(peer, need)).1)
}

#[test]
fn without_tokens_loopback_has_everything_networks_send_and_read_others_nothing() {
    let access = access(options("198.51.100.0/24"));
    let lacks = |need| Err(Denied::Lacks(need));
    assert_eq!(judged(&access, "127.0.0.9"), [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(judged(&access, "::ffff:127.0.0.1"), [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(judged(&access, PEER), [Ok(()), Ok(()), Ok(()), lacks(Need::Administering)]);
    assert_eq!(judged(&access, "203.0.113.1")[1], lacks(Need::SenderReading));
    let with_any_token = Asked { bearer: Some("x"), ..asked(PEER, Need::Reading) };
    assert!(access.judge(&with_any_token).1.is_ok(), "nobody can say that it is wrong");
}

#[test]
fn with_tokens_addresses_keep_what_senders_without_one_need() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, _) = tokens(&dir);
    let access = access(AccessOptions { tokens: Some(path), ..options("198.51.100.0/24") });
    let no = || Err(Denied::NoToken);
    assert_eq!(judged(&access, "127.0.0.1"), [no(), no(), no(), no()]);
    assert_eq!(judged(&access, PEER), [no(), Ok(()), Ok(()), no()]);
    assert_eq!(judged(&access, "203.0.113.1"), [no(), no(), no(), no()]);
    let health = |peer| access.judge(&Asked { path: "/healthz", ..asked(peer, Need::Reading) }).1;
    assert_eq!((health("127.0.0.1"), health(PEER), health("203.0.113.1")), (Ok(()), Ok(()), no()));
    assert!(access.admits_capture("127.0.0.1:9".parse().expect("an address")), "it can not carry a token");
    assert!(!access.admits_capture("203.0.113.1:9".parse().expect("an address")));
}

#[test]
fn a_token_says_who_asks_and_adds_to_what_the_address_may() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, tokens) = tokens(&dir);
    let access = access(AccessOptions { tokens: Some(path), ..options("198.51.100.0/24") });
    let judge = |peer, token: &Token, need| access.judge(&Asked { bearer: Some(token.reveal()), ..asked(peer, need) });
    let (by, allowed) = judge("203.0.113.1", &tokens[0], Need::Reading);
    assert_eq!((by.to_string().as_str(), allowed), ("token read", Ok(())));
    let lacks = |need| Err(Denied::Lacks(need));
    assert_eq!(judge("203.0.113.1", &tokens[0], Need::Ingesting).1, lacks(Need::Ingesting));
    assert_eq!(judge(PEER, &tokens[0], Need::Ingesting).1, Ok(()), "its network may");
    assert_eq!(judge("203.0.113.1", &tokens[1], Need::SenderReading).1, Ok(()));
    assert_eq!(judge("203.0.113.1", &tokens[1], Need::Reading).1, lacks(Need::Reading));
    assert_eq!(judge("203.0.113.1", &tokens[2], Need::Administering).1, Ok(()));
    let wrong = Asked { bearer: Some("tilecatcher_00"), ..asked(PEER, Need::SenderReading) };
    for _ in 0..10 {
        assert_eq!(access.judge(&wrong).1, Err(Denied::BadToken), "its network would do, and yet");
    }
    assert!(matches!(access.judge(&wrong).1, Err(Denied::TooMany(_))));
    assert_eq!(judge(PEER, &tokens[2], Need::Reading).1, Ok(()), "a right token counts whatever others showed");
    assert_eq!(access.judge(&asked(PEER, Need::Ingesting)).1, Ok(()), "who shows no token is not meant");
}

#[test]
fn what_holds_no_data_is_for_everybody() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let guarded = access(AccessOptions { tokens: Some(tokens(&dir).0), ..options("") });
    assert_eq!(guarded.judge(&asked("203.0.113.1", Need::Nothing)).1, Ok(()));
    assert_eq!(guarded.judge(&asked("203.0.113.1", Need::Reading)).1, Err(Denied::NoToken));
}

#[test]
fn a_route_without_a_scope_lets_nobody_in() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, tokens) = tokens(&dir);
    let nobody = Asked { need: None, ..asked("127.0.0.1", Need::Reading) };
    assert_eq!(access(options("")).judge(&nobody).1, Err(Denied::NoScope));
    let guarded = access(AccessOptions { tokens: Some(path), ..options("") });
    let admin = Asked { bearer: Some(tokens[2].reveal()), ..nobody };
    assert_eq!(guarded.judge(&admin).1, Err(Denied::NoScope));
}

#[test]
fn what_rests_on_an_address_must_use_our_name_and_come_from_our_page() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, tokens) = tokens(&dir);
    let open = access(options("198.51.100.0/24"));
    let evil = |peer| Asked { host: Some("evil.example"), ..asked(peer, Need::Reading) };
    let host = || Err(Denied::Host("evil.example".to_owned()));
    assert_eq!(open.judge(&evil("127.0.0.1")).1, host());
    assert_eq!(open.judge(&evil(PEER)).1, Ok(()), "no names are configured for the networks");
    let named = access(AccessOptions { host_names: vec!["catcher.example".to_owned()], ..options("198.51.100.0/24") });
    assert_eq!(named.judge(&evil(PEER)).1, host());
    assert_eq!(named.judge(&Asked { host: Some("catcher.example:80"), ..evil(PEER) }).1, Ok(()));
    let page = Asked { origin: Some("http://evil.example"), ..asked("127.0.0.1", Need::Ingesting) };
    assert!(matches!(open.judge(&page).1, Err(Denied::Origin(_))));
    let guarded = access(AccessOptions { tokens: Some(path), ..options("") });
    assert_eq!(guarded.judge(&Asked { bearer: Some(tokens[0].reveal()), ..evil("127.0.0.1") }).1, Ok(()));
}

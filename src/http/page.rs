//! The live view: the page at `/` and the files that it is made of, all of them part of the program.
//!
//! Serves bytes that hold no data of anybody, so nobody needs a token for them; what the page shows it asks for like every
//! other client. Must never take a name to a file system, nor allow a script that is not one of these files.

use super::answer::{Failure, Path};
use crate::model::hex;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// What the page may do: its own scripts, styles and icon, requests to this daemon, and no text that becomes a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type, content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("index.html", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    ("page.css", "text/css; charset=utf-8", include_bytes!("page/page.css")),
    ("icon.svg", "image/svg+xml", include_bytes!("page/icon.svg")),
    ("acquisitions.js", SCRIPT, include_bytes!("page/acquisitions.js")),
    ("api.js", SCRIPT, include_bytes!("page/api.js")),
    ("cells.js", SCRIPT, include_bytes!("page/cells.js")),
    ("controls.js", SCRIPT, include_bytes!("page/controls.js")),
    ("dom.js", SCRIPT, include_bytes!("page/dom.js")),
    ("gauges.js", SCRIPT, include_bytes!("page/gauges.js")),
    ("life.js", SCRIPT, include_bytes!("page/life.js")),
    ("live.js", SCRIPT, include_bytes!("page/live.js")),
    ("main.js", SCRIPT, include_bytes!("page/main.js")),
    ("margins.js", SCRIPT, include_bytes!("page/margins.js")),
    ("missing.js", SCRIPT, include_bytes!("page/missing.js")),
    ("mosaic.js", SCRIPT, include_bytes!("page/mosaic.js")),
    ("paint.js", SCRIPT, include_bytes!("page/paint.js")),
    ("picture.js", SCRIPT, include_bytes!("page/picture.js")),
    ("summary.js", SCRIPT, include_bytes!("page/summary.js")),
    ("thumbnails.js", SCRIPT, include_bytes!("page/thumbnails.js")),
    ("tile.js", SCRIPT, include_bytes!("page/tile.js")),
    ("token.js", SCRIPT, include_bytes!("page/token.js")),
];

/// A file of the page as it is answered.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
    etag: String,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let asset = |&(name, media_type, bytes): &(&'static str, &'static str, &'static [u8])| {
        let digest = Sha256::digest(bytes);
        let etag = format!("\"{}\"", hex(&digest[..8]));
        Asset { name, media_type, bytes, etag }
    };
    FILES.iter().map(asset).collect()
});

/// The live view: a page for a browser.
#[utoipa::path(get, path = "/", tag = "service",
    responses((status = 200, content_type = "text/html", body = String,
        headers(("ETag" = String, description = "Names the content"))), (status = 304)))]
pub(super) async fn index(headers: HeaderMap) -> Result<Response, Failure> {
    answer("index.html", &headers)
}

/// A file of the live view.
#[utoipa::path(get, path = "/page/{name}", tag = "service", params(("name" = String, Path)),
    responses((status = 200, content((String = "text/javascript"), (String = "text/css"), (String = "text/html"),
        (String = "image/svg+xml")), headers(("ETag" = String, description = "Names the content"))), (status = 304)))]
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    answer(&name, &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Result<Response, Failure> {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Err(Failure::missing(format!("the page has no file {name}")));
    };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known =
        known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.etag));
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::new(Body::from(asset.bytes)),
    };
    let out = response.headers_mut();
    let mut put = |name: HeaderName, value: &str| {
        out.insert(name, HeaderValue::from_str(value).expect("made of what a header may hold"));
    };
    put(header::CONTENT_TYPE, asset.media_type);
    put(header::ETAG, &asset.etag);
    // A browser asks each time: after an update of the daemon no file of the one before is used.
    put(header::CACHE_CONTROL, "no-cache");
    put(header::CONTENT_SECURITY_POLICY, POLICY);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> &'static str {
        let file = FILES.iter().find(|(known, ..)| *known == name);
        std::str::from_utf8(file.expect("a file of the page").2).expect("text")
    }

    /// What follows each `before`, up to the next quote.
    fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn whatever_the_page_refers_to_is_one_of_its_files() {
        let mut used = vec!["index.html"];
        for at in ["src=\"/page/", "href=\"/page/"] {
            used.extend(quoted(text("index.html"), at));
        }
        for (_, _, script) in FILES.iter().filter(|(_, media_type, _)| *media_type == SCRIPT) {
            used.extend(quoted(std::str::from_utf8(script).expect("text"), "from \"./"));
        }
        for (name, ..) in FILES {
            assert!(used.contains(name), "nothing uses {name}");
        }
        for name in used {
            text(name);
        }
    }

    #[test]
    fn nothing_in_it_is_inline_or_from_elsewhere() {
        let page = text("index.html");
        for forbidden in ["<style", " style=", "onclick=", "onload=", "http://", "https://", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden} in index.html");
        }
        for script in page.split("<script").skip(1) {
            assert!(script.split('>').next().is_some_and(|tag| tag.contains("src=")), "an inline script: {script:.80}");
        }
        for (name, ..) in FILES.iter().filter(|(name, ..)| *name != "icon.svg") {
            for forbidden in ["innerHTML", "outerHTML", "document.write", "eval(", "//cdn", "@import"] {
                assert!(!text(name).contains(forbidden), "{forbidden} in {name}");
            }
        }
        assert!(!text("page.css").contains("url("), "a style that loads something");
    }

    #[test]
    fn all_of_it_is_small() {
        let bytes: usize = FILES.iter().map(|(.., bytes)| bytes.len()).sum();
        assert!(bytes < 120_000, "{bytes} bytes");
    }

    #[test]
    fn a_known_content_is_not_sent_again() {
        let first = answer("page.css", &HeaderMap::new()).expect("an answer");
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let again = answer("page.css", &headers).expect("an answer");
        assert_eq!((first.status(), again.status()), (StatusCode::OK, StatusCode::NOT_MODIFIED));
        assert!(answer("../mod.rs", &HeaderMap::new()).is_err());
    }
}

//! The scope of every route, in one table. A route that is not in it lets nobody in.

use crate::access::Need::{self, Administering, Ingesting, Nothing, Reading, SenderReading};
use axum::http::Method;
use serde_json::Value;
use std::collections::HashMap;

/// Method, path, need.
const NEEDS: &[(&str, &str, Need)] = &[
    // The files of the live view hold no data; with them whoever needs a token can be asked for it.
    ("get", "/", Nothing),
    ("get", "/page/{name}", Nothing),
    ("get", "/healthz", Reading),
    ("get", "/readyz", SenderReading),
    ("get", "/metrics", Reading),
    ("get", "/service/v1/ping", SenderReading),
    ("get", "/service/v1/openapi.json", SenderReading),
    ("post", "/service/v1/start-acquisition", Ingesting),
    ("post", "/service/v1/create-rois/{acqid}", Ingesting),
    ("post", "/service/v1/end-acquisition/{acqid}", Ingesting),
    ("post", "/service/v1/store-ancillary-files/{acqid}", Ingesting),
    ("put", "/service/v1/capture-image-content/{acqid}", Ingesting),
    ("post", "/service/v1/capture-image-content/{acqid}", Ingesting),
    ("post", "/service/v1/next-tile", Ingesting),
    ("put", "/service/v1/tile-state", Ingesting),
    // `send --calibrations` brings them along.
    ("post", "/service/v1/calibrations", Ingesting),
    ("delete", "/service/v1/acquisition/{acqid}", Administering),
    ("put", "/service/v1/temca/{id}", Administering),
    ("get", "/service/v1/acquisitions", SenderReading),
    ("get", "/service/v1/acquisition/{acqid}/completeness", SenderReading),
    ("get", "/service/v1/acquisition/{acqid}/files", SenderReading),
    ("get", "/api/v1/acquisitions/{acqid}", SenderReading),
    ("get", "/api/v1/acquisitions/{acqid}/tiles", SenderReading),
    ("get", "/service/v1/projects", Reading),
    ("get", "/service/v1/acquisition/{acqid}/manifest", Reading),
    ("get", "/service/v1/acquisition/{acqid}/files/{name}", Reading),
    ("get", "/service/v1/acquisition/{acqid}/tiles", Reading),
    ("get", "/service/v1/tiles", Reading),
    ("get", "/service/v1/acquisition/{acqid}/tile/{col}/{row}", Reading),
    ("get", "/service/v1/acquisition/{acqid}/tile/{col}/{row}/content", Reading),
    ("get", "/service/v1/tile/{tileid}", Reading),
    ("get", "/service/v1/tile/{tileid}/content", Reading),
    ("get", "/service/v1/verify-tile/{acqid}/tile/{tileid}", Reading),
    ("get", "/service/v1/calibrations", Reading),
    ("get", "/service/v1/calibration/name/{name}", Reading),
    ("get", "/service/v1/temcas", Reading),
    ("get", "/service/v1/temca/{id}", Reading),
    ("get", "/api/v1/status", Reading),
    ("get", "/api/v1/events", Reading),
    ("get", "/api/v1/acquisitions/{acqid}/mosaic", Reading),
    ("get", "/api/v1/tiles/{tileid}", Reading),
    ("get", "/api/v1/contents/{key}", Reading),
    ("get", "/api/v1/acquisitions/{acqid}/places/{col}/{row}", Reading),
    ("get", "/api/v1/admin/capture", Administering),
    ("post", "/api/v1/admin/capture/pause", Administering),
    ("post", "/api/v1/admin/capture/resume", Administering),
    ("post", "/api/v1/admin/drain", Administering),
    ("post", "/api/v1/admin/journal/rotate", Administering),
    ("get", "/api/v1/admin/log-level", Administering),
    ("put", "/api/v1/admin/log-level", Administering),
    ("get", "/api/v1/admin/limits", Administering),
    ("put", "/api/v1/admin/limits", Administering),
    ("get", "/api/v1/admin/senders", Administering),
    ("delete", "/api/v1/admin/senders/{sender}", Administering),
    ("get", "/api/v1/admin/scrub", Administering),
    ("post", "/api/v1/admin/scrub/start", Administering),
    ("post", "/api/v1/admin/scrub/stop", Administering),
    ("get", "/api/v1/admin/index", Administering),
    ("post", "/api/v1/admin/index/check", Administering),
    ("post", "/api/v1/admin/index/rebuild", Administering),
    ("get", "/api/v1/tiles/{tileid}/image", Reading),
    ("get", "/api/v1/acquisitions/{acqid}/tile/{col}/{row}/image", Reading),
    ("get", "/api/v1/acquisitions/{acqid}/thumbnails/{level}/{x}/{y}", Reading),
];

/// What an operation needs; `None`: it is not in the table.
pub(super) fn need(method: &str, path: &str) -> Option<Need> {
    NEEDS.iter().find(|(known, at, _)| *known == method && *at == path).map(|(.., need)| *need)
}

/// The needs of all operations that there are.
pub(super) struct Needs(HashMap<String, HashMap<Method, Option<Need>>>);

impl Needs {
    /// Of every operation in the description; one without a need is an error of ours, and is said.
    pub(super) fn of(api: &Value) -> Self {
        let mut needs: HashMap<String, HashMap<Method, Option<Need>>> = HashMap::new();
        for (path, methods) in api["paths"].as_object().into_iter().flatten() {
            for name in methods.as_object().into_iter().flatten().map(|(name, _)| name) {
                let found = need(name, path);
                if found.is_none() {
                    tracing::error!(method = name, path, "a route without a scope: nobody may use it");
                }
                if let Ok(method) = Method::from_bytes(name.to_uppercase().as_bytes()) {
                    needs.entry(path.clone()).or_default().insert(method, found);
                }
            }
        }
        Self(needs)
    }

    /// What a request needs; `route`: the path of the route that takes it, if one does. Where nothing is, anybody who may
    /// ask for something may learn that.
    pub(super) fn for_request(&self, method: &Method, route: Option<&str>) -> Option<Need> {
        let Some(route) = route else { return Some(SenderReading) };
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.0.get(route)?.get(method).copied().unwrap_or(Some(SenderReading))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_in_no_table_lets_nobody_in() {
        let needs = Needs::of(&json!({ "paths": { "/healthz": { "get": {}, "delete": {} } } }));
        let of = |method: Method, route| needs.for_request(&method, route);
        assert_eq!(of(Method::GET, Some("/healthz")), Some(Reading));
        assert_eq!(of(Method::HEAD, Some("/healthz")), Some(Reading));
        assert_eq!(of(Method::DELETE, Some("/healthz")), None, "described, without a scope");
        assert_eq!(of(Method::GET, Some("/hidden")), None, "a route without a description");
        assert_eq!(of(Method::PUT, Some("/healthz")), Some(SenderReading), "will be told that it is not taken");
        assert_eq!(of(Method::GET, None), Some(SenderReading), "will be told that it is not there");
    }

    #[test]
    fn every_route_has_a_scope_and_every_scope_a_route() {
        let (_, api) = super::super::described().split_for_parts();
        let api = serde_json::to_value(api).expect("JSON");
        let mut described = 0;
        for (path, methods) in api["paths"].as_object().expect("paths") {
            for (method, _) in methods.as_object().expect("methods") {
                assert!(need(method, path).is_some(), "{method} {path} has no scope");
                described += 1;
            }
        }
        assert_eq!(described, NEEDS.len(), "the table has routes that are not there, or one twice");
    }
}

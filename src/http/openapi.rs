//! The OpenAPI 3.1 description, generated from the routes themselves, and what all of them have in common added to it.

use super::shapes::ErrorBody;
use super::{AppState, described, scopes};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tilecatcher",
        description = "Captures microscope tiles, serves them back. Errors are JSON with an `errormessage`. Parameters \
            left empty count as absent, unknown ones are passed over. What takes GET takes HEAD. Another method gets 405 \
            with `Allow`, another path 404. A slash at the end of a path is passed over."
    ),
    components(schemas(ErrorBody))
)]
pub(super) struct Description;

/// Errors that an operation can give besides those it names: status, what it means, whether it applies.
type CommonError = (&'static str, &'static str, fn(&Route<'_>) -> bool);

const COMMON: &[CommonError] = &[
    ("401", "It needs a token, or its token is not known", |_| true),
    ("403", "Who asks may not do this", |_| true),
    ("414", "Path and query are too long", |_| true),
    ("429", "Too many wrong tokens came from this address", |_| true),
    ("431", "The headers are too long", |_| true),
    ("400", "A parameter or the body is not what it should be", |route| route.has_parameters || route.has_body),
    ("404", "There is no such thing", |route| route.has_path_parameters && (route.reads() || route.method == "delete")),
    ("408", "The body stopped coming", |route| route.has_body),
    ("413", "The body is too long", |route| route.has_body),
    ("500", "The storage failed, or stored bytes are damaged", |route| route.uses_storage),
    ("503", "Too much is going on, or the daemon is stopping: try again", |route| route.uses_storage),
    ("507", "There is no space", |route| !route.reads()),
];

/// An operation, as far as it decides which errors it can give.
struct Route<'a> {
    method: &'a str,
    has_parameters: bool,
    has_path_parameters: bool,
    has_body: bool,
    uses_storage: bool,
}

impl Route<'_> {
    fn reads(&self) -> bool {
        self.method == "get"
    }
}

/// Adds what all operations share, and what no attribute can say.
pub(super) fn complete(api: utoipa::openapi::OpenApi) -> Value {
    let mut api = serde_json::to_value(api).expect("a description is JSON");
    for (path, methods) in api["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete_operation(path, method, operation);
        }
    }
    described::shapes(&mut api["components"]["schemas"]);
    api["components"]["securitySchemes"]["token"] = json!({ "type": "http", "scheme": "bearer",
        "description": "A token of the daemon's file. Without one, what the address of the client allows." });
    name_unsigned(&mut api);
    api
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let words = path.split(['/', '{', '}', '.', '-']).filter(|word| !word.is_empty());
    operation["operationId"] = [method].into_iter().chain(words).collect::<Vec<_>>().join("_").into();
    if operation["description"].is_null() {
        operation["description"] = operation["summary"].clone();
    }
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for parameter in &mut parameters {
        if parameter["in"] == "query" {
            parameter["allowEmptyValue"] = true.into();
        }
        let name = parameter["name"].as_str().unwrap_or_default();
        let Some((schema, meaning)) = described::parameter(path, name) else { continue };
        parameter["schema"] = schema;
        if parameter["description"].is_null() {
            parameter["description"] = meaning.into();
        }
    }
    if operation["responses"]["206"].is_object() {
        parameters.extend(described::content_parameters());
    }
    if let Some(body) = described::body(path).filter(|_| method != "get") {
        operation["requestBody"] = body;
    }
    let route = Route {
        method,
        has_parameters: !parameters.is_empty(),
        has_path_parameters: path.contains('{'),
        has_body: operation["requestBody"].is_object(),
        uses_storage: operation["tags"][0] != "service",
    };
    complete_responses(path, &route, &mut operation["responses"]);
    operation["security"] = security(method, path);
    if route.has_parameters {
        operation["parameters"] = parameters.into();
    }
}

/// No token where the address will do, or one with any of the scopes.
fn security(method: &str, path: &str) -> Value {
    let scopes = scopes::need(method, path).into_iter().flat_map(|need| need.scopes());
    let with_scope = scopes.map(|scope| json!({ "token": [scope.name()] }));
    std::iter::once(json!({})).chain(with_scope).collect()
}

fn complete_responses(path: &str, route: &Route<'_>, responses: &mut Value) {
    for (status, meaning, _) in COMMON.iter().filter(|(.., applies)| applies(route)) {
        if responses[status].is_null() {
            let body = json!({ "schema": { "$ref": "#/components/schemas/ErrorBody" } });
            responses[status] = json!({ "description": meaning, "content": { "application/json": body } });
        }
    }
    for (status, response) in responses.as_object_mut().into_iter().flatten() {
        if response["description"].as_str().is_none_or(str::is_empty) {
            response["description"] = described::meaning(status).into();
        }
        described::answer(path, status, response);
    }
}

/// Unsigned integers are described as signed ones from 0 on; names them as what they are.
fn name_unsigned(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(name_unsigned),
        Value::Object(fields) => {
            if fields.get("minimum").and_then(Value::as_f64).is_some_and(|minimum| minimum >= 0.0) {
                match fields.get("format").and_then(Value::as_str) {
                    Some("int32") => drop(fields.insert("format".into(), "uint32".into())),
                    Some("int64") => drop(fields.insert("format".into(), "uint64".into())),
                    _ => {}
                }
            }
            fields.values_mut().for_each(name_unsigned);
        }
        _ => {}
    }
}

/// This description.
#[utoipa::path(get, path = "/service/v1/openapi.json", tag = "service", responses((status = 200, body = Object)))]
pub(super) async fn serve(State(state): State<AppState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], state.api)
}

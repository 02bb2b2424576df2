//! The OpenAPI 3.1 description, generated from the routes themselves, and what all of them have in common added to it.

use super::AppState;
use super::shapes::ErrorBody;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi;
use utoipa::openapi::path::{HttpMethod, Operation, ParameterIn};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tilecatcher",
        description = "Captures microscope tiles, serves them back. Errors are JSON with an `errormessage`."
    ),
    components(schemas(ErrorBody))
)]
pub(super) struct Description;

/// Errors that an operation can give besides those it names: status, what it means, whether it applies.
type CommonError = (&'static str, &'static str, fn(&Operation, Method) -> bool);

/// Methods as far as they matter here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Change,
}

const COMMON: &[CommonError] = &[
    ("400", "A parameter or the body is not what it should be", |_, _| true),
    ("404", "There is no such thing", |operation, _| has_path_parameter(operation)),
    ("408", "The body stopped coming", |operation, _| operation.request_body.is_some()),
    ("409", "It contradicts what is stored or configured", |_, method| method == Method::Change),
    ("413", "The body is too long", |_, method| method == Method::Change),
    ("500", "The storage failed, or stored bytes are damaged", |_, _| true),
    ("503", "Too much is going on, or the daemon is stopping: try again", |_, _| true),
    ("507", "There is no space", |_, method| method == Method::Change),
];

fn has_path_parameter(operation: &Operation) -> bool {
    operation.parameters.iter().flatten().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Path,
        RefOr::Ref(_) => true,
    })
}

/// Adds the errors that all operations share.
pub(super) fn complete(mut api: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for item in api.paths.paths.values_mut() {
        for (method, operation) in [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Delete, &mut item.delete),
        ] {
            let Some(operation) = operation else { continue };
            let method = if method == HttpMethod::Get { Method::Get } else { Method::Change };
            for (status, meaning, applies) in COMMON {
                if applies(operation, method) && !operation.responses.responses.contains_key(*status) {
                    operation.responses.responses.insert((*status).to_owned(), error(meaning));
                }
            }
        }
    }
    api
}

fn error(meaning: &str) -> RefOr<utoipa::openapi::Response> {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(meaning).content("application/json", body).build().into()
}

/// This description.
#[utoipa::path(get, path = "/service/v1/openapi.json", tag = "service", responses((status = 200, body = Object)))]
pub(super) async fn serve(State(state): State<AppState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], state.api)
}

//! Answers as Docker's clients want them: errors are `{"message"}` with the content type `application/json` exactly
//! (with a charset behind it the docker CLI prints the raw JSON), and no body is ever empty where they parse one.

use crate::core::face::{Accepted, Refused};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub type Answer = Result<Response, Failure>;

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    pub message: String,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let status = match &refused {
            Refused::NotFound(_) => StatusCode::NOT_FOUND,
            Refused::Conflict(_) => StatusCode::CONFLICT,
            Refused::Invalid(_) => StatusCode::BAD_REQUEST,
            // Swarm's very words and status: clients look for them before they read again and retry.
            Refused::OutOfSequence => {
                return Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "rpc error: code = Unknown desc = update out of sequence",
                );
            }
            Refused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refused.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Message<'a> {
            message: &'a str,
        }
        json(self.status, &Message { message: &self.message })
    }
}

pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        // Our types always serialise: no map with keys that aren't strings among them.
        Err(error) => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub fn ok(value: &impl Serialize) -> Answer {
    Ok(json(StatusCode::OK, value))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    warnings: Option<&'a [String]>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Updated<'a> {
    warnings: Option<&'a [String]>,
}

/// Docker's null for "none".
fn some_warnings(accepted: &Accepted) -> Option<&[String]> {
    Some(accepted.warnings.as_slice()).filter(|warnings| !warnings.is_empty())
}

pub fn created(accepted: &Accepted) -> Answer {
    Ok(json(StatusCode::CREATED, &Created { id: &accepted.id, warnings: some_warnings(accepted) }))
}

pub fn updated(accepted: &Accepted) -> Answer {
    ok(&Updated { warnings: some_warnings(accepted) })
}

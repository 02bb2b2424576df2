//! The commands of an operator, over the HTTP port: any path, JSON there and back.
//!
//! Owns no shapes: whoever prints an answer knows what it wants of it.

use super::http::{HttpClient, HttpClientError};
use serde_json::Value;

impl HttpClient {
    /// Does what a path stands for.
    ///
    /// # Errors
    /// The server refuses or does not answer; the answer is no JSON.
    pub fn post_path(&self, path: &str) -> Result<Value, HttpClientError> {
        self.json(path, &self.post_empty(path)?.bytes)
    }

    /// Puts JSON to a path.
    ///
    /// # Errors
    /// As [`Self::post_path`].
    pub fn put_json(&self, path: &str, body: &Value) -> Result<Value, HttpClientError> {
        self.json(path, &self.put_bytes(path, body.to_string().as_bytes())?.bytes)
    }

    /// Removes what a path stands for.
    ///
    /// # Errors
    /// As [`Self::post_path`].
    pub fn delete_path(&self, path: &str) -> Result<Value, HttpClientError> {
        self.json(path, &self.delete(path)?.bytes)
    }
}

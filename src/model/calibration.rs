//! A camera's calibration: the transformation that its tiles are given by those who render them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::sync::Arc;

/// Memory of a JSON object that is not empty, at least: its fields lie in nodes with room for 11.
const OBJECT_BYTES: usize = 640;
/// Memory of a field beside its name and what its value holds elsewhere.
const FIELD_BYTES: usize = 112;
/// Memory of a calibration beside its record: entries in maps, its name there, its camera.
const ENTRY_BYTES: usize = 512;

/// One record of a calibrations file, as it is written into the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Its name, which the record calls `id`; never empty.
    pub name: String,
    /// Day on which it was made, `yyyymmdd`.
    pub date: String,
    /// Number of the microscope.
    pub temca: u32,
    /// Camera in the microscope's array, from 0.
    pub camera: u32,
    /// The record as it was sent; its lists of transformations are not interpreted.
    pub content: CalibrationRecord,
}

/// A record as it was sent, shared by all who hold it: what is asked and what is written back keep the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationRecord {
    record: Arc<Value>,
    bytes: usize,
}

impl Calibration {
    /// Memory that it takes, about: a short text can take much, such as a list of 0.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        ENTRY_BYTES + 3 * self.name.len() + self.content.bytes
    }
}

impl From<Value> for CalibrationRecord {
    fn from(record: Value) -> Self {
        let bytes = memory_bytes(&record);
        Self { record: Arc::new(record), bytes }
    }
}

impl Serialize for CalibrationRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.record.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CalibrationRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

/// As deep as the JSON reader lets anything be.
fn memory_bytes(value: &Value) -> usize {
    let elsewhere: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(memory_bytes).sum(),
        Value::Object(fields) if fields.is_empty() => 0,
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| FIELD_BYTES + name.len() + memory_bytes(value);
            OBJECT_BYTES + fields.iter().map(field).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + elsewhere
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_record_takes_is_counted_in_memory_and_not_in_text() {
        let bytes = |record: Value| CalibrationRecord::from(record).bytes;
        assert!(bytes(json!(vec![0; 1000])) >= 32_000);
        assert!(bytes(json!(vec![json!({"": 0}); 1000])) >= 640_000);
        let text = "1 0 0 1 ".repeat(1000);
        assert!((8_000..10_000).contains(&bytes(json!({"specList": [{"dataString": text}]}))));
    }

    #[test]
    fn a_record_is_shared_and_written_as_it_was_sent() {
        let sent = json!({"id": "a", "specList": [1, {"b": null}]});
        let record = CalibrationRecord::from(sent.clone());
        assert!(Arc::ptr_eq(&record.record, &record.clone().record));
        assert_eq!(serde_json::to_value(&record).expect("JSON"), sent);
        let read: CalibrationRecord = serde_json::from_value(sent).expect("the same");
        assert_eq!(read, record);
    }
}

//! What an enrichment gives an event: text, the hub's name, or what the twin has somewhere.

use serde_json::Value as Json;

use crate::query_language::{Condition, Expr, Path};

/// The value of an enrichment, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// This text.
    Text(String),
    /// The name of the hub.
    HubName,
    /// What a row has at this path, which begins with `$twin`.
    Twin(Path),
}

impl Value {
    /// Reads `text`: `$iothubname`, `$twin.` with a path, or anything else as it stands.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "$iothubname" {
            return Ok(Value::HubName);
        }
        if !text.starts_with("$twin.") {
            return match text.starts_with('$') {
                true => Err("its value is text, $iothubname or a path of $twin"),
                false => Ok(Value::Text(text.to_owned())),
            };
        }
        match Condition::parse(text).as_ref().map(Condition::expression) {
            Ok(Expr::Path(path)) => Ok(Value::Twin(path.clone())),
            _ => Err("its value is no path of the twin"),
        }
    }

    /// What it gives, if anything: a twin that has not what is named gives nothing. Texts are given as they are,
    /// everything else as JSON.
    pub fn resolve(&self, hub_name: &str, row: &Json) -> Option<String> {
        match self {
            Value::Text(text) => Some(text.clone()),
            Value::HubName => Some(hub_name.to_owned()),
            Value::Twin(path) => match path.find(row)? {
                Json::Null => None,
                Json::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            },
        }
    }
}

//! The identity that a path names: `{id}` for a device, `{id}` and `{module}` for a module of one.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use dunlin_model::id::DeviceId;

use super::error::ApiError;
use crate::auth::identity_path;

/// What stands in the path, not yet checked: whoever may not ask does not learn what is wrong with a name.
#[derive(Debug)]
pub(crate) struct Named {
    device: String,
    module: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        let value = |wanted: &str| {
            let mut params = params.iter();
            let found = params.find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_owned())
        };
        Ok(Self {
            device: value("id").unwrap_or_default(),
            module: value("module"),
        })
    }
}

impl Named {
    /// The path below `collection`, as credentials name it.
    pub(crate) fn path<'a>(&'a self, collection: &'a str) -> Vec<&'a str> {
        identity_path(collection, &self.device, self.module())
    }

    /// The device's part of the path.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// The module's part of the path, if there is one.
    pub(crate) fn module(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// The name, checked.
    pub(crate) fn identity(&self) -> Result<DeviceId, ApiError> {
        DeviceId::of_parts(&self.device, self.module()).map_err(|error| ApiError::invalid(error.to_string()))
    }
}

//! Schemas and values that are too large to be looked at here: the sandbox does.

use std::sync::Arc;

use serde_json::Value;

use super::{Fault, Schema, SchemaError, cost, evaluate};
use crate::untrusted::sandbox::{Sandbox, SandboxError};

impl Schema {
    /// [`Self::read`], and large ones are compiled in the sandbox to see whether they can be.
    pub async fn read_whole(
        source: &Value,
        sandbox: &Arc<Sandbox>,
        tenant: &Arc<str>,
    ) -> Result<Self, SchemaError> {
        let schema = Self::read(source)?;
        if schema.validator.is_none() {
            let compiled = sandbox.schema(tenant, source, None).await;
            compiled.map_err(|error| SchemaError(error.told("the schema")))?;
        }
        Ok(schema)
    }

    /// Holds a value to the schema.
    pub async fn check(
        &self,
        value: &Value,
        sandbox: &Arc<Sandbox>,
        tenant: &Arc<str>,
    ) -> Result<(), Fault> {
        if let Some(validator) = &self.validator
            && cost::is_small(&self.source, value)
        {
            return evaluate(validator, value);
        }
        match sandbox.schema(tenant, &self.source, Some(value)).await {
            Ok(None) => Ok(()),
            Ok(Some((path, why))) => Err(Fault::Mismatch { path, why }),
            Err(SandboxError::Refused { message, .. }) => Err(Fault::Undecided(message)),
            Err(error) => Err(Fault::Undecided(error.told("holding it to its schema"))),
        }
    }
}

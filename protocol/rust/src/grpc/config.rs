//! `ModelConfig` from the JSON that the server keeps for each model.

use std::sync::OnceLock;

use kingpole_values::{Error, Result};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};

use super::FILE_DESCRIPTOR_SET;
use super::proto::ModelConfig;

const MAX_FAULT_CHARS: usize = 512;

/// The protobuf form of a model configuration in protobuf's JSON. Fields that this form does not have
/// are left out.
///
/// # Errors
/// `INVALID_ARGUMENT` if it is not a JSON object, or a field has the wrong type.
pub fn model_config_from_json(json: &str) -> Result<ModelConfig> {
    let fault = |what: String| {
        // It may repeat what it was given.
        let what: String = what.chars().take(MAX_FAULT_CHARS).collect();
        Error::invalid(format!("the model configuration is malformed: {what}"))
    };
    let descriptor = pool()
        .and_then(|pool| pool.get_message_by_name("inference.ModelConfig"))
        .ok_or_else(|| Error::internal("the schema of a model configuration is missing"))?;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options)
        .map_err(|error| fault(error.to_string()))?
        .transcode_to()
        .map_err(|error| fault(error.to_string()))
}

/// The schemas, read once: only those who ask for a configuration over gRPC pay for it.
fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok()).as_ref()
}

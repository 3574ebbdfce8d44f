//! `ModelConfig` from the JSON that the server keeps for each model.

use kingpole_values::{Error, Result};
use serde_json::{Map, Value};

use super::proto::{
    DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput, ModelParameter,
    ModelTensorReshape, ModelTransactionPolicy, ModelVersionPolicy, model_input, model_instance_group,
    model_version_policy,
};

/// The protobuf form of a model configuration in Triton's JSON. Fields that this form does not have
/// are left out.
///
/// # Errors
/// `INVALID_ARGUMENT` if it is not a JSON object, or a field has the wrong type.
pub fn model_config_from_json(json: &str) -> Result<ModelConfig> {
    let value: Value = serde_json::from_str(json)
        .map_err(|error| Error::invalid(format!("the model configuration is not JSON: {error}")))?;
    let object = Fields::of(&value, "the model configuration")?;
    Ok(ModelConfig {
        name: object.text("name")?,
        platform: object.text("platform")?,
        version_policy: object.get("version_policy").map(version_policy).transpose()?,
        max_batch_size: object.integer("max_batch_size")?,
        input: object.list("input", input)?,
        output: object.list("output", output)?,
        instance_group: object.list("instance_group", instance_group)?,
        default_model_filename: object.text("default_model_filename")?,
        dynamic_batching: object.get("dynamic_batching").map(dynamic_batching).transpose()?,
        parameters: object.get("parameters").map(parameters).transpose()?.unwrap_or_default(),
        backend: object.text("backend")?,
        model_transaction_policy: object
            .get("model_transaction_policy")
            .map(|value| {
                let decoupled = Fields::of(value, "model_transaction_policy")?.flag("decoupled")?;
                Ok(ModelTransactionPolicy { decoupled })
            })
            .transpose()?,
    })
}

fn input(value: &Value) -> Result<ModelInput> {
    let object = Fields::of(value, "input")?;
    let format = object.text("format")?;
    Ok(ModelInput {
        name: object.text("name")?,
        data_type: data_type(&object)?,
        format: model_input::Format::from_str_name(&format).unwrap_or_default().into(),
        dims: object.integers("dims")?,
        reshape: object.get("reshape").map(reshape).transpose()?,
        is_shape_tensor: object.flag("is_shape_tensor")?,
        allow_ragged_batch: object.flag("allow_ragged_batch")?,
        optional: object.flag("optional")?,
    })
}

fn output(value: &Value) -> Result<ModelOutput> {
    let object = Fields::of(value, "output")?;
    Ok(ModelOutput {
        name: object.text("name")?,
        data_type: data_type(&object)?,
        dims: object.integers("dims")?,
        label_filename: object.text("label_filename")?,
        reshape: object.get("reshape").map(reshape).transpose()?,
        is_shape_tensor: object.flag("is_shape_tensor")?,
    })
}

fn reshape(value: &Value) -> Result<ModelTensorReshape> {
    Ok(ModelTensorReshape { shape: Fields::of(value, "reshape")?.integers("shape")? })
}

fn data_type(object: &Fields<'_>) -> Result<i32> {
    let name = object.text("data_type")?;
    if name.is_empty() {
        return Ok(DataType::TypeInvalid.into());
    }
    DataType::from_str_name(&name)
        .map(Into::into)
        .ok_or_else(|| Error::invalid(format!("model configuration: unknown data_type '{name}'")))
}

fn instance_group(value: &Value) -> Result<ModelInstanceGroup> {
    let object = Fields::of(value, "instance_group")?;
    let kind = object.text("kind")?;
    Ok(ModelInstanceGroup {
        name: object.text("name")?,
        count: object.integer("count")?,
        gpus: object.integers("gpus")?,
        kind: model_instance_group::Kind::from_str_name(&kind).unwrap_or_default().into(),
    })
}

fn dynamic_batching(value: &Value) -> Result<ModelDynamicBatching> {
    let object = Fields::of(value, "dynamic_batching")?;
    Ok(ModelDynamicBatching {
        preferred_batch_size: object.integers("preferred_batch_size")?,
        max_queue_delay_microseconds: object.integer("max_queue_delay_microseconds")?,
        preserve_ordering: object.flag("preserve_ordering")?,
    })
}

fn parameters(value: &Value) -> Result<std::collections::BTreeMap<String, ModelParameter>> {
    let object = Fields::of(value, "parameters")?;
    let entries = object.fields.iter().map(|(name, value)| {
        // Triton writes {"string_value": "x"}; a plain string says the same.
        let string_value = match value {
            Value::String(text) => text.clone(),
            other => Fields::of(other, "a parameter")?.text("string_value")?,
        };
        Ok((name.clone(), ModelParameter { string_value }))
    });
    entries.collect()
}

fn version_policy(value: &Value) -> Result<ModelVersionPolicy> {
    use model_version_policy::{All, Latest, PolicyChoice, Specific};
    let object = Fields::of(value, "version_policy")?;
    let policy_choice = if let Some(latest) = object.get("latest") {
        let num_versions = Fields::of(latest, "latest")?.integer("num_versions")?;
        Some(PolicyChoice::Latest(Latest { num_versions }))
    } else if object.get("all").is_some() {
        Some(PolicyChoice::All(All {}))
    } else if let Some(specific) = object.get("specific") {
        let versions = Fields::of(specific, "specific")?.integers("versions")?;
        Some(PolicyChoice::Specific(Specific { versions }))
    } else {
        None
    };
    Ok(ModelVersionPolicy { policy_choice })
}

/// A JSON object, read field by field; a missing or null field is proto3's default.
struct Fields<'a> {
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, what: &str) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self { fields }),
            _ => Err(Error::invalid(format!("{what} is not a JSON object"))),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<String> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(wrong(name, "true or false")),
        }
    }

    fn integer<T: TryFrom<i64> + Default>(&self, name: &str) -> Result<T> {
        self.get(name).map_or_else(|| Ok(T::default()), |value| integer(value, name))
    }

    fn integers<T: TryFrom<i64>>(&self, name: &str) -> Result<Vec<T>> {
        self.list(name, |value| integer(value, name))
    }

    fn list<T>(&self, name: &str, read: impl Fn(&'a Value) -> Result<T>) -> Result<Vec<T>> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(read).collect(),
            Some(_) => Err(wrong(name, "a list")),
        }
    }
}

/// protobuf's JSON writes 64-bit integers as strings, and both forms are read.
fn integer<T: TryFrom<i64>>(value: &Value, name: &str) -> Result<T> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| wrong(name, "an integer in range"))
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid(format!("model configuration: '{name}' must be {expected}"))
}

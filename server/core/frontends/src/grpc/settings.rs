//! The logging and trace extensions over gRPC.

use kingpole_engine::Engine;
use kingpole_values::{ByteString, Error, Parameter, Parameters, Result};
use kingpole_wire::grpc::proto;

/// Judge changes and tell the settings.
pub(super) fn trace(
    engine: &Engine,
    request: &proto::TraceSettingRequest,
) -> Result<proto::TraceSettingResponse> {
    use proto::trace_setting_response::SettingValue;
    let model = Some(&*request.model_name).filter(|name| !name.is_empty());
    if let Some(model) = model {
        engine.model(model, None)?;
    }
    let changes = request.settings.iter().map(|(name, setting)| (&**name, &setting.value[..]));
    engine.change_trace(model, &changes.collect::<Vec<_>>())?;
    let setting = |(name, value): (&str, String)| (name.to_owned(), SettingValue { value: vec![value] });
    Ok(proto::TraceSettingResponse {
        settings: engine.trace_settings(model).into_iter().map(setting).collect(),
    })
}

/// Make changes and tell the settings.
pub(super) fn log(engine: &Engine, request: proto::LogSettingsRequest) -> Result<proto::LogSettingsResponse> {
    use proto::log_settings_request::setting_value::ParameterChoice as Given;
    use proto::log_settings_response::SettingValue;
    use proto::log_settings_response::setting_value::ParameterChoice as Told;
    let change = |(name, setting): (String, proto::log_settings_request::SettingValue)| {
        let value = match setting.parameter_choice {
            None => return Err(Error::invalid(format!("log setting '{name}' has no value"))),
            Some(Given::BoolParam(value)) => Parameter::Bool(value),
            Some(Given::Uint32Param(value)) => Parameter::Int64(value.into()),
            Some(Given::StringParam(value)) => Parameter::String(value.into()),
        };
        Ok((name.into(), value))
    };
    let changes: Parameters = request.settings.into_iter().map(change).collect::<Result<_>>()?;
    engine.change_log(&changes)?;
    let setting = |(name, value): (ByteString, Parameter)| {
        let told = match value {
            Parameter::Bool(value) => Told::BoolParam(value),
            Parameter::Int64(value) => Told::Uint32Param(u32::try_from(value).unwrap_or(u32::MAX)),
            Parameter::String(value) => Told::StringParam(value.into()),
            // No log setting is one.
            Parameter::Uint64(_) | Parameter::Double(_) => return None,
        };
        Some((name.into(), SettingValue { parameter_choice: Some(told) }))
    };
    let settings = engine.log_settings().named().into_iter().filter_map(setting).collect();
    Ok(proto::LogSettingsResponse { settings })
}

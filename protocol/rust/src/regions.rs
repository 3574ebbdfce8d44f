//! Tensors in named regions of shared memory, as Open Inference says where they are: by parameters.

use kingpole_values::{ByteString, Error, Parameter, Parameters, Result};

const PREFIX: &str = "shared_memory_";

/// A range of a named region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionRange {
    /// The region's name, as it was registered.
    pub region: ByteString,
    /// First byte, counted from the start of the region.
    pub offset: u64,
    /// Bytes.
    pub nbytes: u64,
}

/// The tensors of one message that are in regions, each by its position. Such a tensor has empty data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// Inputs.
    pub inputs: Vec<(usize, RegionRange)>,
    /// Outputs asked for.
    pub outputs: Vec<(usize, RegionRange)>,
}

impl Regions {
    /// Whether every tensor is in the message.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }
}

/// Take the range out of a tensor's parameters, if they say one.
pub(crate) fn take_range(
    parameters: &mut Parameters,
    kind: &str,
    tensor: &str,
) -> Result<Option<RegionRange>> {
    if !parameters.iter().any(|(name, _)| name.starts_with(PREFIX)) {
        return Ok(None);
    }
    let refuse = |what: &str| Err(Error::invalid(format!("{kind} '{tensor}': {what}")));
    let (mut region, mut offset, mut nbytes) = (None, 0, None);
    for (name, value) in parameters.extract_if(.., |(name, _)| name.starts_with(PREFIX)) {
        let number = match value {
            Parameter::Int64(number) => u64::try_from(number).ok(),
            Parameter::Uint64(number) => Some(number),
            _ => None,
        };
        match (&*name, value, number) {
            ("shared_memory_region", Parameter::String(name), _) => region = Some(name),
            ("shared_memory_region", ..) => return refuse("shared_memory_region is not a text"),
            ("shared_memory_offset", _, Some(number)) => offset = number,
            ("shared_memory_byte_size", _, Some(number)) => nbytes = Some(number),
            ("shared_memory_offset" | "shared_memory_byte_size", ..) => {
                return refuse(&format!("{name} must be an integer of at least 0"));
            }
            _ => return refuse(&format!("unknown parameter '{name}'")),
        }
    }
    match (region, nbytes) {
        (Some(region), Some(nbytes)) => Ok(Some(RegionRange { region, offset, nbytes })),
        (None, _) => refuse("shared_memory_region is missing"),
        (_, None) => refuse("shared_memory_byte_size is missing"),
    }
}

/// The parameters that say where an output was written.
pub(crate) fn range_parameters(range: &RegionRange) -> Parameters {
    let number = |value: u64| Parameter::Int64(i64::try_from(value).unwrap_or(i64::MAX));
    let mut parameters = vec![
        ("shared_memory_region".into(), Parameter::String(range.region.clone())),
        ("shared_memory_byte_size".into(), number(range.nbytes)),
    ];
    if range.offset > 0 {
        parameters.push(("shared_memory_offset".into(), number(range.offset)));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(parameters: &[(&'static str, Parameter)]) -> Result<Option<RegionRange>> {
        let mut parameters: Parameters =
            parameters.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let range = take_range(&mut parameters, "input", "x");
        assert!(range.is_err() || parameters.iter().all(|(name, _)| name == "other"));
        range
    }

    #[test]
    fn a_range_needs_a_region_and_a_size() {
        let region = ("shared_memory_region", Parameter::String("r".into()));
        let size = ("shared_memory_byte_size", Parameter::Int64(8));
        let offset = |value| ("shared_memory_offset", value);
        let other = ("other", Parameter::Bool(true));
        assert_eq!(said(std::slice::from_ref(&other)).unwrap(), None);
        let range = RegionRange { region: "r".into(), offset: 0, nbytes: 8 };
        assert_eq!(said(&[region.clone(), other, size.clone()]).unwrap(), Some(range.clone()));
        let far = said(&[region.clone(), size.clone(), offset(Parameter::Uint64(u64::MAX))]).unwrap();
        assert_eq!(far, Some(RegionRange { offset: u64::MAX, ..range }));
        for wrong in [
            vec![region.clone()],
            vec![size.clone()],
            vec![region.clone(), size.clone(), offset(Parameter::Int64(-1))],
            vec![region.clone(), size.clone(), offset(Parameter::Double(1.0))],
            vec![("shared_memory_region", Parameter::Int64(1)), size.clone()],
            vec![region, size, ("shared_memory_kind", Parameter::Int64(1))],
        ] {
            assert!(said(&wrong).unwrap_err().message.starts_with("input 'x': "), "{wrong:?}");
        }
    }
}

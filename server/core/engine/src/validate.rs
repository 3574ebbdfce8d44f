//! The one place that judges a request against its model, for every protocol.
//!
//! Pure: no queue, no clock. What passes here can be laid out without further checks.

use kingpole_values::{Datatype, Error, InferRequest, RequestedOutput, Result, Tensor};
use smallvec::SmallVec;

use crate::{ModelSpec, TensorSpec};

/// A request that fits its model.
#[derive(Debug, PartialEq)]
pub struct Validated {
    /// One entry for each input of the specification, in its order; `None` for an optional one that
    /// was left out.
    pub inputs: SmallVec<[Option<Tensor>; 2]>,
    /// Positions in the specification's outputs, in the order the client wants them.
    pub outputs: SmallVec<[u16; 4]>,
    /// Rows along dimension 0; 1 for a model that does not batch.
    pub rows: u32,
    /// Bytes of all inputs.
    pub bytes: usize,
}

/// Check a request's tensors against a model and bring them into the model's order.
///
/// An empty name stands for the input or output at that position.
///
/// # Errors
/// `INVALID_ARGUMENT`, naming the tensor, what was expected and what came.
pub fn validate(spec: &ModelSpec, request: &mut InferRequest) -> Result<Validated> {
    let mut inputs: SmallVec<[Option<Tensor>; 2]> = SmallVec::new();
    inputs.resize_with(spec.inputs.len(), || None);
    let mut rows = None;
    let mut bytes = 0usize;
    for (position, tensor) in std::mem::take(&mut request.inputs).into_iter().enumerate() {
        let index = find(&spec.inputs, &tensor.name, position).ok_or_else(|| {
            Error::invalid(format!(
                "unexpected inference input {} for model '{}', expected: {}",
                label(&tensor.name, position),
                spec.name,
                names(&spec.inputs)
            ))
        })?;
        let declared = &spec.inputs[index];
        if inputs[index].is_some() {
            return Err(Error::invalid(format!(
                "input '{}' of model '{}' is given twice",
                declared.name, spec.name
            )));
        }
        check_input(spec, declared, &tensor)?;
        if spec.max_batch_size > 0 {
            check_rows(spec, declared, tensor.shape[0], &mut rows)?;
        }
        bytes += tensor.data.len();
        let mut tensor = tensor;
        if tensor.name.is_empty() {
            tensor.name = declared.name.clone();
        }
        inputs[index] = Some(tensor);
    }
    if let Some((declared, _)) =
        spec.inputs.iter().zip(&inputs).find(|(declared, given)| given.is_none() && !declared.optional)
    {
        return Err(Error::invalid(format!(
            "input '{}' of model '{}' is missing: expected {} {}",
            declared.name, spec.name, declared.datatype, declared.shape
        )));
    }
    let outputs = select_outputs(spec, &request.outputs)?;
    Ok(Validated { inputs, outputs, rows: rows.unwrap_or(1), bytes })
}

fn find(declared: &[TensorSpec], name: &str, position: usize) -> Option<usize> {
    if name.is_empty() {
        return (position < declared.len()).then_some(position);
    }
    // Clients mostly keep the model's order, so the entry at the same position is tried first.
    if declared.get(position).is_some_and(|spec| spec.name == *name) {
        return Some(position);
    }
    declared.iter().position(|spec| spec.name == *name)
}

fn check_input(spec: &ModelSpec, declared: &TensorSpec, tensor: &Tensor) -> Result<()> {
    if tensor.datatype != declared.datatype {
        return Err(Error::invalid(format!(
            "input '{}' of model '{}' has datatype {}, expected {}",
            declared.name, spec.name, tensor.datatype, declared.datatype
        )));
    }
    let fits = tensor.shape.len() == declared.shape.len()
        && tensor
            .shape
            .iter()
            .zip(declared.shape.iter())
            .all(|(&given, &wanted)| given >= 0 && (wanted < 0 || given == wanted));
    if !fits {
        return Err(Error::invalid(format!(
            "input '{}' of model '{}' has shape {}, expected {}",
            declared.name, spec.name, tensor.shape, declared.shape
        )));
    }
    if tensor.datatype == Datatype::Bool {
        // Frameworks take any other byte as undefined behavior.
        if let Some(byte) = tensor.data.iter().find(|&&byte| byte > 1) {
            return Err(Error::invalid(format!(
                "input '{}' of model '{}' holds the byte {byte}, a BOOL is 0 or 1",
                declared.name, spec.name
            )));
        }
    }
    tensor.check_size().map_err(|error| {
        Error::invalid(format!(
            "input '{}' of model '{}': {}",
            declared.name,
            spec.name,
            error.message.split_once(": ").map_or(&*error.message, |(_, rest)| rest)
        ))
    })
}

fn check_rows(spec: &ModelSpec, declared: &TensorSpec, given: i64, rows: &mut Option<u32>) -> Result<()> {
    let limit = i64::from(spec.max_batch_size);
    if !(1..=limit).contains(&given) {
        return Err(Error::invalid(format!(
            "input '{}' of model '{}' has {given} rows, expected 1 to {limit}",
            declared.name, spec.name
        )));
    }
    // The range was checked just above.
    let given = u32::try_from(given).unwrap_or(u32::MAX);
    match *rows {
        Some(earlier) if earlier != given => Err(Error::invalid(format!(
            "input '{}' of model '{}' has {given} rows, but another input has {earlier}",
            declared.name, spec.name
        ))),
        _ => {
            *rows = Some(given);
            Ok(())
        }
    }
}

fn select_outputs(spec: &ModelSpec, wanted: &[RequestedOutput]) -> Result<SmallVec<[u16; 4]>> {
    let index = |position: usize| u16::try_from(position).unwrap_or(u16::MAX);
    if wanted.is_empty() {
        return Ok((0..spec.outputs.len()).map(index).collect());
    }
    let mut selected = SmallVec::new();
    for (position, output) in wanted.iter().enumerate() {
        let found = find(&spec.outputs, &output.name, position).ok_or_else(|| {
            Error::invalid(format!(
                "unexpected inference output {} for model '{}', expected: {}",
                label(&output.name, position),
                spec.name,
                names(&spec.outputs)
            ))
        })?;
        let found = index(found);
        if selected.contains(&found) {
            return Err(Error::invalid(format!(
                "output '{}' of model '{}' is asked for twice",
                spec.outputs[usize::from(found)].name,
                spec.name
            )));
        }
        selected.push(found);
    }
    Ok(selected)
}

fn label(name: &str, position: usize) -> String {
    if name.is_empty() {
        format!("number {position}")
    } else {
        format!("'{}'", name.chars().take(128).collect::<String>().escape_debug())
    }
}

fn names(declared: &[TensorSpec]) -> String {
    declared.iter().map(|spec| format!("'{}'", spec.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use kingpole_values::{Code, Shape};

    pub fn spec(max_batch_size: u32) -> ModelSpec {
        let tensor = |name: &'static str, optional| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: Shape::new(&[-1, 2]),
            optional,
        };
        ModelSpec {
            name: "m".into(),
            version: "1".into(),
            inputs: vec![tensor("a", false), tensor("b", true)],
            outputs: vec![tensor("y", false), tensor("z", false)],
            max_batch_size,
            ..ModelSpec::default()
        }
    }

    pub fn input(name: &'static str, rows: i64) -> Tensor {
        let bytes = usize::try_from(rows.max(0)).unwrap() * 8;
        Tensor {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: Shape::new(&[rows, 2]),
            data: Bytes::from(vec![0; bytes]),
        }
    }

    fn check(tensors: Vec<Tensor>, outputs: &[&'static str]) -> Result<Validated> {
        let outputs =
            outputs.iter().map(|name| RequestedOutput { name: (*name).into(), parameters: vec![] }).collect();
        validate(&spec(4), &mut InferRequest { inputs: tensors, outputs, ..InferRequest::default() })
    }

    #[test]
    fn inputs_come_back_in_the_models_order() {
        let validated = check(vec![input("b", 2), input("a", 2)], &["z"]).unwrap();
        assert_eq!(validated.rows, 2);
        assert_eq!(&*validated.inputs[0].as_ref().unwrap().name, "a");
        assert_eq!(validated.outputs.as_slice(), &[1]);
    }

    #[test]
    fn an_empty_name_stands_for_the_position() {
        let validated = check(vec![input("", 1)], &["", "z"]).unwrap();
        assert_eq!(&*validated.inputs[0].as_ref().unwrap().name, "a");
        assert_eq!(validated.outputs.as_slice(), &[0, 1]);
    }

    #[test]
    fn a_bool_is_0_or_1() {
        let mut spec = spec(0);
        spec.inputs.truncate(1);
        spec.inputs[0].datatype = Datatype::Bool;
        let tensor = |byte| Tensor {
            datatype: Datatype::Bool,
            shape: Shape::new(&[1, 2]),
            data: Bytes::from(vec![1, byte]),
            ..input("a", 1)
        };
        let request = |byte| InferRequest { inputs: vec![tensor(byte)], ..InferRequest::default() };
        assert!(validate(&spec, &mut request(0)).is_ok());
        let error = validate(&spec, &mut request(7)).unwrap_err();
        assert!(error.message.contains("holds the byte 7"), "{error}");
    }

    #[test]
    fn every_fault_is_named() {
        let mut wrong_datatype = input("a", 1);
        wrong_datatype.datatype = Datatype::Int32;
        let mut wrong_rank = input("a", 1);
        wrong_rank.shape = Shape::new(&[1]);
        let mut short = input("a", 1);
        short.data = Bytes::from_static(b"1234");
        for (tensors, outputs, words) in [
            (vec![input("q", 1)], vec![], "unexpected inference input 'q'"),
            (vec![input("b", 1)], vec![], "input 'a' of model 'm' is missing"),
            (vec![input("a", 1), input("a", 1)], vec![], "given twice"),
            (vec![wrong_datatype], vec![], "has datatype INT32, expected FP32"),
            (vec![wrong_rank], vec![], "has shape [1], expected [-1,2]"),
            (vec![short], vec![], "needs 8 bytes, got 4"),
            (vec![input("a", 0)], vec![], "has 0 rows, expected 1 to 4"),
            (vec![input("a", 5)], vec![], "has 5 rows, expected 1 to 4"),
            (vec![input("a", -1)], vec![], "has shape [-1,2]"),
            (vec![input("a", 1), input("b", 2)], vec![], "has 2 rows, but another input has 1"),
            (vec![input("a", 1)], vec!["nope"], "unexpected inference output 'nope'"),
            (vec![input("a", 1)], vec!["y", "y"], "asked for twice"),
        ] {
            let error = check(tensors, &outputs).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.contains(words), "{} lacks {words}", error.message);
        }
    }
}

//! The classification extension: which outputs are to be answered as classes, whatever protocol asked.
//!
//! Judged before the model runs, and applied to what it answers, so that every frontend gets it by
//! submitting its requests here. May not know how a request or an answer is written.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use kingpole_engine::{Engine, ModelSpec, Responder, TensorSpec};
use kingpole_values::{
    ByteString, Datatype, Error, InferRequest, InferResponse, Parameter, Parameters, RequestedOutput, Result,
};
use kingpole_wire::classify;

const PARAMETER: &str = "classification";

/// Infer; outputs that ask for classes are answered with them.
pub(crate) fn infer(
    engine: &Engine,
    request: InferRequest,
    received: Instant,
    responder: Box<dyn Responder>,
) {
    if request.outputs.iter().all(|output| output.parameters.is_empty()) {
        return engine.infer(request, received, responder);
    }
    // An unknown model is the engine's to refuse.
    let Ok(specification) = engine.model(&request.model, request.version.as_deref()) else {
        return engine.infer(request, received, responder);
    };
    match wanted(&request.outputs, &specification) {
        Ok(wanted) if wanted.is_empty() => engine.infer(request, received, responder),
        Ok(wanted) => {
            let classified = Classified { responder: Some(responder), specification, wanted };
            engine.infer(request, received, Box::new(classified));
        }
        Err(error) => {
            engine.count_refused(error.code);
            responder.answer(Err(error));
        }
    }
}

/// An output and how many of its classes are wanted.
type Wanted = (ByteString, usize);

fn wanted(outputs: &[RequestedOutput], specification: &ModelSpec) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for (position, output) in outputs.iter().enumerate() {
        let Some(count) = count(&output.parameters, &output.name)? else { continue };
        let declared = match &*output.name {
            "" => specification.outputs.get(position),
            name => specification.outputs.iter().find(|declared| declared.name == *name),
        };
        // An unknown output is the engine's to refuse.
        let Some(declared) = declared else { continue };
        check(declared, specification)?;
        wanted.push((declared.name.clone(), count));
    }
    Ok(wanted)
}

/// Refuse classes of an output that goes to a region of shared memory.
pub(crate) fn refuse_in_region(output: &RequestedOutput) -> Result<()> {
    let name = &output.name;
    match count(&output.parameters, name)? {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!("output '{name}': classes cannot be put into shared memory"))),
    }
}

/// How many classes are asked for; 0 asks for the output as it is.
fn count(parameters: &Parameters, output: &str) -> Result<Option<usize>> {
    let find = |name: &str| parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value);
    let count = match find(PARAMETER) {
        None | Some(Parameter::Int64(0) | Parameter::Uint64(0)) => return Ok(None),
        Some(Parameter::Int64(count)) => usize::try_from(*count).ok(),
        Some(Parameter::Uint64(count)) => Some(usize::try_from(*count).unwrap_or(usize::MAX)),
        Some(_) => None,
    };
    let count = count.ok_or_else(|| {
        Error::invalid(format!(
            "output '{output}': parameter '{PARAMETER}' must be an integer of at least 0, the number of classes"
        ))
    })?;
    Ok(Some(count))
}

fn check(declared: &TensorSpec, specification: &ModelSpec) -> Result<()> {
    if matches!(declared.datatype, Datatype::Bool | Datatype::Bytes) {
        return Err(Error::invalid(format!(
            "output '{}' of model '{}': classification needs numbers, but its datatype is {}",
            declared.name, specification.name, declared.datatype
        )));
    }
    Ok(())
}

/// Puts classes in the place of the outputs that are to have them.
struct Classified {
    /// None once one of several responses could not be classified: that was the answer, and no more is wanted.
    responder: Option<Box<dyn Responder>>,
    specification: Arc<ModelSpec>,
    wanted: Vec<Wanted>,
}

fn classified(
    mut response: InferResponse,
    wanted: &[Wanted],
    specification: &ModelSpec,
) -> Result<InferResponse> {
    for output in &mut response.outputs {
        let Some((name, count)) = wanted.iter().find(|(name, _)| *name == output.name) else { continue };
        let labels = specification.labels.get(name).map(Vec::as_slice);
        *output = classify(output, *count, labels, specification.max_batch_size > 0)?;
    }
    Ok(response)
}

impl Responder for Classified {
    fn answer(mut self: Box<Self>, result: Result<InferResponse>) {
        let Some(responder) = self.responder.take() else { return };
        responder.answer(result.and_then(|response| classified(response, &self.wanted, &self.specification)));
    }

    fn is_cancelled(&mut self) -> bool {
        self.responder.as_mut().is_none_or(|responder| responder.is_cancelled())
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.responder.as_mut().map_or(Poll::Ready(()), |responder| responder.poll_cancelled(cx))
    }

    fn takes_parts(&self) -> bool {
        self.responder.as_ref().is_some_and(|responder| responder.takes_parts())
    }

    fn part(&mut self, response: InferResponse) {
        let Some(responder) = &mut self.responder else { return };
        match classified(response, &self.wanted, &self.specification) {
            Ok(response) => responder.part(response),
            Err(error) => {
                if let Some(responder) = self.responder.take() {
                    responder.answer(Err(error));
                }
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.responder.as_mut().map_or(Poll::Ready(()), |responder| responder.poll_ready(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kingpole_values::{Code, Shape, Tensor};

    fn specification(datatype: Datatype) -> ModelSpec {
        let shape = Shape::new(&[-1, 3]);
        let output = TensorSpec { name: "y".into(), datatype, shape, optional: false };
        ModelSpec { name: "m".into(), outputs: vec![output], max_batch_size: 4, ..ModelSpec::default() }
    }

    fn ask(name: &'static str, datatype: Datatype, parameters: Parameters) -> Result<Vec<Wanted>> {
        wanted(&[RequestedOutput { name: name.into(), parameters }], &specification(datatype))
    }

    fn asked(value: Parameter) -> Parameters {
        vec![(PARAMETER.into(), value)]
    }

    #[test]
    fn an_output_is_found_by_its_name_or_its_position() {
        for name in ["y", ""] {
            let wanted = ask(name, Datatype::Fp32, asked(Parameter::Int64(2))).unwrap();
            assert_eq!(wanted, [("y".into(), 2)]);
        }
    }

    #[test]
    fn zero_classes_ask_for_the_output_as_it_is() {
        assert_eq!(ask("y", Datatype::Bytes, asked(Parameter::Int64(0))).unwrap(), []);
        assert_eq!(ask("y", Datatype::Bytes, Parameters::new()).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_classified_is_refused_before_it_runs() {
        for (datatype, parameters, words) in [
            (Datatype::Bytes, asked(Parameter::Int64(1)), "its datatype is BYTES"),
            (Datatype::Fp32, asked(Parameter::Int64(-1)), "'classification' must be an integer"),
            (Datatype::Fp32, asked(Parameter::String("3".into())), "'classification' must be an integer"),
        ] {
            let error = ask("y", datatype, parameters).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.contains(words) && error.message.contains("'y'"), "{error}");
        }
    }

    struct Told(std::sync::mpsc::Sender<Result<usize>>);

    impl Responder for Told {
        fn answer(self: Box<Self>, result: Result<InferResponse>) {
            self.0.send(result.map(|response| response.outputs.len())).unwrap();
        }

        fn part(&mut self, response: InferResponse) {
            self.0.send(Ok(response.outputs.len())).unwrap();
        }
    }

    #[test]
    fn a_part_that_cannot_be_classified_is_the_last_word() {
        let (said, told) = std::sync::mpsc::channel();
        let mut responder = Box::new(Classified {
            responder: Some(Box::new(Told(said))),
            specification: Arc::new(specification(Datatype::Fp32)),
            wanted: vec![("y".into(), 1)],
        });
        let part = |shape: &[i64], nbytes| InferResponse {
            outputs: vec![Tensor {
                name: "y".into(),
                datatype: Datatype::Fp32,
                shape: Shape::new(shape),
                data: vec![0; nbytes].into(),
            }],
            ..InferResponse::default()
        };
        responder.part(part(&[1, 3], 12));
        assert!(!responder.is_cancelled());
        responder.part(part(&[], 4));
        assert!(responder.is_cancelled());
        responder.part(part(&[1, 3], 12));
        responder.answer(Ok(InferResponse::default()));
        let told: Vec<_> = told.iter().collect();
        assert_eq!((told.len(), &told[0]), (2, &Ok(1)), "{told:?}");
        assert!(told[1].as_ref().unwrap_err().message.contains("needs a first dimension"), "{told:?}");
    }

    #[test]
    fn classes_do_not_go_to_a_region() {
        let output = |count| RequestedOutput { name: "y".into(), parameters: asked(Parameter::Int64(count)) };
        let error = refuse_in_region(&output(1)).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert_eq!(error.message, "output 'y': classes cannot be put into shared memory");
        assert_eq!(refuse_in_region(&output(0)), Ok(()));
    }
}

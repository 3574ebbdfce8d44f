//! Whether a pipeline makes sense: who gives each tensor, in which order steps can run, what may be absent.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use kingpole_values::{ByteString, Code, Datatype, Error, Result, Shape};

use super::{Pipeline, Step, StepConfiguration, StepInput};
use crate::{Model, ModelSpec, Placement, TensorSpec};

/// More steps than anybody has drawn.
const MAX_STEPS: usize = 256;
/// How deep pipelines may ask pipelines.
const MAX_DEPTH: usize = 16;

pub(super) type Find<'a> = &'a dyn Fn(&str, Option<&str>) -> Result<Arc<Model>>;

/// When something is there: each of these tensors is what is said. Nothing said: always.
type Presence = BTreeSet<(usize, bool)>;

/// A tensor of the pipeline, as whoever gives it declares it.
struct Given {
    datatype: Datatype,
    /// Empty also where a model says nothing of the rank.
    shape: Shape,
    presence: Presence,
    by: String,
}

/// The tensors of a pipeline: their numbers, and what is known of them so far.
#[derive(Default)]
struct Tensors {
    numbers: HashMap<ByteString, usize>,
    names: Vec<ByteString>,
    given: HashMap<usize, Given>,
}

fn refuse(message: String) -> Error {
    Error::new(Code::FailedPrecondition, message)
}

pub(super) fn pipeline(
    specification: &ModelSpec,
    configured: &[StepConfiguration],
    find: Find<'_>,
) -> Result<Pipeline> {
    if configured.is_empty() || configured.len() > MAX_STEPS {
        return Err(refuse(format!(
            "a pipeline has 1 to {MAX_STEPS} steps, this one has {}",
            configured.len()
        )));
    }
    let unique: BTreeSet<_> = configured.iter().map(|step| &step.name).collect();
    if unique.len() != configured.len() {
        return Err(refuse("two steps have the same name: give each one of its own by `name`".to_owned()));
    }
    let mut tensors = Tensors::default();
    let mut inputs = Vec::new();
    for input in &specification.inputs {
        inputs.push(tensors.take_request_input(input)?);
    }
    let mut steps = Vec::new();
    for step in configured {
        let model = model_of(specification, step, find)?;
        steps.push((connect(step, &model.spec, &mut tensors)?, model));
    }
    let (order, needs) = in_order(&steps, &tensors)?;
    for &position in &order {
        let (step, model) = &steps[position];
        tensors.take_step(step, &model.spec)?;
    }
    let outputs =
        specification.outputs.iter().map(|output| tensors.output(output)).collect::<Result<Vec<_>>>()?;
    let mut unplaced: Vec<_> = steps.into_iter().map(|(step, _)| Some(step)).collect();
    let placed = |position: &usize| {
        let after = needs[*position].iter().filter_map(|need| order.iter().position(|each| each == need));
        Some(Step { after: after.collect(), ..unplaced[*position].take()? })
    };
    Ok(Pipeline {
        name: specification.name.clone(),
        steps: order.iter().filter_map(placed).collect(),
        tensors: tensors.names,
        inputs,
        outputs,
        held_bytes: AtomicUsize::new(0),
    })
}

/// The model that a step asks, if it can be a step.
fn model_of(specification: &ModelSpec, step: &StepConfiguration, find: Find<'_>) -> Result<Arc<Model>> {
    let of_step = |what: String| refuse(format!("step '{}': {what}", step.name));
    let model =
        find(&step.model, step.version.as_deref()).map_err(|error| of_step(error.message.into_owned()))?;
    if model.spec.decoupled {
        return Err(of_step(format!(
            "model '{}' answers with any number of responses, which a step cannot take",
            step.model
        )));
    }
    if step.each_row && model.spec.max_batch_size > 0 {
        return Err(of_step(format!(
            "model '{}' batches, so that its rows are each on their own without `each_row`",
            step.model
        )));
    }
    asks_not(&specification.name, &model, find, MAX_DEPTH).map_err(of_step)?;
    Ok(model)
}

/// Refuse a model that is, or through other pipelines asks, the one of this name.
fn asks_not(name: &str, model: &Model, find: Find<'_>, depth: usize) -> std::result::Result<(), String> {
    if model.spec.name == *name {
        return Err(format!("pipeline '{name}' would ask itself"));
    }
    let Placement::Pipeline(pipeline) = &model.placement else { return Ok(()) };
    if depth == 0 {
        return Err(format!("more than {MAX_DEPTH} pipelines ask each other"));
    }
    for (asked, version) in pipeline.models() {
        // One that is away for the moment is no circle.
        if let Ok(asked) = find(asked, version) {
            asks_not(name, &asked, find, depth - 1)?;
        }
    }
    Ok(())
}

/// Tie a step's names to the model's tensors and to the pipeline's numbers.
fn connect(step: &StepConfiguration, model: &ModelSpec, tensors: &mut Tensors) -> Result<Step> {
    let of_step = |what: String| refuse(format!("step '{}': {what}", step.name));
    let mut inputs = Vec::new();
    for (name, tensor) in &step.inputs {
        let declared = model.inputs.iter().find(|declared| declared.name == *name).ok_or_else(|| {
            of_step(format!("model '{}' has no input '{name}', only {}", model.name, listed(&model.inputs)))
        })?;
        let (tensor, optional) = (tensors.number(tensor), declared.optional);
        inputs.push(StepInput { name: declared.name.clone(), tensor, optional });
    }
    let missing = |declared: &&TensorSpec| {
        !declared.optional && !step.inputs.iter().any(|(name, _)| *name == declared.name)
    };
    if let Some(missing) = model.inputs.iter().find(missing) {
        return Err(of_step(format!("input '{}' of model '{}' is given nothing", missing.name, model.name)));
    }
    if step.outputs.is_empty() {
        return Err(of_step("none of its outputs is given a name".to_owned()));
    }
    let mut outputs = Vec::new();
    for (name, tensor) in &step.outputs {
        if !model.outputs.iter().any(|declared| declared.name == *name) {
            return Err(of_step(format!(
                "model '{}' has no output '{name}', only {}",
                model.name,
                listed(&model.outputs)
            )));
        }
        outputs.push((name.clone(), tensors.number(tensor)));
    }
    Ok(Step {
        name: step.name.clone(),
        model: step.model.clone(),
        version: step.version.clone(),
        inputs,
        outputs,
        condition: step.condition.as_ref().map(|(tensor, is)| (tensors.number(tensor), *is)),
        each_row: step.each_row,
        after: Vec::new(),
    })
}

fn listed(declared: &[TensorSpec]) -> String {
    declared.iter().map(|tensor| format!("'{}'", tensor.name)).collect::<Vec<_>>().join(", ")
}

/// An order in which every step comes after those whose tensors it needs, and which those are.
fn in_order(steps: &[(Step, Arc<Model>)], tensors: &Tensors) -> Result<(Vec<usize>, Vec<BTreeSet<usize>>)> {
    let mut givers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (position, (step, _)) in steps.iter().enumerate() {
        for &(_, tensor) in &step.outputs {
            givers.entry(tensor).or_default().push(position);
        }
    }
    let mut needs = Vec::new();
    for (step, _) in steps {
        let condition = step.condition.map(|(tensor, _)| tensor);
        let mut before = BTreeSet::new();
        for tensor in step.inputs.iter().map(|input| input.tensor).chain(condition) {
            match givers.get(&tensor) {
                Some(giving) => before.extend(giving),
                None if tensors.given.contains_key(&tensor) => {}
                None => {
                    return Err(refuse(format!(
                        "step '{}': nobody gives the tensor '{}'",
                        step.name, tensors.names[tensor]
                    )));
                }
            }
        }
        needs.push(before);
    }
    let mut order: Vec<usize> = Vec::new();
    while order.len() < steps.len() {
        let free = |&position: &usize| {
            !order.contains(&position) && needs[position].iter().all(|need| order.contains(need))
        };
        let Some(position) = (0..steps.len()).find(free) else {
            let waiting = (0..steps.len()).filter(|position| !order.contains(position));
            let names: Vec<_> = waiting.map(|position| format!("'{}'", steps[position].0.name)).collect();
            return Err(refuse(format!("steps wait for each other in a circle: {}", names.join(", "))));
        };
        order.push(position);
    }
    Ok((order, needs))
}

impl Tensors {
    fn number(&mut self, name: &ByteString) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len();
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }

    fn take_request_input(&mut self, input: &TensorSpec) -> Result<usize> {
        if input.optional {
            return Err(refuse(format!("input '{}': a pipeline's inputs cannot be optional", input.name)));
        }
        let number = self.number(&input.name);
        let given = Given {
            datatype: input.datatype,
            shape: input.shape.clone(),
            presence: Presence::new(),
            by: "the request".to_owned(),
        };
        self.given.insert(number, given);
        Ok(number)
    }

    /// Check what a step takes, and learn what it gives. Everything that it needs is known.
    fn take_step(&mut self, step: &Step, model: &ModelSpec) -> Result<()> {
        let of_step = |what: String| refuse(format!("step '{}': {what}", step.name));
        let mut presence = Presence::new();
        if let Some((tensor, is)) = step.condition {
            let name = &self.names[tensor];
            let Some(given) = self.given.get(&tensor) else { return Ok(()) };
            if given.datatype != Datatype::Bool || given.shape.iter().any(|&size| size > 1 || size == 0) {
                return Err(of_step(format!(
                    "its condition '{name}' must be one BOOL, but {} gives {} {}",
                    given.by, given.datatype, given.shape
                )));
            }
            presence.extend(given.presence.iter().copied().chain([(tensor, is)]));
        }
        for input in &step.inputs {
            let (Some(given), Some(declared)) =
                (self.given.get(&input.tensor), model.inputs.iter().find(|other| other.name == input.name))
            else {
                continue;
            };
            let wanted = if step.each_row { stacked(&declared.shape) } else { declared.shape.clone() };
            if given.datatype != declared.datatype || !may_fit(&given.shape, &wanted) {
                return Err(of_step(format!(
                    "input '{}' of model '{}' is {} {wanted}, but {} gives '{}' as {} {}",
                    declared.name,
                    model.name,
                    declared.datatype,
                    given.by,
                    self.names[input.tensor],
                    given.datatype,
                    given.shape
                )));
            }
            if !input.optional {
                presence.extend(given.presence.iter().copied());
            }
        }
        if let Some((tensor, _)) = presence.iter().find(|&&(tensor, is)| presence.contains(&(tensor, !is))) {
            return Err(of_step(format!(
                "it could never run: it needs '{}' to be both true and false",
                self.names[*tensor]
            )));
        }
        for (name, tensor) in &step.outputs {
            let Some(declared) = model.outputs.iter().find(|other| other.name == *name) else { continue };
            let shape = if step.each_row { stacked(&declared.shape) } else { declared.shape.clone() };
            let by = format!("step '{}'", step.name);
            let given = Given { datatype: declared.datatype, shape, presence: presence.clone(), by };
            self.give(*tensor, given)?;
        }
        Ok(())
    }

    /// A tensor is given by one step, or by two of which always just one runs.
    fn give(&mut self, tensor: usize, mut given: Given) -> Result<()> {
        if let Some(other) = self.given.remove(&tensor) {
            let name = &self.names[tensor];
            let opposite = given.presence.symmetric_difference(&other.presence).collect::<Vec<_>>();
            let &[&(condition, _), &(against, _)] = opposite.as_slice() else {
                return Err(both(name, &other, &given));
            };
            if condition != against {
                return Err(both(name, &other, &given));
            }
            if other.datatype != given.datatype || !may_fit(&other.shape, &given.shape) {
                return Err(refuse(format!(
                    "'{name}' is {} {} from {}, but {} {} from {}",
                    other.datatype, other.shape, other.by, given.datatype, given.shape, given.by
                )));
            }
            given.presence.retain(|&(tensor, _)| tensor != condition);
            given.by = format!("{} or {}", other.by, given.by);
            given.shape = common(&other.shape, &given.shape);
        }
        self.given.insert(tensor, given);
        Ok(())
    }

    fn output(&self, declared: &TensorSpec) -> Result<usize> {
        let of_output = |what: String| refuse(format!("output '{}': {what}", declared.name));
        let number = self.numbers.get(&declared.name).copied();
        let Some((number, given)) = number.and_then(|number| Some((number, self.given.get(&number)?))) else {
            return Err(of_output("no step gives it".to_owned()));
        };
        if given.datatype != declared.datatype || !may_fit(&given.shape, &declared.shape) {
            return Err(of_output(format!(
                "it is declared as {} {}, but {} gives {} {}",
                declared.datatype, declared.shape, given.by, given.datatype, given.shape
            )));
        }
        if let Some(&(condition, is)) = given.presence.first() {
            return Err(of_output(format!(
                "it is absent unless '{}' is {is}; let another step give it then",
                self.names[condition]
            )));
        }
        Ok(number)
    }
}

fn both(name: &ByteString, one: &Given, other: &Given) -> Error {
    refuse(format!(
        "'{name}' is given by {} and by {}, which may both run: their conditions must exclude each other",
        one.by, other.by
    ))
}

/// The shape of any number of these on top of each other.
fn stacked(shape: &Shape) -> Shape {
    std::iter::once(-1).chain(shape.iter().copied()).collect()
}

/// Whether a tensor of the first shape may be one of the second; a model that says nothing of its rank gives anything.
fn may_fit(given: &Shape, wanted: &Shape) -> bool {
    given.is_empty()
        || wanted.is_empty()
        || given.len() == wanted.len()
            && given
                .iter()
                .zip(wanted.iter())
                .all(|(&given, &wanted)| given < 0 || wanted < 0 || given == wanted)
}

/// What holds for tensors of both shapes.
fn common(one: &Shape, other: &Shape) -> Shape {
    if one.len() != other.len() {
        return Shape::default();
    }
    one.iter().zip(other.iter()).map(|(&one, &other)| if one == other { one } else { -1 }).collect()
}

//! How a model's sequences are kept: what its configuration says, and what its control inputs are told.

use bytes::Bytes;
use kingpole_values::{ByteString, Datatype, Error, Result, Sequence, SequenceId, Shape, Tensor};

use crate::sequences::show;

/// How a model's sequences are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencePolicy {
    /// How they share batches.
    pub strategy: Strategy,
    /// A sequence without requests for this long is forgotten.
    pub max_idle_us: u64,
    /// Inputs that tell the model where a request stands in its sequence.
    pub controls: Vec<Control>,
    /// What we remember for the model between requests.
    pub states: Vec<State>,
}

/// How sequences share batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Each has a row of its own, as long as it lives.
    Direct,
    /// Any that have requests share a batch; at most so many live on one lane.
    Oldest {
        /// Sequences that may live on one lane.
        max_candidates: u32,
    },
}

/// An input that we fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The input's name.
    pub name: ByteString,
    /// What it says.
    pub kind: ControlKind,
    /// Its datatype.
    pub datatype: Datatype,
    /// Its full shape; -1 stands for the batch's rows in front and for 1 elsewhere.
    pub shape: Shape,
    /// The element that says no, and the one that says yes; unused for the correlation id.
    pub values: [Bytes; 2],
}

/// What a control says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// It is the first of its sequence.
    Start,
    /// It is the last.
    End,
    /// There is a request in it.
    Ready,
    /// The sequence's id.
    Correlation,
}

/// A tensor that the model gives as an output and takes back with the sequence's next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The input.
    pub input: ByteString,
    /// The output.
    pub output: ByteString,
    /// Their datatype.
    pub datatype: Datatype,
    /// What a new sequence begins with: one row, or the whole for a model that does not batch.
    pub initial: Tensor,
}

impl SequencePolicy {
    /// Whether all that is remembered of a sequence is with us, so that it survives its worker.
    pub fn remembers(&self) -> bool {
        !self.states.is_empty()
    }

    /// Refuse an id that the model's correlation input cannot hold.
    pub(crate) fn check_id(&self, model: &str, id: &SequenceId) -> Result<()> {
        let correlation = |control: &&Control| control.kind == ControlKind::Correlation;
        let Some(control) = self.controls.iter().find(correlation) else { return Ok(()) };
        match control.correlation(id) {
            Some(_) => Ok(()),
            None => Err(Error::invalid(format!(
                "sequence_id {} cannot be given to model '{model}', whose input '{}' is {}",
                show(id),
                control.name,
                control.datatype
            ))),
        }
    }

    pub(crate) fn has_rows_of_their_own(&self) -> bool {
        // Without the control the model could not tell an empty row.
        self.strategy == Strategy::Direct
            && self.controls.iter().any(|control| control.kind == ControlKind::Ready)
    }
}

impl Control {
    /// The element that tells a model of a row, `None` of an empty one.
    pub(crate) fn say(&self, sequence: Option<&Sequence>) -> Bytes {
        let yes = match (self.kind, sequence) {
            (ControlKind::Correlation, sequence) => {
                let nothing = || match self.datatype.element_bytes() {
                    Some(bytes) => vec![0; bytes].into(),
                    None => vec![0; 4].into(),
                };
                return sequence.and_then(|sequence| self.correlation(&sequence.id)).unwrap_or_else(nothing);
            }
            (_, None) => false,
            (ControlKind::Start, Some(sequence)) => sequence.start,
            (ControlKind::End, Some(sequence)) => sequence.end,
            (ControlKind::Ready, Some(_)) => true,
        };
        self.values[usize::from(yes)].clone()
    }

    fn correlation(&self, id: &SequenceId) -> Option<Bytes> {
        if self.datatype == Datatype::Bytes {
            let text = match id {
                SequenceId::Number(number) => number.to_string(),
                SequenceId::Text(text) => text.to_string(),
            };
            let mut element = u32::try_from(text.len()).ok()?.to_le_bytes().to_vec();
            element.extend_from_slice(text.as_bytes());
            return Some(element.into());
        }
        let SequenceId::Number(number) = *id else { return None };
        Some(match self.datatype {
            Datatype::Uint64 => Bytes::copy_from_slice(&number.to_le_bytes()),
            Datatype::Int64 => Bytes::copy_from_slice(&i64::try_from(number).ok()?.to_le_bytes()),
            Datatype::Uint32 => Bytes::copy_from_slice(&u32::try_from(number).ok()?.to_le_bytes()),
            Datatype::Int32 => Bytes::copy_from_slice(&i32::try_from(number).ok()?.to_le_bytes()),
            _ => return None,
        })
    }
}

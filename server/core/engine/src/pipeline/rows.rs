//! The rows of a step's tensors: apart into requests of what its model takes at once, and together again.
//!
//! Pure. A tensor that is not taken apart is never copied.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kingpole_values::{Datatype, Error, Result, Shape, Tensor};

use crate::ModelSpec;

/// How a step's inputs become requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// One request, as they are.
    Whole,
    /// Requests of at most so many rows, as the model batches no more.
    Chunks(usize),
    /// Each row on its own, without dimension 0.
    Rows,
    /// There are no rows, so there is nothing to ask.
    Nothing,
}

/// How many rows these tensors have, and how they are to be parted.
pub(super) fn parting(model: &ModelSpec, each_row: bool, inputs: &[Tensor]) -> Result<(usize, Parting)> {
    if !each_row && model.max_batch_size == 0 {
        return Ok((1, Parting::Whole));
    }
    let mut rows = None;
    for input in inputs {
        let Some(&here) = input.shape.first() else {
            return Err(Error::invalid(format!("input '{}' is a scalar and has no rows", input.name)));
        };
        if *rows.get_or_insert(here) != here {
            let first = &inputs[0];
            return Err(Error::invalid(format!(
                "input '{}' has {here} rows, but input '{}' has {}",
                input.name, first.name, first.shape[0]
            )));
        }
    }
    let rows = rows.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(1);
    let most = model.max_batch_size as usize;
    Ok((
        rows,
        match rows {
            0 => Parting::Nothing,
            _ if each_row => Parting::Rows,
            rows if rows > most => Parting::Chunks(most),
            _ => Parting::Whole,
        },
    ))
}

/// The inputs of each request.
pub(super) fn apart(inputs: Vec<Tensor>, rows: usize, parting: Parting) -> Result<Vec<Vec<Tensor>>> {
    let size = match parting {
        Parting::Nothing => return Ok(Vec::new()),
        Parting::Whole => return Ok(vec![inputs]),
        Parting::Chunks(size) => size,
        Parting::Rows => 1,
    };
    let mut requests: Vec<Vec<Tensor>> = (0..rows.div_ceil(size)).map(|_| Vec::new()).collect();
    for input in inputs {
        let starts = starts_of_rows(&input, rows)?;
        for (request, tensors) in requests.iter_mut().enumerate() {
            let (from, to) = (request * size, rows.min((request + 1) * size));
            let mut shape = input.shape.clone();
            if parting == Parting::Rows {
                shape = shape[1..].iter().copied().collect();
            } else if let Some(first) = shape.dimensions_mut().first_mut() {
                *first = i64::try_from(to - from).unwrap_or(i64::MAX);
            }
            let data = input.data.slice(starts[from]..starts[to]);
            tensors.push(Tensor { name: input.name.clone(), datatype: input.datatype, shape, data });
        }
    }
    Ok(requests)
}

/// Where each row begins, and where the last one ends.
fn starts_of_rows(tensor: &Tensor, rows: usize) -> Result<Vec<usize>> {
    tensor.check_size()?;
    if tensor.datatype != Datatype::Bytes {
        let row_bytes = tensor.data.len() / rows.max(1);
        return Ok((0..=rows).map(|row| row * row_bytes).collect());
    }
    let elements_of_row = tensor.shape.elements().unwrap_or(0) / rows.max(1);
    let mut starts = vec![0];
    let mut position = 0;
    for _ in 0..rows {
        for _ in 0..elements_of_row {
            let length = tensor.data.get(position..position + 4).and_then(|bytes| bytes.try_into().ok());
            position += 4 + length.map_or(0, |length| u32::from_le_bytes(length) as usize);
        }
        starts.push(position.min(tensor.data.len()));
    }
    Ok(starts)
}

/// One output of all requests as one tensor.
pub(super) fn together(mut answers: Vec<Tensor>, parting: Parting) -> Result<Tensor> {
    if parting == Parting::Whole && answers.len() == 1 {
        return answers.pop().ok_or_else(|| Error::internal("an answer went missing"));
    }
    let Some(first) = answers.first() else { return Err(Error::internal("a step without answers")) };
    let inner = |tensor: &Tensor| -> Shape {
        let kept =
            if parting == Parting::Rows { &tensor.shape[..] } else { tensor.shape.get(1..).unwrap_or(&[]) };
        kept.iter().copied().collect()
    };
    let (name, datatype, rest) = (first.name.clone(), first.datatype, inner(first));
    let mut rows = 0;
    let mut data = BytesMut::with_capacity(answers.iter().map(|answer| answer.data.len()).sum());
    for answer in &answers {
        if inner(answer) != rest {
            return Err(Error::invalid(format!(
                "output '{name}' has shape {} for some rows and {} for others, which cannot be joined",
                first.shape, answer.shape
            )));
        }
        rows += if parting == Parting::Rows { 1 } else { answer.shape.first().copied().unwrap_or(1) };
        data.extend_from_slice(&answer.data);
    }
    let shape = std::iter::once(rows).chain(rest.iter().copied()).collect();
    Ok(Tensor { name, datatype, shape, data: data.freeze() })
}

/// An output of a step that had no rows; sizes that only the model knows are 0.
pub(super) fn nothing(model: &Arc<ModelSpec>, output: &str, each_row: bool) -> Result<Tensor> {
    let declared = model.outputs.iter().find(|declared| declared.name == *output);
    let declared = declared.ok_or_else(|| {
        Error::unavailable(format!("model '{}' has no output '{output}' any more", model.name))
    })?;
    let inner = if each_row { &declared.shape[..] } else { declared.shape.get(1..).unwrap_or(&[]) };
    let shape = std::iter::once(0).chain(inner.iter().map(|&size| size.max(0))).collect();
    Ok(Tensor { name: declared.name.clone(), datatype: declared.datatype, shape, data: Bytes::new() })
}

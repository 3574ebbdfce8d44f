//! Predictions in JSON, nested as their shapes say, by rows or by columns.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use kingpole_values::{Datatype, Error, InferResponse, Result, Tensor, split_byte_strings};

use crate::rest::write::{key, string};

/// How inputs came, and outputs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A list with one value for each row: an object of outputs, or the only output's own.
    Rows,
    /// An object of whole outputs, or the only output's own.
    Columns,
}

/// `{"<name>": ...}` with the outputs by rows or columns. An output alone goes without its name.
///
/// Text that is not UTF-8, and all text of an output whose name ends in `_bytes`, goes as `{"b64": "..."}`.
///
/// # Errors
/// `INVALID_ARGUMENT` when JSON cannot hold a number (not finite), or when the outputs have no rows in common.
pub fn encode_predictions(response: &InferResponse, name: &str, layout: Layout) -> Result<Bytes> {
    let outputs = response.outputs.iter().map(Output::new).collect::<Result<Vec<_>>>()?;
    let mut out = BytesMut::with_capacity(64 + outputs.iter().map(Output::text_bytes).sum::<usize>());
    out.put_u8(b'{');
    key(&mut out, name);
    match (outputs.as_slice(), layout) {
        ([output], _) => output.value(&mut out, &output.shape, 0)?,
        (outputs, Layout::Columns) => {
            object(&mut out, outputs, |out, output| output.value(out, &output.shape, 0))?;
        }
        (outputs, Layout::Rows) => {
            let rows = common_rows(outputs)?;
            list(&mut out, rows, |out, row| {
                object(out, outputs, |out, output| {
                    let shape = &output.shape[1..];
                    output.value(out, shape, row * shape.iter().product::<usize>())
                })
            })?;
        }
    }
    out.put_u8(b'}');
    Ok(out.freeze())
}

/// `{"results": [[[label, score], ...], ...]}`, as TensorFlow Serving answers a classification.
///
/// Labels are the output `classes` or the only one of text, scores the output `scores` or the only one of floats.
///
/// # Errors
/// `INVALID_ARGUMENT` when the model has no such outputs.
pub fn encode_classifications(response: &InferResponse) -> Result<Bytes> {
    let pick = |name: &str, fits: &dyn Fn(Datatype) -> bool| {
        let mut fitting = response.outputs.iter().filter(|output| fits(output.datatype));
        let named = fitting.clone().find(|output| output.name == *name);
        named.or_else(|| fitting.next().filter(|_| fitting.next().is_none()))
    };
    let labels = pick("classes", &|datatype| datatype == Datatype::Bytes).map(Output::new).transpose()?;
    let scores = pick("scores", &|datatype| matches!(datatype, Datatype::Fp32 | Datatype::Fp64))
        .map(Output::new)
        .transpose()?;
    let (rows, classes) = match (&labels, &scores) {
        (Some(one), None) | (None, Some(one)) => one.matrix()?,
        (Some(labels), Some(scores)) if labels.matrix()? == scores.matrix()? => scores.matrix()?,
        (Some(labels), Some(scores)) => {
            return Err(Error::invalid(format!(
                "outputs '{}' and '{}' differ in shape, so that they are no classification",
                labels.tensor.name, scores.tensor.name
            )));
        }
        (None, None) => {
            return Err(Error::invalid(format!(
                "model '{}' does not classify: it has neither one output of text nor one of floats",
                response.model
            )));
        }
    };
    results(|out| {
        list(out, rows, |out, row| {
            list(out, classes, |out, class| {
                let at = row * classes + class;
                out.put_u8(b'[');
                match &labels {
                    Some(labels) => labels.value(out, &[], at)?,
                    None => out.put_slice(b"\"\""),
                }
                out.put_u8(b',');
                match &scores {
                    Some(scores) => scores.value(out, &[], at)?,
                    None => out.put_slice(b"0.0"),
                }
                out.put_u8(b']');
                Ok(())
            })
        })
    })
}

/// `{"results": [value, ...]}`, as TensorFlow Serving answers a regression.
///
/// # Errors
/// `INVALID_ARGUMENT` when the model has not exactly one output of one number a row.
pub fn encode_regressions(response: &InferResponse) -> Result<Bytes> {
    let unfit = || {
        Error::invalid(format!(
            "model '{}' does not regress: it has not exactly one output of one number a row",
            response.model
        ))
    };
    let [output] = response.outputs.as_slice() else { return Err(unfit()) };
    let output = Output::new(output)?;
    match output.matrix()? {
        (rows, 1) if output.tensor.datatype != Datatype::Bytes => {
            results(|out| list(out, rows, |out, row| output.value(out, &[], row)))
        }
        _ => Err(unfit()),
    }
}

fn results(write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<Bytes> {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(b"{\"results\":");
    write(&mut out)?;
    out.put_u8(b'}');
    Ok(out.freeze())
}

fn common_rows(outputs: &[Output<'_>]) -> Result<usize> {
    let rows = |output: &Output<'_>| output.shape.first().copied();
    let first = outputs.first().and_then(rows);
    match outputs.iter().find(|output| rows(output).is_none() || rows(output) != first) {
        None => Ok(first.unwrap_or(0)),
        Some(odd) => Err(Error::invalid(format!(
            "output '{}' has shape {}, so that the outputs have no rows in common: ask with 'inputs' instead of \
             'instances', or for one output",
            odd.tensor.name, odd.tensor.shape
        ))),
    }
}

/// An output whose size is known to fit its shape.
struct Output<'a> {
    tensor: &'a Tensor,
    shape: Vec<usize>,
    /// The elements of a BYTES output.
    texts: Vec<&'a [u8]>,
}

impl<'a> Output<'a> {
    fn new(tensor: &'a Tensor) -> Result<Self> {
        tensor.check_size().map_err(|error| Error::internal(error.message))?;
        let shape = tensor.shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        let texts = if tensor.datatype == Datatype::Bytes {
            split_byte_strings(&tensor.data).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(Self { tensor, shape, texts })
    }

    /// About how many bytes its JSON takes.
    fn text_bytes(&self) -> usize {
        self.tensor.data.len() * 3 + 16
    }

    /// Rows, and values in each.
    fn matrix(&self) -> Result<(usize, usize)> {
        match self.shape.as_slice() {
            [rows] => Ok((*rows, 1)),
            [rows, values] => Ok((*rows, *values)),
            _ => Err(Error::invalid(format!(
                "output '{}' has shape {}, expected one or two dimensions",
                self.tensor.name, self.tensor.shape
            ))),
        }
    }

    /// The elements from `from` on, nested as `shape`.
    fn value(&self, out: &mut BytesMut, shape: &[usize], from: usize) -> Result<()> {
        match shape {
            [] => self.run(out, from, 1),
            [length] => {
                out.put_u8(b'[');
                self.run(out, from, *length)?;
                out.put_u8(b']');
                Ok(())
            }
            [length, inner @ ..] => {
                let stride: usize = inner.iter().product();
                list(out, *length, |out, index| self.value(out, inner, from + index * stride))
            }
        }
    }

    /// So many elements, with commas between.
    fn run(&self, out: &mut BytesMut, from: usize, count: usize) -> Result<()> {
        let data = &self.tensor.data[..];
        match self.tensor.datatype {
            Datatype::Bool => run(out, data, from, count, |out, [byte]| {
                out.put_slice(if byte == 0 { b"false" } else { b"true" });
                Ok(())
            }),
            Datatype::Uint8 => run(out, data, from, count, |out, b| integer(out, u8::from_le_bytes(b))),
            Datatype::Uint16 => run(out, data, from, count, |out, b| integer(out, u16::from_le_bytes(b))),
            Datatype::Uint32 => run(out, data, from, count, |out, b| integer(out, u32::from_le_bytes(b))),
            Datatype::Uint64 => run(out, data, from, count, |out, b| integer(out, u64::from_le_bytes(b))),
            Datatype::Int8 => run(out, data, from, count, |out, b| integer(out, i8::from_le_bytes(b))),
            Datatype::Int16 => run(out, data, from, count, |out, b| integer(out, i16::from_le_bytes(b))),
            Datatype::Int32 => run(out, data, from, count, |out, b| integer(out, i32::from_le_bytes(b))),
            Datatype::Int64 => run(out, data, from, count, |out, b| integer(out, i64::from_le_bytes(b))),
            Datatype::Fp16 => {
                run(out, data, from, count, |out, b| self.float(out, f16::from_le_bytes(b).to_f32()))
            }
            Datatype::Bf16 => {
                run(out, data, from, count, |out, b| self.float(out, bf16::from_le_bytes(b).to_f32()))
            }
            Datatype::Fp32 => run(out, data, from, count, |out, b| self.float(out, f32::from_le_bytes(b))),
            Datatype::Fp64 => run(out, data, from, count, |out, b| self.float(out, f64::from_le_bytes(b))),
            Datatype::Bytes => {
                for (index, text) in self.texts.iter().skip(from).take(count).enumerate() {
                    if index > 0 {
                        out.put_u8(b',');
                    }
                    self.text(out, text);
                }
                Ok(())
            }
        }
    }

    /// The shortest text that reads back as the same float.
    fn float<F: ryu::Float + Into<f64>>(&self, out: &mut BytesMut, value: F) -> Result<()> {
        let wide: f64 = value.into();
        if !wide.is_finite() {
            return Err(Error::invalid(format!(
                "output '{}' holds {wide}, which JSON cannot hold: use gRPC, or Open Inference with 'binary_data'",
                self.tensor.name
            )));
        }
        out.put_slice(ryu::Buffer::new().format_finite(value).as_bytes());
        Ok(())
    }

    fn text(&self, out: &mut BytesMut, element: &[u8]) {
        match std::str::from_utf8(element) {
            Ok(text) if !self.tensor.name.ends_with("_bytes") => string(out, text),
            _ => {
                out.put_slice(b"{\"b64\":\"");
                out.put_slice(STANDARD.encode(element).as_bytes());
                out.put_slice(b"\"}");
            }
        }
    }
}

fn run<const N: usize>(
    out: &mut BytesMut,
    data: &[u8],
    from: usize,
    count: usize,
    mut write: impl FnMut(&mut BytesMut, [u8; N]) -> Result<()>,
) -> Result<()> {
    for (index, element) in data.as_chunks::<N>().0.iter().skip(from).take(count).enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        write(out, *element)?;
    }
    Ok(())
}

#[allow(clippy::unnecessary_wraps)] // as the writers of other elements
fn integer(out: &mut BytesMut, value: impl itoa::Integer) -> Result<()> {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
    Ok(())
}

fn list(
    out: &mut BytesMut,
    length: usize,
    mut write: impl FnMut(&mut BytesMut, usize) -> Result<()>,
) -> Result<()> {
    out.put_u8(b'[');
    for index in 0..length {
        if index > 0 {
            out.put_u8(b',');
        }
        write(out, index)?;
    }
    out.put_u8(b']');
    Ok(())
}

fn object<'a>(
    out: &mut BytesMut,
    outputs: &[Output<'a>],
    mut write: impl FnMut(&mut BytesMut, &Output<'a>) -> Result<()>,
) -> Result<()> {
    out.put_u8(b'{');
    for output in outputs {
        key(out, &output.tensor.name);
        write(out, output)?;
    }
    out.put_u8(b'}');
    Ok(())
}

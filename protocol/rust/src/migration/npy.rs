//! `NumPy`'s file format, which `SageMaker`'s clients send as `application/x-npy`: one array, said exactly.
//!
//! Source: the `NumPy` Enhancement Proposal 1, "A Simple File Format for `NumPy` Arrays".

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{Datatype, Error, InferRequest, InferResponse, Parameters, Result, Shape, Tensor};

use super::{DeclaredInput, JsonPredict, Layout, only_input, shown};
use crate::{Scatter, ScatterWriter};

const MAGIC: &[u8] = b"\x93NUMPY";
/// The elements start at a multiple of this.
const ALIGNMENT_BYTES: usize = 64;

const NAMES: [(&str, Datatype); 12] = [
    ("b1", Datatype::Bool),
    ("u1", Datatype::Uint8),
    ("u2", Datatype::Uint16),
    ("u4", Datatype::Uint32),
    ("u8", Datatype::Uint64),
    ("i1", Datatype::Int8),
    ("i2", Datatype::Int16),
    ("i4", Datatype::Int32),
    ("i8", Datatype::Int64),
    ("f2", Datatype::Fp16),
    ("f4", Datatype::Fp32),
    ("f8", Datatype::Fp64),
];

/// Decode an array as the model's only required input. Its elements are a view of `body`.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, and for what is not little-endian numbers in rows.
pub fn decode_npy(mut body: Bytes, declared: &[DeclaredInput]) -> Result<JsonPredict> {
    let name = declared[only_input(declared)?].name.clone();
    let header = split_header(&mut body)?;
    let text = std::str::from_utf8(&header).map_err(|_| malformed("its header is not text"))?;
    let (datatype, shape) = read_header(text)?;
    let tensor = Tensor { name, datatype, shape, data: body };
    let request =
        InferRequest { inputs: vec![tensor], parameters: Parameters::new(), ..InferRequest::default() };
    Ok(JsonPredict { request, layout: Layout::Rows, signature: None })
}

fn malformed(what: &str) -> Error {
    Error::invalid(format!("malformed npy array: {what}"))
}

/// Take the magic and the header off the body.
fn split_header(body: &mut Bytes) -> Result<Bytes> {
    let cut_off = || malformed("its header is cut off");
    if !body.starts_with(MAGIC) {
        return Err(malformed("it does not begin as one"));
    }
    let (prefix_bytes, header_bytes) = match body[MAGIC.len()..] {
        [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        [1..=3, ..] | [] => return Err(cut_off()),
        [version, ..] => return Err(malformed(&format!("its version {version} is not known"))),
    };
    if body.len() - prefix_bytes < header_bytes {
        return Err(cut_off());
    }
    let mut header = body.split_to(prefix_bytes + header_bytes);
    Ok(header.split_off(prefix_bytes))
}

/// Read the Python dictionary of a header.
fn read_header(text: &str) -> Result<(Datatype, Shape)> {
    let field = |name: &str| {
        let (_, after) = text.split_once(&format!("'{name}'"))?;
        Some(after.trim_start().strip_prefix(':')?.trim_start())
    };
    let description = field("descr")
        .and_then(|after| after.strip_prefix('\'')?.split_once('\''))
        .ok_or_else(|| malformed("its header has no simple 'descr'"))?;
    let shape = field("shape")
        .and_then(|after| after.strip_prefix('(')?.split_once(')'))
        .ok_or_else(|| malformed("its header has no 'shape'"))?;
    let shape = read_shape(shape.0)?;
    match field("fortran_order") {
        Some(after) if after.starts_with("False") => {}
        Some(after) if after.starts_with("True") && shape.len() < 2 => {}
        Some(after) if after.starts_with("True") => {
            return Err(Error::invalid("an npy array in Fortran's order is not supported: send it in C's"));
        }
        _ => return Err(malformed("its header has no 'fortran_order'")),
    }
    Ok((read_description(description.0)?, shape))
}

fn read_description(text: &str) -> Result<Datatype> {
    let name = text.strip_prefix(['<', '|', '=']).unwrap_or_default();
    let found = NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, datatype)| datatype);
    found.ok_or_else(|| {
        Error::invalid(format!(
            "an npy array of '{}' is not supported: send little-endian numbers, or JSON",
            shown(text)
        ))
    })
}

fn read_shape(text: &str) -> Result<Shape> {
    let mut shape = Shape::default();
    for size in text.split(',').map(str::trim).filter(|size| !size.is_empty()) {
        if shape.len() >= Shape::MAX_RANK {
            return Err(Error::invalid(format!("an npy array has more than {} dimensions", Shape::MAX_RANK)));
        }
        let size = size.parse::<u32>().map_err(|_| malformed("a size in its 'shape' is no number"))?;
        shape.push(i64::from(size));
    }
    Ok(shape)
}

/// The only output as an array. Its elements are not copied.
///
/// # Errors
/// `INVALID_ARGUMENT` for several outputs, and for those that `NumPy` has no type for.
pub fn encode_npy(response: &InferResponse) -> Result<Scatter> {
    let [output] = response.outputs.as_slice() else {
        return Err(Error::invalid(format!(
            "model '{}' has {} outputs, npy holds one: ask for JSON",
            response.model,
            response.outputs.len()
        )));
    };
    let Some((name, _)) = NAMES.into_iter().find(|(_, datatype)| *datatype == output.datatype) else {
        return Err(Error::invalid(format!(
            "output '{}' is {}, which npy cannot hold: ask for JSON",
            output.name, output.datatype
        )));
    };
    let order = if output.datatype.element_bytes() == Some(1) { '|' } else { '<' };
    let mut sizes = output.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if output.shape.len() == 1 {
        sizes.push(','); // else it is no tuple
    }
    let header = format!("{{'descr': '{order}{name}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    let padding = unpadded.next_multiple_of(ALIGNMENT_BYTES) - unpadded;
    let header_bytes = header.len() + padding + 1;
    let mut head = BytesMut::with_capacity(unpadded + padding);
    head.put_slice(MAGIC);
    head.put_slice(&[1, 0]);
    // 32 dimensions of at most 20 digits are far below 64 KiB.
    head.put_u16_le(u16::try_from(header_bytes).unwrap_or(u16::MAX));
    head.put_slice(header.as_bytes());
    head.put_bytes(b' ', padding);
    head.put_u8(b'\n');
    let mut writer = ScatterWriter::new(head.len() + output.data.len());
    writer.buffer().put_slice(&head);
    writer.put(&output.data);
    Ok(writer.finish())
}

#[cfg(test)]
mod tests {
    use kingpole_values::Code;

    use super::*;
    use crate::sample;

    fn declared() -> Vec<DeclaredInput> {
        let datatype = Datatype::Fp32;
        vec![DeclaredInput { name: "x".into(), datatype, shape: Shape::new(&[-1]), optional: false }]
    }

    fn array(header: &str, data: &[u8]) -> Bytes {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat().into()
    }

    fn decode(header: &str) -> Result<Tensor> {
        decode_npy(array(header, b"data"), &declared()).map(|mut decoded| decoded.request.inputs.remove(0))
    }

    #[test]
    fn every_number_survives_and_starts_aligned() {
        for tensor in sample::tensors() {
            let response = InferResponse { outputs: vec![tensor.clone()], ..InferResponse::default() };
            let Ok(encoded) = encode_npy(&response) else {
                assert!(matches!(tensor.datatype, Datatype::Bytes | Datatype::Bf16));
                continue;
            };
            let encoded = encoded.into_bytes();
            assert_eq!((encoded.len() - tensor.data.len()) % ALIGNMENT_BYTES, 0);
            assert_eq!(decode_npy(encoded, &declared()).unwrap().request.inputs, [tensor]);
        }
    }

    #[test]
    fn a_header_is_read_however_it_is_spaced() {
        let tensor = decode("{ 'shape' :(2,),'fortran_order':True , 'descr':'|i1'}  \n").unwrap();
        assert_eq!(
            (tensor.datatype, &*tensor.shape, &tensor.data[..]),
            (Datatype::Int8, &[2][..], &b"data"[..])
        );
    }

    #[test]
    fn what_it_cannot_be_is_explained() {
        for (header, part) in [
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "'>f4' is not supported"),
            ("{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", "'<U3' is not supported"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "no simple 'descr'"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", "Fortran"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "no number"),
            ("{'descr': '<f4', 'fortran_order': False, }", "no 'shape'"),
            ("{'descr': '<f4', 'shape': (1,), }", "no 'fortran_order'"),
            ("", "no simple 'descr'"),
        ] {
            let error = decode(header).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.contains(part), "{header}: {error}");
        }
        let whole = array("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"data");
        for length in 0..60 {
            assert!(decode_npy(whole.slice(..length), &declared()).is_err(), "{length}");
        }
        assert!(decode_npy(Bytes::from_static(b"\x93NUMPY\x09\0\0\0\0\0"), &declared()).is_err());
    }
}

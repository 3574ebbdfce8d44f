//! The classification extension: an output's highest values, as text that names their classes.
//!
//! Knows no parameter and no protocol: whoever calls has read `classification` from the requested
//! output, and the labels from the model's folder.

use std::cmp::Ordering;
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use half::{bf16, f16};
use kingpole_values::{Datatype, Error, Result, Shape, Tensor, write_byte_string};

/// The `count` highest values of each row as BYTES `value:index` or `value:index:label`, highest first.
///
/// A row is what is beneath dimension 0 if the tensor is `batched`, else the whole tensor; in either
/// case it is taken as flat. The result's shape is `[rows, n]` or `[n]`, with `n` the smaller of
/// `count` and the elements of a row. Of equal values the lower index comes first; NaN comes last. A
/// class has a label only if `labels` has a line for it that is not empty.
///
/// # Errors
/// `INVALID_ARGUMENT` for a count of 0, for a datatype without an order, for a batched tensor without
/// a first dimension, and for a tensor whose bytes are not what its shape says.
///
/// Source: Triton's classification extension. It writes values with C++'s `std::to_string`: floats as
/// `%f` does, with 6 decimals, integers without any. FP16 and BF16, which it refuses, are floats here.
pub fn classify(tensor: &Tensor, count: usize, labels: Option<&[String]>, batched: bool) -> Result<Tensor> {
    let refuse = |what: String| Error::invalid(format!("output '{}': {what}", tensor.name));
    if count == 0 {
        return Err(refuse("classification must ask for at least 1 class".to_owned()));
    }
    tensor.check_size()?;
    let (rows, row) = match tensor.shape.split_first() {
        Some((&rows, row)) if batched => (usize::try_from(rows).ok(), row),
        None if batched => {
            return Err(refuse("classification of a batch needs a first dimension".to_owned()));
        }
        _ => (Some(1), &tensor.shape[..]),
    };
    let (Some(rows), Some(classes)) = (rows, Shape::new(row).elements()) else {
        return Err(refuse(format!("classification of {} has too many classes", tensor.shape)));
    };
    let top = Top { classes, count: count.min(classes), labels: labels.unwrap_or_default() };
    let data = &tensor.data[..];
    let data = match tensor.datatype {
        Datatype::Uint8 => top.integers(data, u8::from_le_bytes),
        Datatype::Uint16 => top.integers(data, u16::from_le_bytes),
        Datatype::Uint32 => top.integers(data, u32::from_le_bytes),
        Datatype::Uint64 => top.integers(data, u64::from_le_bytes),
        Datatype::Int8 => top.integers(data, i8::from_le_bytes),
        Datatype::Int16 => top.integers(data, i16::from_le_bytes),
        Datatype::Int32 => top.integers(data, i32::from_le_bytes),
        Datatype::Int64 => top.integers(data, i64::from_le_bytes),
        Datatype::Fp16 => top.floats(data, f16::from_le_bytes),
        Datatype::Bf16 => top.floats(data, bf16::from_le_bytes),
        Datatype::Fp32 => top.floats(data, f32::from_le_bytes),
        Datatype::Fp64 => top.floats(data, f64::from_le_bytes),
        Datatype::Bool | Datatype::Bytes => {
            return Err(refuse(format!("classification needs numbers, got {}", tensor.datatype)));
        }
    };
    let dimension = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    let shape: Shape = batched.then(|| dimension(rows)).into_iter().chain([dimension(top.count)]).collect();
    Ok(Tensor { name: tensor.name.clone(), datatype: Datatype::Bytes, shape, data })
}

/// What is taken of each row.
struct Top<'a> {
    classes: usize,
    count: usize,
    labels: &'a [String],
}

impl Top<'_> {
    fn integers<const N: usize, T: Into<i128>>(&self, data: &[u8], read: fn([u8; N]) -> T) -> Bytes {
        self.rows(
            data,
            |bytes| read(bytes).into(),
            |left, right| left.cmp(&right),
            |text, value| write!(text, "{value}"),
        )
    }

    fn floats<const N: usize, T: Into<f64>>(&self, data: &[u8], read: fn([u8; N]) -> T) -> Bytes {
        self.rows(
            data,
            |bytes| read(bytes).into(),
            nan_is_lowest,
            |text, value: f64| {
                if value.is_nan() { text.write_str("nan") } else { write!(text, "{value:.6}") }
            },
        )
    }

    fn rows<const N: usize, T: Copy>(
        &self,
        data: &[u8],
        read: impl Fn([u8; N]) -> T,
        order: impl Fn(T, T) -> Ordering,
        write: impl Fn(&mut String, T) -> std::fmt::Result,
    ) -> Bytes {
        let mut out = BytesMut::new();
        if self.count == 0 || data.is_empty() {
            return out.freeze();
        }
        let mut text = String::new();
        let mut ranked: Vec<(usize, T)> = Vec::with_capacity(self.classes);
        for row in data.as_chunks::<N>().0.chunks_exact(self.classes) {
            ranked.clear();
            ranked.extend(row.iter().map(|bytes| read(*bytes)).enumerate());
            let highest_first =
                |left: &(usize, T), right: &(usize, T)| order(right.1, left.1).then(left.0.cmp(&right.0));
            if self.count < self.classes {
                ranked.select_nth_unstable_by(self.count, highest_first);
            }
            let top = &mut ranked[..self.count];
            top.sort_unstable_by(highest_first);
            for &(index, value) in &*top {
                text.clear();
                // A String takes everything.
                let _ = write(&mut text, value).and_then(|()| write!(text, ":{index}"));
                if let Some(label) = self.labels.get(index).filter(|label| !label.is_empty()) {
                    text.push(':');
                    text.push_str(label);
                }
                write_byte_string(&mut out, text.as_bytes());
            }
        }
        out.freeze()
    }
}

fn nan_is_lowest(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
}

#[cfg(test)]
mod tests {
    use kingpole_values::split_byte_strings;

    use super::*;

    fn tensor(datatype: Datatype, shape: &[i64], data: impl IntoIterator<Item = u8>) -> Tensor {
        Tensor {
            name: "y".into(),
            datatype,
            shape: Shape::new(shape),
            data: data.into_iter().collect::<Vec<u8>>().into(),
        }
    }

    fn fp32(shape: &[i64], values: &[f32]) -> Tensor {
        tensor(Datatype::Fp32, shape, values.iter().flat_map(|value| value.to_le_bytes()))
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        tensor.check_size().unwrap();
        split_byte_strings(&tensor.data)
            .map(|text| String::from_utf8(text.unwrap().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn each_row_has_its_highest_values_first() {
        let output = fp32(&[2, 3], &[0.5, 10.0, -2.0, 1.0, 3.0, 2.0]);
        let labels = ["apple".to_owned(), "cherry".to_owned()];
        let classes = classify(&output, 2, Some(&labels), true).unwrap();
        assert_eq!((classes.datatype, &classes.shape[..]), (Datatype::Bytes, &[2, 2][..]));
        assert_eq!(classes.name, "y");
        assert_eq!(
            texts(&classes),
            ["10.000000:1:cherry", "0.500000:0:apple", "3.000000:1:cherry", "2.000000:2"]
        );
        let classes = classify(&output, 9, None, false).unwrap();
        assert_eq!(classes.shape[..], [6]);
        assert_eq!(texts(&classes)[..2], ["10.000000:1", "3.000000:4"]);
        let deep = classify(&fp32(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]), 3, None, true).unwrap();
        assert_eq!(deep.shape[..], [1, 3]);
        assert_eq!(texts(&deep), ["4.000000:3", "3.000000:2", "2.000000:1"]);
    }

    #[test]
    fn equal_values_go_by_index_and_nan_goes_last() {
        let output = fp32(&[6], &[f32::NAN, 1.0, f32::INFINITY, 1.0, f32::NEG_INFINITY, -0.0]);
        let all = classify(&output, 6, None, false).unwrap();
        assert_eq!(texts(&all), ["inf:2", "1.000000:1", "1.000000:3", "-0.000000:5", "-inf:4", "nan:0"]);
        let first = classify(&output, 2, None, false).unwrap();
        assert_eq!(texts(&first), ["inf:2", "1.000000:1"]);
    }

    #[test]
    fn floats_are_written_as_c_does() {
        // The last is a tie between two texts, which goes to the even digit.
        let values = [1e20f64, 0.1, 1e-7, -0.007_812_5];
        let output = tensor(Datatype::Fp64, &[4], values.iter().flat_map(|value| value.to_le_bytes()));
        assert_eq!(
            texts(&classify(&output, 4, None, false).unwrap()),
            ["100000000000000000000.000000:0", "0.100000:1", "0.000000:2", "-0.007812:3"]
        );
        let single = classify(&fp32(&[1], &[0.1]), 1, None, false).unwrap();
        assert_eq!(texts(&single), ["0.100000:0"]);
    }

    #[test]
    fn every_number_has_an_order() {
        let two: [(Datatype, &[u8], [&str; 2]); 12] = [
            (Datatype::Fp16, &[0x00, 0xc0, 0x66, 0x2e], ["0.099976:1", "-2.000000:0"]),
            (Datatype::Bf16, &[0x80, 0x3f, 0x49, 0x40], ["3.140625:1", "1.000000:0"]),
            (Datatype::Fp32, &[0, 0, 0, 0, 0, 0, 0x80, 0x3f], ["1.000000:1", "0.000000:0"]),
            (Datatype::Fp64, &[0; 16], ["0.000000:0", "0.000000:1"]),
            (Datatype::Uint8, &[1, 255], ["255:1", "1:0"]),
            (Datatype::Int8, &[255, 1], ["1:1", "-1:0"]),
            (Datatype::Uint16, &[1, 0, 255, 255], ["65535:1", "1:0"]),
            (Datatype::Int16, &[1, 0, 255, 255], ["1:0", "-1:1"]),
            (Datatype::Uint32, &[0, 0, 0, 0, 255, 255, 255, 255], ["4294967295:1", "0:0"]),
            (Datatype::Int32, &[255, 255, 255, 255, 0, 0, 0, 0], ["0:1", "-1:0"]),
            (
                Datatype::Uint64,
                &[0, 0, 0, 0, 0, 0, 0, 0x80, 255, 255, 255, 255, 255, 255, 255, 255],
                ["18446744073709551615:1", "9223372036854775808:0"],
            ),
            (
                Datatype::Int64,
                &[0, 0, 0, 0, 0, 0, 0, 0x80, 255, 255, 255, 255, 255, 255, 255, 255],
                ["-1:1", "-9223372036854775808:0"],
            ),
        ];
        for (datatype, data, expected) in two {
            let classes = classify(&tensor(datatype, &[1, 2], data.to_vec()), 5, None, true).unwrap();
            assert_eq!(texts(&classes), expected, "{datatype}");
        }
    }

    #[test]
    fn nothing_to_rank_gives_nothing() {
        for (shape, expected) in [(&[2i64, 0][..], &[2i64, 0][..]), (&[0, 3], &[0, 2])] {
            let classes = classify(&fp32(shape, &[]), 2, None, true).unwrap();
            assert_eq!((&classes.shape[..], classes.data.len()), (expected, 0));
            classes.check_size().unwrap();
        }
    }

    #[test]
    fn what_cannot_be_ranked_is_named() {
        let cases = [
            (fp32(&[1], &[1.0]), 0, false, "output 'y': classification must ask for at least 1 class"),
            (
                tensor(Datatype::Bool, &[1], [1]),
                1,
                false,
                "output 'y': classification needs numbers, got BOOL",
            ),
            (
                tensor(Datatype::Bytes, &[0], []),
                1,
                false,
                "output 'y': classification needs numbers, got BYTES",
            ),
            (fp32(&[], &[1.0]), 1, true, "output 'y': classification of a batch needs a first dimension"),
            (fp32(&[2], &[1.0]), 1, false, "tensor 'y': FP32 [2] needs 8 bytes, got 4"),
        ];
        for (output, count, batched, expected) in cases {
            let error = classify(&output, count, None, batched).unwrap_err();
            assert_eq!(error, Error::invalid(expected));
        }
    }
}

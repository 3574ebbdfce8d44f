//! Tensors: a datatype, a shape and a view of bytes.

use std::fmt;
use std::ops::Deref;

use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use smallvec::SmallVec;

use crate::{Datatype, Error, Result};

/// The size of each dimension, outermost first. In a request all are >= 0; in a specification -1
/// stands for any size.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[i64; 4]>);

impl Shape {
    /// The highest rank accepted anywhere.
    pub const MAX_RANK: usize = 32;

    /// A shape of these dimensions.
    pub fn new(dimensions: &[i64]) -> Self {
        Self(SmallVec::from_slice(dimensions))
    }

    /// Append a dimension.
    pub fn push(&mut self, dimension: i64) {
        self.0.push(dimension);
    }

    /// The dimensions, to change in place.
    pub fn dimensions_mut(&mut self) -> &mut [i64] {
        &mut self.0
    }

    /// Number of elements; `None` if a dimension is negative or the product passes `usize`.
    pub fn elements(&self) -> Option<usize> {
        let mut product: usize = 1;
        let mut overflowed = false;
        for &dimension in &self.0 {
            let dimension = usize::try_from(dimension).ok()?;
            if dimension == 0 {
                // A zero anywhere makes the product zero, whatever the others would overflow to;
                // negative dimensions after it are still refused.
                product = 0;
                overflowed = false;
                continue;
            }
            match product.checked_mul(dimension) {
                Some(next) => product = next,
                None => overflowed = true,
            }
        }
        (!overflowed).then_some(product)
    }
}

impl Deref for Shape {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl FromIterator<i64> for Shape {
    fn from_iter<I: IntoIterator<Item = i64>>(dimensions: I) -> Self {
        Self(dimensions.into_iter().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[")?;
        for (position, dimension) in self.0.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            write!(formatter, "{dimension}")?;
        }
        formatter.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A named tensor.
///
/// `data` is little-endian and row-major. A `BYTES` tensor holds each element as a little-endian
/// u32 length and then that many bytes, one after another (Open Inference's binary form), whatever
/// protocol it came by. The bytes are a view of what was received; nothing says they are aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The input's or output's name. May be empty where a protocol addresses tensors by position.
    pub name: ByteString,
    /// Type of the elements.
    pub datatype: Datatype,
    /// Size of each dimension.
    pub shape: Shape,
    /// The elements.
    pub data: Bytes,
}

impl Tensor {
    /// Check that `data` holds exactly the elements that `shape` announces.
    ///
    /// Every codec leaves this to the one validator of the engine; clients use it on responses.
    pub fn check_size(&self) -> Result<()> {
        let Some(elements) = self.shape.elements() else {
            return Err(Error::invalid(format!(
                "tensor '{}': shape {} has a negative dimension or too many elements",
                self.name, self.shape
            )));
        };
        if let Some(element_bytes) = self.datatype.element_bytes() {
            let expected = elements.checked_mul(element_bytes);
            if expected != Some(self.data.len()) {
                return Err(Error::invalid(format!(
                    "tensor '{}': {} {} needs {} bytes, got {}",
                    self.name,
                    self.datatype,
                    self.shape,
                    expected.map_or_else(|| "too many".to_owned(), |n| n.to_string()),
                    self.data.len()
                )));
            }
            return Ok(());
        }
        let mut found = 0usize;
        for element in split_byte_strings(&self.data) {
            element.map_err(|error| Error::invalid(format!("tensor '{}': {}", self.name, error.message)))?;
            found += 1;
            if found > elements {
                break;
            }
        }
        if found == elements {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "tensor '{}': BYTES {} needs {elements} elements, got {}{found}",
                self.name,
                self.shape,
                if found > elements { "at least " } else { "" },
            )))
        }
    }
}

/// Append one element of a `BYTES` tensor.
///
/// # Panics
/// If the element is 4 GiB or longer; callers bound bodies far below that.
pub fn write_byte_string(buffer: &mut impl BufMut, element: &[u8]) {
    buffer.put_u32_le(u32::try_from(element.len()).expect("an element is shorter than 4 GiB"));
    buffer.put_slice(element);
}

/// Walk the elements of a `BYTES` tensor's data. After an error the walk ends.
pub fn split_byte_strings(data: &[u8]) -> impl Iterator<Item = Result<&[u8]>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((length, tail)) = rest.split_first_chunk::<4>() else {
            let left = rest.len();
            rest = &[];
            return Some(Err(Error::invalid(format!(
                "a BYTES element's 4-byte length is cut off after {left} bytes"
            ))));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > tail.len() {
            let left = tail.len();
            rest = &[];
            return Some(Err(Error::invalid(format!(
                "a BYTES element says {length} bytes, but only {left} are left"
            ))));
        }
        let (element, tail) = tail.split_at(length);
        rest = tail;
        Some(Ok(element))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: Datatype, shape: &[i64], data: &'static [u8]) -> Tensor {
        Tensor { name: "x".into(), datatype, shape: Shape::new(shape), data: Bytes::from_static(data) }
    }

    #[test]
    fn elements_refuses_negative_and_overflowing_shapes() {
        assert_eq!(Shape::new(&[]).elements(), Some(1), "rank 0 is a scalar");
        assert_eq!(Shape::new(&[3, 0]).elements(), Some(0));
        assert_eq!(Shape::new(&[2, -1]).elements(), None);
        assert_eq!(Shape::new(&[0, -1]).elements(), None);
        assert_eq!(Shape::new(&[i64::MAX, 3]).elements(), None);
        assert_eq!(Shape::new(&[i64::MAX, 3, 0]).elements(), Some(0));
    }

    #[test]
    fn a_size_mismatch_names_the_tensor_and_both_sizes() {
        let error = tensor(Datatype::Fp32, &[2], b"1234").check_size().unwrap_err();
        assert_eq!(error.message, "tensor 'x': FP32 [2] needs 8 bytes, got 4");
        assert!(tensor(Datatype::Fp32, &[1], b"1234").check_size().is_ok());
    }

    #[test]
    fn byte_strings_are_counted_and_bounded() {
        assert!(tensor(Datatype::Bytes, &[1], b"\x02\0\0\0ab").check_size().is_ok());
        assert!(tensor(Datatype::Bytes, &[0], b"").check_size().is_ok());
        for bad in [&b"\x02\0\0\0a"[..], b"\x02\0", b"", b"\0\0\0\0\0\0\0\0"] {
            let tensor = Tensor { data: Bytes::from_static(bad), ..tensor(Datatype::Bytes, &[1], b"") };
            assert!(tensor.check_size().is_err(), "{bad:?}");
        }
    }
}

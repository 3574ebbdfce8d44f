//! Tensors from and to Rust's own numbers, without copies where that is possible.

use std::borrow::Cow;

use bytemuck::Pod;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::{Datatype, Error, Result, Shape, Tensor, split_byte_strings, write_byte_string};

// Elements are little-endian on the wire, and are viewed here as they are.
#[cfg(target_endian = "big")]
compile_error!("tensors are viewed as Rust's numbers on little-endian machines only");

/// A Rust type that the elements of a tensor can be viewed as.
pub trait Element: Pod + Send + Sync {
    /// Its datatype.
    const DATATYPE: Datatype;
}

macro_rules! elements {
    ($($type:ty => $datatype:ident),* $(,)?) => {
        $(impl Element for $type {
            const DATATYPE: Datatype = Datatype::$datatype;
        })*
    };
}

elements! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f32 => Fp32, f64 => Fp64,
}

#[cfg(feature = "half")]
elements! { half::f16 => Fp16, half::bf16 => Bf16 }

/// A vector as the bytes that it is.
struct Elements<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Elements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// A tensor of these elements, which are moved, not copied.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the shape is of another number of elements.
    pub fn new<T: Element>(name: impl Into<ByteString>, shape: &[i64], elements: Vec<T>) -> Result<Self> {
        let data = if elements.is_empty() { Bytes::new() } else { Bytes::from_owner(Elements(elements)) };
        Self::from_bytes(name, T::DATATYPE, shape, data)
    }

    /// A tensor of these bytes, little-endian and row-major, which are kept as they are.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if they are not as many as datatype and shape need.
    pub fn from_bytes(
        name: impl Into<ByteString>,
        datatype: Datatype,
        shape: &[i64],
        data: Bytes,
    ) -> Result<Self> {
        let tensor = Self { name: name.into(), datatype, shape: Shape::new(shape), data };
        tensor.check_size()?;
        Ok(tensor)
    }

    /// A `BOOL` tensor.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the shape is of another number of elements.
    pub fn from_bools(name: impl Into<ByteString>, shape: &[i64], elements: &[bool]) -> Result<Self> {
        let data: &[u8] = bytemuck::cast_slice(elements);
        Self::from_bytes(name, Datatype::Bool, shape, Bytes::copy_from_slice(data))
    }

    /// A `BYTES` tensor of texts or byte strings.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the shape is of another number of elements, or one of them has 4 GiB.
    pub fn from_byte_strings<S: AsRef<[u8]>>(
        name: impl Into<ByteString>,
        shape: &[i64],
        elements: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let name = name.into();
        let mut data = BytesMut::new();
        for element in elements {
            let element = element.as_ref();
            if u32::try_from(element.len()).is_err() {
                return Err(Error::invalid(format!(
                    "tensor '{name}': an element has {} bytes, it may have less than 4 GiB",
                    element.len()
                )));
            }
            write_byte_string(&mut data, element);
        }
        Self::from_bytes(name, Datatype::Bytes, shape, data.freeze())
    }

    /// The elements: a view where they lie aligned for `T`, else a copy.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if they are of another datatype, or more or less than a number of whole ones.
    pub fn elements<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        self.expect(T::DATATYPE)?;
        if !self.data.len().is_multiple_of(size_of::<T>()) {
            return Err(Error::invalid(format!(
                "tensor '{}': {} bytes are no whole number of elements of {}",
                self.name,
                self.data.len(),
                self.datatype
            )));
        }
        Ok(bytemuck::try_cast_slice(&self.data)
            .map_or_else(|_| Cow::Owned(bytemuck::pod_collect_to_vec(&self.data)), Cow::Borrowed))
    }

    /// The elements of a `BOOL` tensor.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is of another datatype.
    pub fn bools(&self) -> Result<impl Iterator<Item = bool> + '_> {
        self.expect(Datatype::Bool)?;
        Ok(self.data.iter().map(|&byte| byte != 0))
    }

    /// The elements of a `BYTES` tensor, each a view.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is of another datatype, or an element is cut off.
    pub fn byte_strings(&self) -> Result<Vec<Bytes>> {
        self.expect(Datatype::Bytes)?;
        split_byte_strings(&self.data)
            .map(|element| element.map(|element| self.data.slice_ref(element)))
            .collect()
    }

    fn expect(&self, datatype: Datatype) -> Result<()> {
        if self.datatype == datatype {
            return Ok(());
        }
        let message = format!("tensor '{}' is {}, not {datatype}", self.name, self.datatype);
        Err(Error::invalid(message))
    }
}

#[cfg(feature = "ndarray")]
impl Tensor {
    /// A tensor of an array, whose elements are moved if they lie in the order of rows, else copied into it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an array of more than 32 dimensions.
    pub fn from_array<T: Element, D: ndarray::Dimension>(
        name: impl Into<ByteString>,
        array: ndarray::Array<T, D>,
    ) -> Result<Self> {
        if array.ndim() > Shape::MAX_RANK {
            return Err(Error::invalid(format!(
                "an array of {} dimensions, at most {} are taken",
                array.ndim(),
                Shape::MAX_RANK
            )));
        }
        let shape: Vec<i64> =
            array.shape().iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
        let elements = if array.is_standard_layout() {
            let elements = array.len();
            let (mut vector, offset) = array.into_raw_vec_and_offset();
            if let Some(offset) = offset.filter(|&offset| offset > 0) {
                vector.drain(..offset);
            }
            vector.truncate(elements);
            vector
        } else {
            array.iter().copied().collect()
        };
        Self::new(name, &shape, elements)
    }

    /// The elements as an array: a view where they lie aligned, else a copy.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if they are of another datatype, or not as many as the shape says.
    pub fn array<T: Element>(&self) -> Result<ndarray::CowArray<'_, T, ndarray::IxDyn>> {
        self.check_size()?;
        let shape: Vec<usize> = self.shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        let misfit = |error| Error::invalid(format!("tensor '{}': {error}", self.name));
        Ok(match self.elements::<T>()? {
            Cow::Borrowed(elements) => {
                ndarray::ArrayView::from_shape(shape, elements).map_err(misfit)?.into()
            }
            Cow::Owned(elements) => ndarray::Array::from_shape_vec(shape, elements).map_err(misfit)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_neither_copied_in_nor_out() {
        let elements = vec![1.5f32, -0.0, f32::INFINITY];
        let address = elements.as_ptr();
        let tensor = Tensor::new("x", &[3, 1], elements).unwrap();
        assert_eq!(tensor.data.as_ptr().cast(), address);
        let read = tensor.elements::<f32>().unwrap();
        assert!(matches!(read, Cow::Borrowed(_)));
        assert_eq!(read.as_ptr(), address);
        assert_eq!(&tensor.data[..4], 1.5f32.to_le_bytes());
    }

    #[test]
    fn what_is_not_aligned_is_copied() {
        let mut bytes = vec![0];
        bytes.extend(7i64.to_le_bytes());
        let tensor = Tensor::from_bytes("x", Datatype::Int64, &[1], Bytes::from(bytes).slice(1..)).unwrap();
        assert_eq!(tensor.elements::<i64>().unwrap()[..], [7]);
    }

    #[test]
    fn a_wrong_number_or_datatype_is_said() {
        let error = Tensor::new("x", &[2], vec![1u8]).unwrap_err();
        assert_eq!(error.message, "tensor 'x': UINT8 [2] needs 2 bytes, got 1");
        let tensor = Tensor::new("x", &[1], vec![1u8]).unwrap();
        assert_eq!(tensor.elements::<f32>().unwrap_err().message, "tensor 'x' is UINT8, not FP32");
        assert!(tensor.byte_strings().is_err());
        assert!(tensor.bools().is_err());
    }

    #[test]
    fn texts_and_bools_survive() {
        let tensor = Tensor::from_byte_strings("x", &[3], [&b""[..], "ü".as_bytes(), &[0xff]]).unwrap();
        assert_eq!(tensor.byte_strings().unwrap(), [&b""[..], "ü".as_bytes(), &[0xff]]);
        let tensor = Tensor::from_bools("x", &[2], &[true, false]).unwrap();
        assert_eq!(tensor.bools().unwrap().collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn nothing_and_a_scalar_are_tensors_too() {
        assert!(Tensor::new::<f64>("x", &[0, 3], vec![]).unwrap().elements::<f64>().unwrap().is_empty());
        assert_eq!(Tensor::new("x", &[], vec![2u16]).unwrap().elements::<u16>().unwrap()[..], [2]);
    }

    #[cfg(feature = "half")]
    #[test]
    fn half_precision_is_an_element() {
        let tensor = Tensor::new("x", &[1], vec![half::bf16::from_f32(1.0)]).unwrap();
        assert_eq!((tensor.datatype, &tensor.data[..]), (Datatype::Bf16, &[0x80, 0x3f][..]));
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn arrays_survive_in_any_order() {
        let array = ndarray::array![[1i32, 2, 3], [4, 5, 6]];
        for array in [array.clone(), array.clone().reversed_axes(), array.slice_move(ndarray::s![1.., ..])] {
            let tensor = Tensor::from_array("x", array.clone()).unwrap();
            assert_eq!(tensor.array::<i32>().unwrap(), array.into_dyn());
        }
    }
}

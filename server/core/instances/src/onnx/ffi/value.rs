//! Values: tensors going into a session and coming out of it.

use std::ffi::{CString, c_char};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{Code, Datatype, Error, Result, Shape, split_byte_strings};
use ort_sys as sys;
use smallvec::SmallVec;

use super::{Api, RawSession, tensor_type};

/// The datatype of an `ONNXTensorElementDataType`'s number, where we have one.
pub(in crate::onnx) fn datatype_of(element: i32) -> Option<Datatype> {
    Some(match element {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        4 => Datatype::Uint16,
        5 => Datatype::Int16,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        8 => Datatype::Bytes,
        9 => Datatype::Bool,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        12 => Datatype::Uint32,
        13 => Datatype::Uint64,
        16 => Datatype::Bf16,
        _ => return None,
    })
}

fn element_of(datatype: Datatype) -> sys::ONNXTensorElementDataType {
    use sys::ONNXTensorElementDataType as Element;
    match datatype {
        Datatype::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Datatype::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Datatype::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Datatype::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Datatype::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Datatype::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Datatype::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Datatype::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
        Datatype::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Datatype::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Datatype::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Datatype::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Datatype::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Datatype::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
    }
}

/// A value that is ours to release. It keeps the session alive, whose allocator it came from.
struct Value {
    session: Arc<RawSession>,
    value: NonNull<sys::OrtValue>,
}

// SAFETY: a value may be read and released on any thread.
unsafe impl Send for Value {}
// SAFETY: shared, it is only read.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: ours, and released once.
        unsafe { (self.session.api.table.ReleaseValue)(self.value.as_ptr()) };
    }
}

/// A tensor on its way in; it borrows the bytes.
pub(in crate::onnx) struct Input<'data> {
    value: Value,
    /// Where the borrowed bytes lie; empty for strings, which are copied.
    address: Range<usize>,
    data: PhantomData<&'data [u8]>,
}

impl<'data> Input<'data> {
    /// A value over `data`, which must be aligned for the datatype (64 bytes is what kernels like
    /// best). ONNX Runtime checks the size against the shape.
    pub fn new(
        session: &Arc<RawSession>,
        datatype: Datatype,
        shape: &Shape,
        data: &'data [u8],
    ) -> Result<Self> {
        if datatype == Datatype::Bytes {
            return Self::strings(session, shape, data);
        }
        assert!(
            data.as_ptr().addr().is_multiple_of(datatype.element_bytes().unwrap_or(1)),
            "an input is aligned for its datatype"
        );
        let api = &*session.api;
        // The C API takes a mutable pointer, but inputs are only read.
        let place = data.as_ptr().cast_mut().cast();
        let value = get!(
            api,
            CreateTensorWithDataAsOrtValue(
                api.cpu.as_ptr(),
                place,
                data.len(),
                shape.as_ptr(),
                shape.len(),
                element_of(datatype)
            )
        )?;
        let start = data.as_ptr().addr();
        Ok(Self {
            value: Value { session: Arc::clone(session), value },
            address: start..start + data.len(),
            data: PhantomData,
        })
    }

    fn strings(session: &Arc<RawSession>, shape: &Shape, data: &[u8]) -> Result<Self> {
        let api = &*session.api;
        // Each element has a length of 4 bytes, which bounds what a shape alone may allocate.
        let elements = shape
            .elements()
            .filter(|elements| *elements <= data.len() / 4)
            .ok_or_else(|| Error::invalid("a BYTES tensor holds fewer elements than its shape says"))?;
        let kind = element_of(Datatype::Bytes);
        let value =
            get!(api, CreateTensorAsOrtValue(api.allocator.as_ptr(), shape.as_ptr(), shape.len(), kind))?;
        let value = Value { session: Arc::clone(session), value };
        let mut filled = 0usize;
        for element in split_byte_strings(data) {
            let element = element?;
            if filled == elements {
                return Err(Error::invalid("a BYTES tensor holds more elements than its shape says"));
            }
            let place: NonNull<c_char> = if element.is_empty() {
                filled += 1;
                continue;
            } else {
                get!(api, GetResizedStringTensorElementBuffer(value.value.as_ptr(), filled, element.len()))?
            };
            // SAFETY: the API gave a buffer of exactly this many bytes for this element, which
            // nothing else refers to.
            unsafe { ptr::copy_nonoverlapping(element.as_ptr(), place.as_ptr().cast(), element.len()) };
            filled += 1;
        }
        if filled != elements {
            return Err(Error::invalid("a BYTES tensor holds fewer elements than its shape says"));
        }
        Ok(Self { value, address: 0..0, data: PhantomData })
    }
}

/// The elements of an output.
pub(in crate::onnx) enum Elements {
    /// Its own.
    Own(Bytes),
    /// Those of an input: a graph may pass an input through. Which one, and where in it.
    OfInput(usize, Range<usize>),
}

/// A tensor that a session made.
pub(in crate::onnx) struct Produced {
    pub datatype: Datatype,
    pub shape: Shape,
    pub elements: Elements,
}

impl RawSession {
    /// Run. `names` and `inputs` go together; every output is given to `take`, in the order of
    /// `outputs`.
    pub fn run(
        self: &Arc<Self>,
        names: &[&CString],
        inputs: &[Input<'_>],
        outputs: &[CString],
        mut take: impl FnMut(Produced) -> Result<()>,
    ) -> Result<()> {
        assert_eq!(names.len(), inputs.len(), "names and inputs go together");
        let names: SmallVec<[*const c_char; 8]> = names.iter().map(|name| name.as_ptr()).collect();
        let values: SmallVec<[*const sys::OrtValue; 8]> =
            inputs.iter().map(|input| input.value.value.as_ptr().cast_const()).collect();
        let wanted: SmallVec<[*const c_char; 8]> = outputs.iter().map(|name| name.as_ptr()).collect();
        let mut made: SmallVec<[*mut sys::OrtValue; 8]> = SmallVec::from_elem(ptr::null_mut(), wanted.len());
        call!(
            self.api,
            Run(
                self.session.as_ptr(),
                ptr::null(),
                names.as_ptr(),
                values.as_ptr(),
                values.len(),
                wanted.as_ptr(),
                wanted.len(),
                made.as_mut_ptr()
            )
        )?;
        // All are owned before anything can fail, so that none is lost.
        let made: SmallVec<[Option<Value>; 8]> = made
            .into_iter()
            .map(|value| NonNull::new(value).map(|value| Value { session: Arc::clone(self), value }))
            .collect();
        for value in made {
            let value = value.ok_or_else(|| Error::internal("ONNX Runtime: an output is missing"))?;
            take(value.read(inputs)?)?;
        }
        Ok(())
    }
}

impl Value {
    fn read(self, inputs: &[Input<'_>]) -> Result<Produced> {
        let api = &*self.session.api;
        let (element, shape) = {
            let info = get!(api, GetTensorTypeAndShape(self.value.as_ptr()))?;
            let read = tensor_type(api, info.as_ptr());
            // SAFETY: ours, and nothing read from it is kept.
            unsafe { (api.table.ReleaseTensorTypeAndShapeInfo)(info.as_ptr()) };
            read?
        };
        let datatype = datatype_of(element).ok_or_else(|| {
            Error::new(
                Code::FailedPrecondition,
                format!("ONNX Runtime: an output has element type {element}, which has no equal here"),
            )
        })?;
        let count =
            shape.elements().ok_or_else(|| Error::internal("ONNX Runtime: an output without a size"))?;
        let elements = match datatype.element_bytes() {
            None => Elements::Own(self.read_strings(api, count)?),
            Some(_) if count == 0 => Elements::Own(Bytes::new()),
            Some(element_bytes) => {
                let place = get!(api, GetTensorMutableData(self.value.as_ptr()))?;
                let start = place.addr().get();
                let bytes = count * element_bytes;
                match inputs.iter().position(|input| input.address.contains(&start)) {
                    Some(index) => {
                        let offset = start - inputs[index].address.start;
                        Elements::OfInput(index, offset..offset + bytes)
                    }
                    // SAFETY: the tensor has `count` elements, so this many bytes; they stay where
                    // they are until the value is released, and `Held` releases it last. Nobody
                    // writes to an output once it is made.
                    None => Elements::Own(Bytes::from_owner(Held {
                        elements: unsafe { std::slice::from_raw_parts(place.as_ptr().cast(), bytes) },
                        _value: self,
                    })),
                }
            }
        };
        Ok(Produced { datatype, shape, elements })
    }

    /// Copy string elements to the length-prefixed form.
    fn read_strings(&self, api: &Api, count: usize) -> Result<Bytes> {
        if count == 0 {
            return Ok(Bytes::new());
        }
        let mut total = 0usize;
        call!(api, GetStringTensorDataLength(self.value.as_ptr(), &raw mut total))?;
        let (mut text, mut offsets) = (vec![0u8; total], vec![0usize; count]);
        call!(
            api,
            GetStringTensorContent(
                self.value.as_ptr(),
                text.as_mut_ptr().cast(),
                total,
                offsets.as_mut_ptr(),
                count
            )
        )?;
        let mut data = BytesMut::with_capacity(total + 4 * count);
        for (index, &start) in offsets.iter().enumerate() {
            let end = offsets.get(index + 1).copied().unwrap_or(total);
            let element = text
                .get(start..end)
                .ok_or_else(|| Error::internal("ONNX Runtime: string offsets are out of order"))?;
            let length = u32::try_from(element.len())
                .map_err(|_| Error::internal("an output has a string of 4 GiB or more"))?;
            data.put_u32_le(length);
            data.put_slice(element);
        }
        Ok(data.freeze())
    }
}

/// The elements of a value, and the value.
struct Held {
    elements: &'static [u8],
    _value: Value,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.elements
    }
}

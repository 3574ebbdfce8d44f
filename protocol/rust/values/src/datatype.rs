//! Element types of tensors.

use std::fmt;

/// The element type of a tensor. Names are Open Inference's; numbers are those of the Kingpole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool = 1,
    /// Unsigned, 8 bits.
    Uint8 = 2,
    /// Unsigned, 16 bits.
    Uint16 = 3,
    /// Unsigned, 32 bits.
    Uint32 = 4,
    /// Unsigned, 64 bits.
    Uint64 = 5,
    /// Signed, 8 bits.
    Int8 = 6,
    /// Signed, 16 bits.
    Int16 = 7,
    /// Signed, 32 bits.
    Int32 = 8,
    /// Signed, 64 bits.
    Int64 = 9,
    /// IEEE 754 half precision.
    Fp16 = 10,
    /// IEEE 754 single precision.
    Fp32 = 11,
    /// IEEE 754 double precision.
    Fp64 = 12,
    /// Byte strings of any length.
    Bytes = 13,
    /// The upper half of an FP32.
    Bf16 = 14,
}

impl Datatype {
    /// Every datatype, by ascending number.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The name on the wire, for example `FP32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    /// Bytes of one element; `None` for `BYTES`, whose elements differ in size.
    pub const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The number in the Kingpole frame.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The datatype of a frame's number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.number() == number)
    }

    /// The datatype of a name. Names are upper case; anything else is unknown.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "FP32" => Self::Fp32,
            "BOOL" => Self::Bool,
            "UINT8" => Self::Uint8,
            "UINT16" => Self::Uint16,
            "UINT32" => Self::Uint32,
            "UINT64" => Self::Uint64,
            "INT8" => Self::Int8,
            "INT16" => Self::Int16,
            "INT32" => Self::Int32,
            "INT64" => Self::Int64,
            "FP16" => Self::Fp16,
            "FP64" => Self::Fp64,
            "BYTES" => Self::Bytes,
            "BF16" => Self::Bf16,
            _ => return None,
        })
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_is_found_by_its_number_and_its_name() {
        for datatype in Datatype::ALL {
            assert_eq!(Datatype::from_number(datatype.number()), Some(datatype));
            assert_eq!(Datatype::from_name(datatype.name()), Some(datatype));
        }
        assert_eq!(Datatype::from_name("fp32"), None, "names are upper case");
    }
}

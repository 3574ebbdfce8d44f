//! Where an ONNX file keeps its weights: a walk over the protobuf that skips the weights themselves.
//!
//! It only knows the few fields that lead to a tensor.
//!
//! Source: onnx/onnx.proto of the ONNX repository (field numbers), and the protobuf encoding.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path};

/// Why a file is not accepted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A tensor's data lies at this location, outside the model's directory.
    Outside(String),
    /// The file cannot be read as an ONNX protobuf.
    Unreadable,
}

impl From<std::io::Error> for Refusal {
    fn from(_: std::io::Error) -> Self {
        Self::Unreadable
    }
}

/// Nested messages deeper than this are refused (a graph within a loop within a branch takes 3 each).
const MAX_DEPTH: usize = 100;
/// A location is a file name; anything longer is not read.
const MAX_LOCATION_BYTES: u64 = 4096;

#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    SparseTensor,
    Tensor,
    ExternalData,
}

impl Message {
    /// The message in a field, where it can lead to a tensor.
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Tensor, 13) => Self::ExternalData,
            _ => return None,
        })
    }
}

/// Check that every tensor's data is in the file or beneath its directory.
pub(super) fn check(path: &Path) -> Result<(), Refusal> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut walk = Walk { file: BufReader::new(file), position: 0 };
    walk.message(Message::Model, length, 0)
}

struct Walk {
    file: BufReader<File>,
    position: u64,
}

impl Walk {
    fn message(&mut self, message: Message, end: u64, depth: usize) -> Result<(), Refusal> {
        if depth > MAX_DEPTH {
            return Err(Refusal::Unreadable);
        }
        let (mut key, mut value) = (String::new(), String::new());
        while self.position < end {
            let tag = self.varint()?;
            let field = tag >> 3;
            match tag & 7 {
                0 => {
                    self.varint()?;
                }
                1 => self.skip(8)?,
                5 => self.skip(4)?,
                2 => {
                    let length = self.varint()?;
                    let field_end = self.position.checked_add(length).ok_or(Refusal::Unreadable)?;
                    if field_end > end {
                        return Err(Refusal::Unreadable);
                    }
                    match (message, field) {
                        (Message::ExternalData, 1) => key = self.text(length)?,
                        (Message::ExternalData, 2) => value = self.text(length)?,
                        _ => match message.child(field) {
                            Some(child) => self.message(child, field_end, depth + 1)?,
                            None => self.skip(length)?,
                        },
                    }
                }
                _ => return Err(Refusal::Unreadable),
            }
        }
        if self.position != end {
            return Err(Refusal::Unreadable);
        }
        if key == "location" && !is_beneath(&value) {
            return Err(Refusal::Outside(value));
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0u8];
            self.file.read_exact(&mut byte)?;
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Refusal::Unreadable)
    }

    fn skip(&mut self, length: u64) -> Result<(), Refusal> {
        self.file.seek_relative(i64::try_from(length).map_err(|_| Refusal::Unreadable)?)?;
        self.position += length;
        Ok(())
    }

    fn text(&mut self, length: u64) -> Result<String, Refusal> {
        if length > MAX_LOCATION_BYTES {
            return Err(Refusal::Unreadable);
        }
        let mut text = String::new();
        (&mut self.file).take(length).read_to_string(&mut text)?;
        if text.len() as u64 != length {
            return Err(Refusal::Unreadable);
        }
        self.position += length;
        Ok(text)
    }
}

fn is_beneath(location: &str) -> bool {
    // Windows separators count as well: the file may have been written there.
    !location.contains('\\')
        && Path::new(location)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_locations_beneath_the_directory_are_accepted() {
        for good in ["weights.bin", "./weights.bin", "parts/1.bin"] {
            assert!(is_beneath(good), "{good}");
        }
        for bad in ["/etc/passwd", "../weights.bin", "parts/../../weights.bin", "..\\weights.bin"] {
            assert!(!is_beneath(bad), "{bad}");
        }
    }
}

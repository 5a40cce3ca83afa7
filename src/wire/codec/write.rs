//! Values to bytes: what bincode 2 writes in its standard configuration, for the kinds of types that we have. Numbers wider
//! than a byte are as short as they can be; a list, a map and a text come behind their length; a variant behind its number.
//! One thing is our own: a number of 128 bits (an id) is sixteen bytes as they stand, the highest first.

use super::varint;
use serde::ser::{self, Serialize};
use std::fmt;

/// Where bytes go.
pub trait Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError>;
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// A buffer that may be too short.
pub struct Fixed<'a> {
    pub into: &'a mut [u8],
    pub used: usize,
}

impl Sink for Fixed<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let end = self.used + bytes.len();
        self.into.get_mut(self.used..end).ok_or(WriteError::Full)?.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("no room")]
    Full,
    #[error("a value of a kind that has no form here: {0}")]
    Unfit(String),
}

impl ser::Error for WriteError {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self::Unfit(why.to_string())
    }
}

fn unfit(kind: &str) -> WriteError {
    WriteError::Unfit(kind.to_owned())
}

pub(super) struct Writer<'a, S>(pub &'a mut S);

type Written = Result<(), WriteError>;

impl<S: Sink> Writer<'_, S> {
    #[inline]
    fn number(&mut self, number: u64) -> Written {
        if number < u64::from(varint::TWO) {
            return self.0.put(&[number as u8]);
        }
        self.long(number)
    }

    #[inline(never)]
    fn long(&mut self, number: u64) -> Written {
        if let Ok(number) = u16::try_from(number) {
            let [a, b] = number.to_le_bytes();
            self.0.put(&[varint::TWO, a, b])
        } else if let Ok(number) = u32::try_from(number) {
            let [a, b, c, d] = number.to_le_bytes();
            self.0.put(&[varint::FOUR, a, b, c, d])
        } else {
            self.0.put(&[varint::EIGHT])?;
            self.0.put(&number.to_le_bytes())
        }
    }

    /// Small ones of either sign are short.
    #[inline]
    fn signed(&mut self, number: i64) -> Written {
        self.number((number << 1 ^ number >> 63) as u64)
    }
}

impl<'a, S: Sink> ser::Serializer for &mut Writer<'a, S> {
    type Ok = ();
    type Error = WriteError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn is_human_readable(&self) -> bool {
        false
    }
    #[inline]
    fn serialize_bool(self, v: bool) -> Written {
        self.0.put(&[u8::from(v)])
    }
    fn serialize_i8(self, v: i8) -> Written {
        self.0.put(&v.to_le_bytes())
    }
    fn serialize_i16(self, v: i16) -> Written {
        self.signed(v.into())
    }
    fn serialize_i32(self, v: i32) -> Written {
        self.signed(v.into())
    }
    fn serialize_i64(self, v: i64) -> Written {
        self.signed(v)
    }
    #[inline]
    fn serialize_u8(self, v: u8) -> Written {
        self.0.put(&[v])
    }
    #[inline]
    fn serialize_u16(self, v: u16) -> Written {
        self.number(v.into())
    }
    #[inline]
    fn serialize_u32(self, v: u32) -> Written {
        self.number(v.into())
    }
    #[inline]
    fn serialize_u64(self, v: u64) -> Written {
        self.number(v)
    }
    #[inline]
    fn serialize_u128(self, v: u128) -> Written {
        self.0.put(&v.to_be_bytes())
    }
    fn serialize_f32(self, v: f32) -> Written {
        self.0.put(&v.to_le_bytes())
    }
    fn serialize_f64(self, v: f64) -> Written {
        self.0.put(&v.to_le_bytes())
    }
    fn serialize_char(self, _: char) -> Written {
        Err(unfit("a character"))
    }
    fn serialize_str(self, v: &str) -> Written {
        self.serialize_bytes(v.as_bytes())
    }
    fn serialize_bytes(self, v: &[u8]) -> Written {
        self.number(v.len() as u64)?;
        self.0.put(v)
    }
    #[inline]
    fn serialize_none(self) -> Written {
        self.0.put(&[0])
    }
    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        self.0.put(&[1])?;
        value.serialize(self)
    }
    fn serialize_unit(self) -> Written {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Written {
        Ok(())
    }
    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Written {
        self.number(index.into())
    }
    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }
    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Written {
        self.number(index.into())?;
        value.serialize(self)
    }
    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self, WriteError> {
        self.number(len.ok_or_else(|| unfit("a list of unknown length"))? as u64)?;
        Ok(self)
    }
    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, WriteError> {
        Ok(self)
    }
    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, WriteError> {
        Ok(self)
    }
    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, WriteError> {
        self.number(index.into())?;
        Ok(self)
    }
    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self, WriteError> {
        self.serialize_seq(len)
    }
    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, WriteError> {
        Ok(self)
    }
    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, WriteError> {
        self.number(index.into())?;
        Ok(self)
    }
}

/// The parts of a compound follow each other, whatever it is called.
macro_rules! parts {
    ($($compound:ident $method:ident),*) => {$(
        impl<S: Sink> ser::$compound for &mut Writer<'_, S> {
            type Ok = ();
            type Error = WriteError;
            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
                value.serialize(&mut **self)
            }
            #[inline]
            fn end(self) -> Written {
                Ok(())
            }
        }
    )*};
}

/// Likewise, and nobody writes their names.
macro_rules! fields {
    ($($compound:ident),*) => {$(
        impl<S: Sink> ser::$compound for &mut Writer<'_, S> {
            type Ok = ();
            type Error = WriteError;
            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Written {
                value.serialize(&mut **self)
            }
            #[inline]
            fn end(self) -> Written {
                Ok(())
            }
        }
    )*};
}

parts!(SerializeSeq serialize_element, SerializeTuple serialize_element);
parts!(SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);
fields!(SerializeStruct, SerializeStructVariant);

impl<S: Sink> ser::SerializeMap for &mut Writer<'_, S> {
    type Ok = ();
    type Error = WriteError;
    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        key.serialize(&mut **self)
    }
    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(&mut **self)
    }
    #[inline]
    fn end(self) -> Written {
        Ok(())
    }
}

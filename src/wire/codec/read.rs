//! Bytes to values: the other half of [`super::write`]. Every byte comes from somebody else. No length is believed that the
//! bytes at hand can't fill, so that nothing allocates more than what was sent warrants.

use super::varint;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("it ends too early")]
    Short,
    #[error("{0:#04x} where {1} was expected")]
    Unexpected(u8, &'static str),
    #[error("a text that isn't UTF-8")]
    Text,
    #[error("a value of a kind that has no form here")]
    Unfit,
    #[error("{0}")]
    Other(Box<str>),
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self::Other(why.to_string().into())
    }
}

type Got<T> = Result<T, ReadError>;

/// What is left to read.
pub(super) struct Reader<'de>(pub &'de [u8]);

impl<'de> Reader<'de> {
    #[inline]
    fn byte(&mut self) -> Got<u8> {
        let (first, rest) = self.0.split_first().ok_or(ReadError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Got<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or(ReadError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Got<&'de [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ReadError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of at most `width` bytes.
    #[inline]
    fn number(&mut self, width: u8) -> Got<u64> {
        let first = self.byte()?;
        if first < varint::TWO { Ok(first.into()) } else { self.long(first, width) }
    }

    #[inline(never)]
    fn long(&mut self, first: u8, width: u8) -> Got<u64> {
        match first {
            varint::TWO => Ok(u16::from_le_bytes(self.fixed()?).into()),
            varint::FOUR if width >= 4 => Ok(u32::from_le_bytes(self.fixed()?).into()),
            varint::EIGHT if width >= 8 => Ok(u64::from_le_bytes(self.fixed()?)),
            other => Err(ReadError::Unexpected(other, "a number")),
        }
    }

    #[inline]
    fn signed(&mut self, width: u8) -> Got<i64> {
        let number = self.number(width)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A number of items, each of which takes at least a byte.
    #[inline]
    fn length(&mut self) -> Got<usize> {
        let length = usize::try_from(self.number(8)?).map_err(|_| ReadError::Short)?;
        if length > self.0.len() { Err(ReadError::Short) } else { Ok(length) }
    }

    #[inline]
    fn flag(&mut self, what: &'static str) -> Got<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(ReadError::Unexpected(other, what)),
        }
    }

    #[inline]
    fn text(&mut self) -> Got<&'de str> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| ReadError::Text)
    }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = ReadError;

    fn is_human_readable(&self) -> bool {
        false
    }
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Got<V::Value> {
        Err(ReadError::Unfit)
    }
    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_bool(self.flag("yes or no")?)
    }
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_i8(self.byte()? as i8)
    }
    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_i16(self.signed(2)? as i16)
    }
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_i32(self.signed(4)? as i32)
    }
    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_i64(self.signed(8)?)
    }
    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_u8(self.byte()?)
    }
    #[inline]
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_u16(self.number(2)? as u16)
    }
    #[inline]
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_u32(self.number(4)? as u32)
    }
    #[inline]
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_u64(self.number(8)?)
    }
    #[inline]
    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_u128(u128::from_be_bytes(self.fixed()?))
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_f32(f32::from_le_bytes(self.fixed()?))
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_f64(f64::from_le_bytes(self.fixed()?))
    }
    fn deserialize_char<V: Visitor<'de>>(self, _: V) -> Got<V::Value> {
        Err(ReadError::Unfit)
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        let length = self.length()?;
        visitor.visit_borrowed_bytes(self.take(length)?)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        self.deserialize_bytes(visitor)
    }
    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        if self.flag("something or nothing")? { visitor.visit_some(self) } else { visitor.visit_none() }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Got<V::Value> {
        visitor.visit_unit()
    }
    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Got<V::Value> {
        visitor.visit_newtype_struct(self)
    }
    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        let left = self.length()?;
        visitor.visit_seq(Items { reader: self, left })
    }
    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Got<V::Value> {
        visitor.visit_seq(Items { reader: self, left })
    }
    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, left: usize, visitor: V) -> Got<V::Value> {
        visitor.visit_seq(Items { reader: self, left })
    }
    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Got<V::Value> {
        let left = self.length()?;
        visitor.visit_map(Items { reader: self, left })
    }
    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Got<V::Value> {
        visitor.visit_seq(Items { reader: self, left: fields.len() })
    }
    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Got<V::Value> {
        visitor.visit_enum(self)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Got<V::Value> {
        Err(ReadError::Unfit)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Got<V::Value> {
        Err(ReadError::Unfit)
    }
}

/// So many of them follow each other.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = ReadError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Got<Option<T::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = ReadError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Got<Option<K::Value>> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Got<V::Value> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::EnumAccess<'de> for &mut Reader<'de> {
    type Error = ReadError;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Got<(V::Value, Self)> {
        let index = self.number(4)? as u32;
        let variant: Got<V::Value> = seed.deserialize(index.into_deserializer());
        Ok((variant?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Reader<'de> {
    type Error = ReadError;

    fn unit_variant(self) -> Got<()> {
        Ok(())
    }
    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Got<T::Value> {
        seed.deserialize(self)
    }
    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, left: usize, visitor: V) -> Got<V::Value> {
        visitor.visit_seq(Items { reader: self, left })
    }
    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Got<V::Value> {
        visitor.visit_seq(Items { reader: self, left: fields.len() })
    }
}

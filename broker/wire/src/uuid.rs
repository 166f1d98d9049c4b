//! Ids of topics, directories and clusters, with Kafka's text form.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// 128 bits; in text URL-safe base64 without padding, 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid([u8; 16]);

/// A text that is not 22 characters of URL-safe base64 with zero bits at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an id of 22 characters of URL-safe base64")]
pub struct UuidError;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// "No id" on the wire.
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// The id of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Uuid(bytes)
    }

    /// The id of these halves, the more significant first.
    pub fn from_halves(high: u64, low: u64) -> Self {
        Uuid((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether it is [`Uuid::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Uuid::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0; 22];
        for (index, digit) in text.iter_mut().enumerate() {
            // 21 digits of six bits from the top; the last holds two bits and four zeros.
            let value = if index < 21 { bits >> (122 - 6 * index) } else { bits << 4 };
            *digit = DIGITS[(value & 63) as usize];
        }
        f.pad(std::str::from_utf8(&text).expect("base64 is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        let text: &[u8; 22] = text.as_bytes().try_into().map_err(|_| UuidError)?;
        let mut bits = 0u128;
        for (index, digit) in text.iter().enumerate() {
            let value = DIGITS.iter().position(|d| d == digit).ok_or(UuidError)? as u128;
            if index < 21 {
                bits = bits << 6 | value;
            } else if value & 15 == 0 {
                bits = bits << 2 | value >> 4;
            } else {
                return Err(UuidError);
            }
        }
        Ok(Uuid(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let check = |id: Uuid, text: &str| {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
        };
        check(Uuid::ZERO, "AAAAAAAAAAAAAAAAAAAAAA");
        check(Uuid::from_halves(0, 1), "AAAAAAAAAAAAAAAAAAAAAQ");
        check(Uuid::from_bytes([0xff; 16]), "_____________________w");
        for bad in
            ["", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA+A", "AAAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert_eq!(bad.parse::<Uuid>(), Err(UuidError), "{bad}");
        }
    }
}

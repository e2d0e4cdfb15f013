//! Reading and writing of control messages: a bounds-checked reader over a slice, a guard for length fields, and registries of
//! wire numbers that keep unknown values.

/// A message that ends before its fields do, or goes on after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The input is shorter than the field that is read.
    #[error("{0} is cut short")]
    Truncated(&'static str),
    /// Octets are left after the last field.
    #[error("{0} has trailing octets")]
    Trailing(&'static str),
    /// A field holds a value that the format does not allow.
    #[error("{0} holds a value that is not allowed")]
    Invalid(&'static str),
}

/// Reads fields in network byte order from a slice; never reads past its end.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Takes `length` octets; `what` names the field in the error.
    pub fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes `N` octets as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes one octet.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[octet]| octet)
    }

    /// Takes two octets.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// Takes four octets.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Takes eight octets.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// A reader over the next `length` octets, which are taken.
    pub fn sub(&mut self, length: usize, what: &'static str) -> Result<Self, Malformed> {
        self.take(length, what).map(Self::new)
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// What is left, without taking it.
    pub fn peek(&self) -> &'a [u8] {
        self.rest
    }

    /// The number of octets left.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses what is left.
    pub fn finish(self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing(what)) }
    }
}

/// Writes a two-octet length field at `at` in `out` once the value behind it is complete: the number of octets from `from` to
/// the end of `out`.
///
/// Values longer than 65535 octets are not built by this crate: every message has a smaller bound of its own.
pub fn fix_length(out: &mut [u8], at: usize, from: usize) {
    let length = u16::try_from(out.len() - from).expect("messages of this crate are shorter than 64 KiB");
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// A peer's text as it may be shown: letters, digits and printable ASCII, at most `most` characters.
pub fn printable(text: &[u8], most: usize) -> String {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() { c } else { '?' };
    // Some peers count the terminator of a C string.
    let end = text.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
    let text = text.get(..end).unwrap_or(text);
    // A character has at most four octets, so what is cut off here would not be shown.
    let text = text.get(..most * 4).unwrap_or(text);
    String::from_utf8_lossy(text).chars().take(most).map(plain).collect()
}

/// Declares a newtype over a wire integer with named constants. Unknown values survive and print as a number.
#[macro_export]
macro_rules! registry {
    ($(#[$meta:meta])* pub struct $name:ident($int:ty) { $($(#[$vmeta:meta])* $variant:ident = $value:expr),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(unreachable_pub, reason = "a registry is as visible as its module")]
        pub struct $name(pub $int);
        #[allow(unreachable_pub, dead_code, reason = "a registry is whole, and as visible as its module")]
        impl $name {
            $($(#[$vmeta])* #[allow(missing_docs, reason = "the name is the registry's own")] pub const $variant: Self = Self($value);)*

            /// The registry's name of the value, if it is known.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($variant)),)* #[allow(unreachable_patterns, reason = "a registry may be full")] _ => None }
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() { Some(name) => f.write_str(name), None => write!(f, "{}({})", stringify!($name), self.0) }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { std::fmt::Debug::fmt(self, f) }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    registry! {
        /// A test registry.
        pub struct Fruit(u16) { APPLE = 1, PEAR = 2 }
    }

    #[test]
    fn text_is_shown_only_as_far_as_it_is_printable() {
        assert_eq!(printable(b"no \x1b[2Jroute\n\0\0", 160), "no ?[2Jroute?");
        assert_eq!(printable("caf\u{e9} \u{202e}x".as_bytes(), 160), "caf\u{e9} ?x");
        assert_eq!(printable(&[0xff, b'a'], 160), "?a");
        assert_eq!(printable(&[b'a'; 5000], 160).len(), 160);
    }

    #[test]
    fn reader_refuses_to_read_past_the_end_and_keeps_its_place() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16("field"), Ok(0x0102));
        assert_eq!(reader.u16("field"), Err(Malformed::Truncated("field")));
        assert_eq!(reader.u8("field"), Ok(3));
        assert_eq!(reader.finish("message"), Ok(()));
    }

    #[test]
    fn fix_length_counts_from_the_given_place() {
        let mut out = vec![9, 0, 0, 7, 7];
        fix_length(&mut out, 1, 0);
        assert_eq!(out, [9, 0, 5, 7, 7]);
    }

    #[test]
    fn registries_print_names_and_keep_unknown_values() {
        assert_eq!(format!("{:?} {:?}", Fruit::PEAR, Fruit(77)), "PEAR Fruit(77)");
    }
}

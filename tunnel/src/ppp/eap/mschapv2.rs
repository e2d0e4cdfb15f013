//! The packets of EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2): those of MS-CHAPv2 in a frame of their own. An acknowledgement of a
//! Success or a Failure is the OpCode alone.

use crate::ppp::packet::CONTROL_HEADER;
use crate::registry;
use crate::wire::Reader;

registry! {
    /// The OpCode field.
    pub struct OpCode(u8) {
        CHALLENGE = 1,
        RESPONSE = 2,
        SUCCESS = 3,
        FAILURE = 4,
    }
}

/// OpCode, MS-CHAPv2-ID and MS-Length.
const HEADER: usize = 4;

/// What follows the Type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) op_code: OpCode,
    /// The MS-CHAPv2-ID; zero in an acknowledgement, which has none.
    pub(super) id: u8,
    pub(super) data: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads what follows the Type. MS-Length counts from the OpCode on; some write the length of the whole EAP packet.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(data);
        let op_code = OpCode(reader.u8("OpCode").ok()?);
        if reader.is_empty() {
            return Some(Self { op_code, id: 0, data: &[] });
        }
        let id = reader.u8("MS-CHAPv2-ID").ok()?;
        let length = usize::from(reader.u16("MS-Length").ok()?);
        let rest = reader.rest();
        let right =
            [HEADER, HEADER + CONTROL_HEADER + 1].iter().any(|before| rest.len().checked_add(*before) == Some(length));
        right.then_some(Self { op_code, id, data: rest })
    }

    /// What follows the Type.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = vec![self.op_code.0, self.id, 0, 0];
        out.extend(self.data);
        crate::wire::fix_length(&mut out, 2, 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_a_round_and_their_length_is_checked() {
        let message = Message { op_code: OpCode::SUCCESS, id: 7, data: b"S=1" };
        let written = message.write();
        assert_eq!(written, [3, 7, 0, 7, b'S', b'=', b'1']);
        assert_eq!(Message::parse(&written), Some(message));
        assert_eq!(Message::parse(&[3]), Some(Message { op_code: OpCode::SUCCESS, id: 0, data: &[] }));
        assert_eq!(Message::parse(&[3, 7, 0, 12, b'S', b'=', b'1']), Some(message));
        for broken in [&[][..], &[3, 7], &[3, 7, 0], &[3, 7, 0, 8, b'S', b'=', b'1'], &[3, 7, 0, 0]] {
            assert_eq!(Message::parse(broken), None);
        }
    }
}

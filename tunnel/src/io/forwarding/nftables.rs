//! A table of nf_tables, replaced as a whole over netlink (`linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`).
//!
//! The messages of one change are a batch, which the kernel does as one or not at all:
//!
//! ```text
//!   BATCH_BEGIN   nf_tables
//!   NEWTABLE      there is one from here on, whoever made it
//!   DELTABLE      with all that is in it; connections and their translations stay
//!   NEWTABLE
//!   NEWSET        ranges of addresses, [first, last + 1) each, and
//!   NEWSETELEM    some hundred of them at a time
//!   NEWCHAIN      with a hook, where packets come by
//!   NEWRULE       expressions: each loads a register, or lets only some packets go on to the next, or decides
//!   BATCH_END
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_bindings::builtin::Nlmsghdr;
use netlink_bindings::nftables::{
    Chained, CmpOps, CtKeys, MetaKeys, Nfgenmsg, PayloadBase, PushExprListAttrs, PushRuleAttrs, Registers,
    SetElemFlags, SetFlags, VerdictCode,
};
use netlink_bindings::traits::{NetlinkChained, Pusher};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};

use crate::inet::{PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};

/// Elements of one message: its list must be shorter than 64 KiB.
const ELEMENTS: usize = 500;
/// Octets of a name of a device, with the zeros after it (`IFNAMSIZ`).
const DEVICE_NAME: usize = 16;
/// The register that every expression uses.
const REGISTER: u32 = Registers::Reg1 as u32;
/// The attribute of a lookup that names the register (`NFTA_LOOKUP_SREG`).
const LOOKUP_REGISTER: u16 = 2;
/// `ct direction` of a packet that answers what began the connection (`IP_CT_DIR_REPLY`).
const REPLY: u8 = 1;
/// `ct state` of packets of a connection that has seen both directions (`NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`).
const ESTABLISHED: u32 = 2;
/// `ct state` of an error about packets of a connection (`NF_CT_STATE_BIT(IP_CT_RELATED)`).
const RELATED: u32 = 4;
/// Where the destination stands in a header of IPv4 (RFC 791 section 3.1).
const IPV4_DESTINATION: u32 = 16;
/// Where the destination stands in a header of IPv6 (RFC 8200 section 3).
const IPV6_DESTINATION: u32 = 24;
/// Where the destination port stands in a header of TCP or UDP (RFC 9293 section 3.1, RFC 768).
const DESTINATION_PORT: u32 = 2;
/// The longest answer of the kernel that is read: the header of the message that it is about, a number, and some words.
const ANSWER: usize = 8_192;

/// A table of the family `inet`, which sees both IPv4 and IPv6.
pub(super) struct Table<'a> {
    pub(super) name: &'static str,
    pub(super) sets: Vec<Set>,
    pub(super) chains: Vec<Chain<'a>>,
}

/// Networks of one family.
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// Those of the other family are not in it.
    pub(super) networks: Vec<IpNet>,
}

/// Whose addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// Rules at a hook. A packet that none of them decides about goes on.
pub(super) struct Chain<'a> {
    pub(super) name: &'static str,
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// `NF_INET_*`.
    pub(super) hook: i32,
    /// The chains of a hook go by this number, the least first.
    pub(super) priority: i32,
    pub(super) rules: Vec<Rule<'a>>,
}

/// What happens to packets that every match fits.
pub(super) struct Rule<'a> {
    pub(super) matches: Vec<Match<'a>>,
    pub(super) action: Action,
}

/// Something about a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Match<'a> {
    /// It came in by this device.
    From(&'a str),
    /// It came in by another, or by none.
    NotFrom(&'a str),
    /// It leaves by this device.
    Into(&'a str),
    /// It leaves by another.
    NotInto(&'a str),
    /// It goes to a network of the set of this name.
    Towards(&'static str, Family),
    /// It goes to this address.
    To(Ipv4Addr),
    /// It answers what began its connection.
    Answer,
    /// It is an error about packets of a connection.
    Related,
    /// It is ICMP.
    Icmp,
    /// It goes to this port of TCP.
    Tcp(u16),
    /// It goes to this port of UDP.
    Udp(u16),
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// It goes on.
    Accept,
    /// It goes nowhere.
    Drop,
    /// Its source becomes an address of the device that it leaves by.
    Masquerade,
}

/// What the kernel did not do, and why.
#[derive(Debug)]
pub(super) struct Failure {
    /// The message, in the words of the kernel's specification.
    pub(super) message: &'static str,
    pub(super) error: io::Error,
}

/// Puts `table` in the place of whatever has its name.
pub(super) fn replace(table: &Table<'_>) -> Result<(), Failure> {
    let mut batch = Batch::begin();
    batch.clear(table.name);
    batch.table(table.name);
    for set in &table.sets {
        batch.set(table.name, set);
    }
    for chain in &table.chains {
        batch.chain(table.name, chain);
    }
    batch.commit()
}

/// Removes the table `name`, if there is one.
pub(super) fn remove(name: &str) -> Result<(), Failure> {
    let mut batch = Batch::begin();
    batch.clear(name);
    batch.commit()
}

/// Messages that take effect as one.
struct Batch {
    messages: Chained<'static>,
    /// Sets have numbers until the kernel has taken the batch.
    sets: u32,
}

fn header() -> Nfgenmsg {
    Nfgenmsg { nfgen_family: number(libc::NFPROTO_INET), ..Nfgenmsg::default() }
}

/// A batch is for a subsystem and not for a family of addresses.
fn subsystem() -> Nfgenmsg {
    Nfgenmsg { _res_id_be: number::<u16>(libc::NFNL_SUBSYS_NFTABLES).to_be(), ..Nfgenmsg::default() }
}

/// A constant of the kernel's headers in the width of a message.
fn number<T: TryFrom<i32> + Default>(constant: i32) -> T {
    T::try_from(constant).unwrap_or_default()
}

impl Batch {
    fn begin() -> Self {
        let mut messages = Chained::new(0);
        messages.request().op_batch_begin_do(&subsystem());
        Self { messages, sets: 0 }
    }

    fn table(&mut self, name: &str) {
        let mut message = self.messages.request().set_create().op_newtable_do(&header());
        message.encode().push_name_bytes(name.as_bytes());
    }

    /// To delete what is not there would be an error.
    fn clear(&mut self, name: &str) {
        self.table(name);
        let mut message = self.messages.request().op_deltable_do(&header());
        message.encode().push_name_bytes(name.as_bytes());
    }

    fn set(&mut self, table: &str, Set { name, family, networks }: &Set) {
        self.sets = self.sets.saturating_add(1);
        let (kind, length) = match family {
            Family::Ipv4 => (7, 4),
            Family::Ipv6 => (8, 16),
        };
        let mut message = self.messages.request().set_create().op_newset_do(&header());
        let set = message.encode().push_table_bytes(table.as_bytes()).push_name_bytes(name.as_bytes());
        let set = set.push_flags(SetFlags::Interval as u32 | SetFlags::Constant as u32);
        // The kind is for whoever lists the set.
        set.push_key_type(kind).push_key_len(length).push_id(self.sets).end_nested();

        let ends: Vec<_> =
            IpNet::aggregate(networks).iter().filter(|network| family.has(network)).flat_map(ends).collect();
        for ends in ends.chunks(ELEMENTS) {
            let mut message = self.messages.request().set_create().op_newsetelem_do(&header());
            let list = message.encode().push_table_bytes(table.as_bytes()).push_set_bytes(name.as_bytes());
            let mut elements = list.nested_elements();
            for (address, is_end) in ends {
                let mut element = elements.nested_elem();
                if *is_end {
                    element = element.push_flags(&(SetElemFlags::IntervalEnd as u32).to_be_bytes());
                }
                elements = element.nested_key().push_value(address).end_nested().end_nested();
            }
        }
    }

    fn chain(&mut self, table: &str, Chain { name, kind, hook, priority, rules }: &Chain<'_>) {
        let mut message = self.messages.request().set_create().op_newchain_do(&header());
        let chain = message.encode().push_table_bytes(table.as_bytes()).push_name_bytes(name.as_bytes());
        let chain = chain.nested_hook().push_num(number(*hook)).push_priority(*priority).end_nested();
        chain.push_policy(VerdictCode::Accept as u32).push_type_bytes(kind.as_bytes()).end_nested();
        for Rule { matches, action } in rules {
            let mut message = self.messages.request().set_create().set_append().op_newrule_do(&header());
            let rule = message.encode().push_table_bytes(table.as_bytes()).push_chain_bytes(name.as_bytes());
            let expressions = matches.iter().fold(rule.nested_expressions(), |list, wanted| wanted.write(list));
            action.write(expressions);
        }
    }

    /// Sends the batch and hears what the kernel says to each message.
    fn commit(mut self) -> Result<(), Failure> {
        self.messages.request().op_batch_end_do(&subsystem());
        let messages = self.messages.finalize();
        let octets = messages.payload();
        let failed = |message| move |error: nix::Error| Failure { message, error: error.into() };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter);
        let socket = socket.map_err(failed("socket"))?;
        // The kernel takes a batch in one piece only.
        setsockopt(&socket, sockopt::SndBufForce, &octets.len().saturating_mul(2)).map_err(failed("socket"))?;
        send(socket.as_raw_fd(), octets, MsgFlags::empty()).map_err(failed("batch"))?;
        // All of it has been done when the system call returns.
        let (mut answer, mut heard) = (vec![0; ANSWER], 0);
        loop {
            let length = match recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(nix::Error::EAGAIN) if heard > 0 => return Ok(()),
                Err(error) => return Err(failed("answer")(error)),
            };
            for (sequence, code) in answers(answer.get(..length).unwrap_or_default()) {
                heard += 1;
                if code != 0 {
                    let message = messages.get_index(sequence).map_or("batch", |index| messages.name(index));
                    return Err(Failure { message, error: io::Error::from_raw_os_error(code.saturating_neg()) });
                }
            }
        }
    }
}

/// The answers of one read: which message, and zero or the negative number of an error (`NLMSG_ERROR`). The last may be cut off
/// in what it repeats of its message.
fn answers(mut octets: &[u8]) -> impl Iterator<Item = (u32, i32)> {
    std::iter::from_fn(move || {
        loop {
            let header = Nlmsghdr::new_from_slice(octets.get(..Nlmsghdr::len())?)?;
            let body = octets.get(Nlmsghdr::len()..)?;
            let length = usize::try_from(header.len).ok()?.max(Nlmsghdr::len()).next_multiple_of(4);
            octets = octets.get(length..).unwrap_or_default();
            if i32::from(header.r#type) == libc::NLMSG_ERROR {
                return Some((header.seq, i32::from_ne_bytes(*body.first_chunk()?)));
            }
        }
    })
}

/// The first address of a network, and the first behind it if there is one.
fn ends(network: &IpNet) -> impl Iterator<Item = (Vec<u8>, bool)> {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let behind = match network.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| IpAddr::V6(next.into())),
    };
    [Some((octets(network.network()), false)), behind.map(|address| (octets(address), true))].into_iter().flatten()
}

impl Family {
    fn has(self, network: &IpNet) -> bool {
        self == if network.addr().is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// The expressions of a rule, to be gone on with.
type Expressions<'a> = PushExprListAttrs<PushRuleAttrs<&'a mut Vec<u8>>>;

impl Match<'_> {
    /// Lets only packets that it fits go on.
    fn write(self, list: Expressions<'_>) -> Expressions<'_> {
        let device = |list, key, op, name: &str| {
            let mut octets = [0; DEVICE_NAME];
            octets.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
            compare(meta(list, key), op, &octets)
        };
        let port = |list, protocol, port: u16| {
            let list = compare(meta(list, MetaKeys::L4Proto), CmpOps::Eq, &[protocol]);
            let list = payload(list, PayloadBase::TransportHeader, DESTINATION_PORT, 2);
            compare(list, CmpOps::Eq, &port.to_be_bytes())
        };
        match self {
            Self::From(name) => device(list, MetaKeys::Iifname, CmpOps::Eq, name),
            Self::NotFrom(name) => device(list, MetaKeys::Iifname, CmpOps::Neq, name),
            Self::Into(name) => device(list, MetaKeys::Oifname, CmpOps::Eq, name),
            Self::NotInto(name) => device(list, MetaKeys::Oifname, CmpOps::Neq, name),
            Self::Towards(set, family) => lookup(destination(list, family), set),
            Self::To(address) => compare(destination(list, Family::Ipv4), CmpOps::Eq, &address.octets()),
            Self::Answer => {
                let list = compare(connection(list, CtKeys::Direction), CmpOps::Eq, &[REPLY]);
                has_state(list, ESTABLISHED)
            }
            Self::Related => has_state(list, RELATED),
            Self::Icmp => compare(meta(list, MetaKeys::L4Proto), CmpOps::Eq, &[PROTOCOL_ICMP]),
            Self::Tcp(number) => port(list, PROTOCOL_TCP, number),
            Self::Udp(number) => port(list, PROTOCOL_UDP, number),
        }
    }
}

impl Action {
    fn write(self, list: Expressions<'_>) -> Expressions<'_> {
        let verdict = match self {
            Self::Accept => VerdictCode::Accept,
            Self::Drop => VerdictCode::Drop,
            Self::Masquerade => return list.nested_elem().push_name(c"masq").end_nested(),
        };
        let immediate = list.nested_elem().nested_data_immediate().push_dreg(Registers::RegVerdict as u32);
        let data = immediate.nested_data().nested_verdict().push_code(verdict as u32).end_nested().end_nested();
        data.end_nested().end_nested()
    }
}

/// Loads something that the kernel knows of the packet.
fn meta(list: Expressions<'_>, key: MetaKeys) -> Expressions<'_> {
    list.nested_elem().nested_data_meta().push_key(key as u32).push_dreg(REGISTER).end_nested().end_nested()
}

/// Loads something that the kernel knows of the packet's connection.
fn connection(list: Expressions<'_>, key: CtKeys) -> Expressions<'_> {
    list.nested_elem().nested_data_ct().push_key(key as u32).push_dreg(REGISTER).end_nested().end_nested()
}

/// Loads octets of the packet.
fn payload(list: Expressions<'_>, base: PayloadBase, offset: u32, length: u32) -> Expressions<'_> {
    let payload = list.nested_elem().nested_data_payload().push_dreg(REGISTER).push_base(base as u32);
    payload.push_offset(offset).push_len(length).end_nested().end_nested()
}

/// Loads the destination of a packet of this family; others do not go on.
fn destination(list: Expressions<'_>, family: Family) -> Expressions<'_> {
    let (protocol, offset, length) = match family {
        Family::Ipv4 => (libc::NFPROTO_IPV4, IPV4_DESTINATION, 4),
        Family::Ipv6 => (libc::NFPROTO_IPV6, IPV6_DESTINATION, 16),
    };
    let list = compare(meta(list, MetaKeys::Nfproto), CmpOps::Eq, &[number(protocol)]);
    payload(list, PayloadBase::NetworkHeader, offset, length)
}

/// Lets only packets go on of which the set has what was loaded.
fn lookup<'a>(list: Expressions<'a>, set: &str) -> Expressions<'a> {
    let mut lookup = list.nested_elem().nested_data_lookup();
    // The bindings give this attribute another number than the kernel does. It is the first because it is not aligned here.
    let octets = lookup.as_vec_mut();
    octets.extend([8_u16, LOOKUP_REGISTER].into_iter().flat_map(u16::to_ne_bytes));
    octets.extend(REGISTER.to_be_bytes());
    lookup.push_set_bytes(set.as_bytes()).end_nested().end_nested()
}

/// Compares what was loaded.
fn compare<'a>(list: Expressions<'a>, op: CmpOps, value: &[u8]) -> Expressions<'a> {
    let comparison = list.nested_elem().nested_data_cmp().push_sreg(REGISTER).push_op(op as u32);
    comparison.nested_data().push_value(value).end_nested().end_nested().end_nested()
}

/// Lets only packets of connections in this state go on.
fn has_state(list: Expressions<'_>, state: u32) -> Expressions<'_> {
    let length = u32::BITS / u8::BITS;
    let bits = connection(list, CtKeys::State).nested_elem().nested_data_bitwise();
    let bits = bits.push_sreg(REGISTER).push_dreg(REGISTER).push_len(length);
    let bits = bits.nested_mask().push_value(&state.to_ne_bytes()).end_nested();
    let list = bits.nested_xor().push_value(&0_u32.to_ne_bytes()).end_nested().end_nested().end_nested();
    compare(list, CmpOps::Neq, &0_u32.to_ne_bytes())
}

//! Which network interface owns an address, asked from the kernel over rtnetlink (rtnetlink(7)):
//! no tool needs to be installed, and it is right without any route.

use std::net::IpAddr;

use rustix::net::netdevice::index_to_name;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

use crate::error::{Error, Result};

/// Message types and flags of `linux/netlink.h` and `linux/rtnetlink.h`.
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Bytes of `struct nlmsghdr` and `struct ifaddrmsg`.
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;

/// The name of the interface that has this address, if one has.
pub fn owner_of(address: IpAddr) -> Result<Option<String>> {
    let fail = |errno: rustix::io::Errno| {
        Error::Failed(format!("cannot ask the kernel for addresses: {errno}"))
    };
    let kernel = socket(AddressFamily::NETLINK, SocketType::RAW, None).map_err(fail)?;
    let to = SocketAddrNetlink::new(0, 0);
    sendto(&kernel, &dump_request(), SendFlags::empty(), &to).map_err(fail)?;
    let mut buffer = vec![0; 64 << 10];
    let mut owner = None;
    loop {
        let (count, _) = recv(&kernel, &mut buffer[..], RecvFlags::empty()).map_err(fail)?;
        let page = read_page(&buffer[..count], address);
        owner = owner.or(page.owner);
        if page.last {
            break;
        }
    }
    let inet = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(fail)?;
    owner
        .map(|index| index_to_name(&inet, index).map_err(fail))
        .transpose()
}

/// `RTM_GETADDR` for all interfaces and families.
fn dump_request() -> Vec<u8> {
    let length = u32::try_from(HEADER + IFADDRMSG).unwrap_or_default();
    let mut request = Vec::new();
    request.extend(length.to_ne_bytes());
    request.extend(RTM_GETADDR.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend([0; 8 + IFADDRMSG]); // sequence, port; family "any"
    request
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    /// Index of the interface that has the address.
    owner: Option<u32>,
    /// Whether no page follows.
    last: bool,
}

/// Reads one datagram of the dump.
fn read_page(mut bytes: &[u8], address: IpAddr) -> Page {
    let mut page = Page::default();
    while let Some((kind, body, rest)) = next_message(bytes) {
        match kind {
            RTM_NEWADDR if page.owner.is_none() => page.owner = owner_in(body, address),
            RTM_NEWADDR => {}
            _ => page.last = true, // NLMSG_DONE, NLMSG_ERROR
        }
        bytes = rest;
    }
    page.last |= bytes.len() >= HEADER;
    page
}

/// Type, body and what follows a `struct nlmsghdr`.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// The interface index of an `ifaddrmsg`, if one of its attributes is the address.
fn owner_in(body: &[u8], address: IpAddr) -> Option<u32> {
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let mut attributes = body.get(IFADDRMSG..)?;
    while let Some(head) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let value = attributes.get(4..length)?;
        let is_it = match address {
            // Loopback has the whole of 127.0.0.0/8 under its one address.
            IpAddr::V4(address) if address.is_loopback() => matches!(value, [127, _, _, _]),
            IpAddr::V4(address) => value == address.octets(),
            IpAddr::V6(address) => value == address.octets(),
        };
        // On a point-to-point link IFA_ADDRESS is the peer's when IFA_LOCAL is there as well;
        // the peer is never asked for, so either will do.
        if is_it && (kind == IFA_LOCAL || kind == IFA_ADDRESS) {
            return Some(index);
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    None
}

/// Netlink pads everything to four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `RTM_NEWADDR` with one attribute.
    fn message(index: u32, kind: u16, value: &[u8]) -> Vec<u8> {
        let attribute = 4 + value.len();
        let mut body = vec![2, 24, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(u16::try_from(attribute).unwrap().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        framed(RTM_NEWADDR, &body)
    }

    fn framed(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn the_owner_is_found_by_local_address_only() {
        let wanted = IpAddr::from([10, 0, 0, 11]);
        let bytes = [
            message(1, IFA_LOCAL, &[127, 0, 0, 1]),
            message(2, 4, &[10, 0, 0, 11]), // IFA_BROADCAST
            message(3, IFA_LOCAL, &[10, 0, 0, 11]),
        ]
        .concat();
        let page = read_page(&bytes, wanted);
        assert_eq!(page.owner, Some(3));
        assert!(!page.last);
        assert!(read_page(&framed(3, &[0; 4]), wanted).last);
    }

    #[test]
    fn nonsense_ends_the_dump() {
        let wanted = IpAddr::from([10, 0, 0, 11]);
        for bytes in [vec![0xff; 64], vec![0; 64]] {
            assert!(read_page(&bytes, wanted).last);
        }
    }

    #[test]
    fn loopback_has_its_addresses_here() {
        let owner = |text: &str| owner_of(text.parse().unwrap()).unwrap();
        assert_eq!(owner("127.0.0.1").as_deref(), Some("lo"));
        assert_eq!(owner("127.0.0.77").as_deref(), Some("lo"));
        assert_eq!(owner("192.0.2.77"), None);
    }
}

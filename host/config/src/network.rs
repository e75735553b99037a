//! Classes of IP addresses that an outgoing connection may not reach, or only if it is permitted
//! (RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Class of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An address of the internet.
    Public,
    /// An address of this machine or of a private network; the words say which.
    Private(&'static str),
    /// An address that no server may have, or the metadata service of a cloud.
    Forbidden(&'static str),
}

/// Metadata service of EC2 in IPv6; its other addresses are link-local.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Returns the class of `address`. An IPv6 address that contains an IPv4 address has the class of
/// that one, if it is stricter.
#[must_use]
pub fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class4(address),
        IpAddr::V6(address) => class6(address),
    }
}

/// Returns the words for an address that may not be connected to, or `None`. `private`: addresses
/// of this machine and of private networks are permitted.
#[must_use]
pub fn rejected(address: IpAddr, private: bool) -> Option<&'static str> {
    match class(address) {
        Class::Forbidden(words) => Some(words),
        Class::Private(words) if !private => Some(words),
        _ => None,
    }
}

fn class4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [0, ..] => Class::Forbidden("an unspecified address"),
        [169, 254, ..] => Class::Forbidden("a link-local address"),
        [224..=239, ..] => Class::Forbidden("a multicast address"),
        [240..=255, ..] => Class::Forbidden("a reserved address"),
        [127, ..] => Class::Private("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private("a private address"),
        [100, 64..=127, ..] => Class::Private("a shared address"),
        [192, 0, 0, _] | [198, 18 | 19, ..] => Class::Private("a special-purpose address"),
        _ => Class::Public,
    }
}

fn class6(address: Ipv6Addr) -> Class {
    if address.is_unspecified() {
        return Class::Forbidden("an unspecified address");
    }
    if address.is_loopback() {
        return Class::Private("a loopback address");
    }
    if address == METADATA {
        return Class::Forbidden("the address of a metadata service");
    }
    let segments = address.segments();
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        class4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0xff00..=0xffff, ..] => Class::Forbidden("a multicast address"),
        [0xfe80..=0xfebf, ..] => Class::Forbidden("a link-local address"),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private("a private address"),
        // Mapped, compatible, translated (RFC 6052) and 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] | [0x2002, high, low, ..] => four(high, low),
        [0x64, 0xff9b, 1, ..] => Class::Private("a special-purpose address"),
        _ => Class::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_classes() {
        let public = [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "169.253.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ];
        let private = [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "::1",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "::ffff:0:192.168.0.1",
            "2002:a00:1::1",
        ];
        let forbidden = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ];
        let cases = [(&public[..], false, false), (&private, true, false), (&forbidden, true, true)];
        for (addresses, is_rejected, is_rejected_if_private) in cases {
            for text in addresses {
                let address: IpAddr = text.parse().unwrap();
                let found = [false, true].map(|private| rejected(address, private).is_some());
                assert_eq!(found, [is_rejected, is_rejected_if_private], "{text}");
            }
        }
    }
}

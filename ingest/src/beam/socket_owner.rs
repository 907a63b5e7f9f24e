//! Whose socket listens on a port of this machine, and where: read from `/proc/net/tcp` and `/proc/net/tcp6`.
//!
//! # Source
//! Linux, `Documentation/networking/proc_net_tcp.rst`: address and port in hexadecimal, the address as 32-bit words in
//! the byte order of the host; state `0A` is listening; the eighth column is the owner's uid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    /// The address it is bound to.
    pub(super) address: IpAddr,
    /// Who owns it.
    pub(super) uid: u32,
}

impl Listener {
    /// Returns an address of this machine at which the socket can be reached.
    pub(super) fn reachable_at(&self) -> IpAddr {
        match self.address {
            // A socket bound to :: takes IPv4 too unless it was told otherwise, which is rare; an address of its own
            // family always works.
            IpAddr::V4(a) if a.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(a) if a.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            other => other,
        }
    }
}

/// Returns all sockets that listen on `port`.
///
/// # Errors
/// That `/proc/net/tcp` cannot be read. `/proc/net/tcp6` may be missing.
pub(super) fn listeners(port: u16) -> std::io::Result<Vec<Listener>> {
    let mut found = parse(&std::fs::read_to_string("/proc/net/tcp")?, port);
    found.extend(parse(&std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default(), port));
    Ok(found)
}

fn parse(table: &str, port: u16) -> Vec<Listener> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (address, local_port) = columns.next()?.split_once(':')?;
        let state = columns.nth(1)?;
        let uid = columns.nth(3)?.parse().ok()?;
        let matches = state == "0A" && u16::from_str_radix(local_port, 16).ok()? == port;
        matches.then(|| parse_address(address)).flatten().map(|address| Listener { address, uid })
    });
    rows.collect()
}

fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |i: usize| Some(u32::from_str_radix(hex.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:9949 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 31350 1 0 100 0 0 10 0
   1: 0100007F:9949 0100007F:3821 01 00000000:00000000 00:00000000 00000000     7        0 31352 1 0 20 4 30 11 -1
   2: 0100007F:3821 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 32084 1 0 20 4 31 11 -1
   3: garbage
";

    #[test]
    #[cfg(target_endian = "little")]
    fn finds_listening_sockets_with_owner_and_address() {
        let any = Listener { address: Ipv4Addr::UNSPECIFIED.into(), uid: 1001 };
        assert_eq!(parse(TABLE, 0x9949), [any]);
        assert_eq!(any.reachable_at(), Ipv4Addr::LOCALHOST);
        assert_eq!(parse(TABLE, 0x3821), [Listener { address: Ipv4Addr::LOCALHOST.into(), uid: 0 }]);
        assert!(parse(TABLE, 1).is_empty());
        let six = "h\n 0: 00000000000000000000000001000000:0001 0:0 0A 0:0 0:0 0 5 0 1";
        assert_eq!(parse(six, 1), [Listener { address: Ipv6Addr::LOCALHOST.into(), uid: 5 }]);
    }

    #[test]
    fn sees_a_socket_of_this_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listeners(socket.local_addr().unwrap().port()).unwrap();
        let expected = Listener { address: Ipv4Addr::LOCALHOST.into(), uid: rustix::process::getuid().as_raw() };
        assert_eq!(found, [expected]);
    }
}

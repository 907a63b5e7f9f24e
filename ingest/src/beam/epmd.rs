//! Asking epmd which nodes there are and where one listens.
//!
//! # Source
//! Erlang/OTP, *Distribution Protocol*, sections `NAMES_REQ` and `PORT_PLEASE2_REQ`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for the connection and the answer together.
const EPMD_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer taken, in bytes: some thousand nodes.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

const NAMES_REQ: u8 = 110;
const PORT_PLEASE2_REQ: u8 = 122;
const PORT2_RESP: u8 = 119;

/// Asks for all registered nodes: the part before the `@`, and the port.
///
/// # Errors
/// The connection's; `TimedOut` after two seconds.
pub(super) async fn names(epmd: SocketAddr) -> io::Result<Vec<(String, u16)>> {
    Ok(parse_names(&ask(epmd, &[NAMES_REQ]).await?))
}

/// Asks where the node `alive` listens; `None` when it is not registered.
///
/// # Errors
/// The connection's; `TimedOut` after two seconds; `InvalidData` for an answer that is none.
pub(super) async fn port(epmd: SocketAddr, alive: &str) -> io::Result<Option<u16>> {
    let request = [&[PORT_PLEASE2_REQ], alive.as_bytes()].concat();
    parse_port(&ask(epmd, &request).await?)
}

async fn ask(epmd: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(epmd).await?;
        let length = u16::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    timeout(EPMD_TIMEOUT, talk).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads four bytes (epmd's own port), then lines `name NAME at port PORT`; a line of another form is left out.
fn parse_names(answer: &[u8]) -> Vec<(String, u16)> {
    let text = answer.get(4..).unwrap_or_default();
    let lines = text.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let named = lines.filter_map(|line| {
        let (name, port) = line.strip_prefix("name ")?.rsplit_once(" at port ")?;
        let port: u16 = port.trim().parse().ok().filter(|p| *p != 0)?;
        (!name.is_empty() && name.len() <= 255).then(|| (name.to_owned(), port))
    });
    named.collect()
}

fn parse_port(answer: &[u8]) -> io::Result<Option<u16>> {
    match answer {
        [PORT2_RESP, 0, high, low, ..] => Ok(Some(u16::from_be_bytes([*high, *low])).filter(|p| *p != 0)),
        [PORT2_RESP, result, ..] if *result != 0 => Ok(None),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer of epmd")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_answers_and_leaves_out_what_is_none() {
        let answer = b"\0\0\x11\x11name a at port 42217\nname b at port c at port 1\nname x at port 0\n\nfoo\nname \xff at port 3\nname y at port 70000\n";
        assert_eq!(parse_names(answer), [("a".to_owned(), 42217), ("b at port c".to_owned(), 1)]);
        assert!(parse_names(b"\0\0").is_empty());
        assert_eq!(parse_port(&[119, 0, 0x10, 0x01, 77, 0, 0, 6]).unwrap(), Some(4097));
        assert_eq!(parse_port(&[119, 1]).unwrap(), None);
        for bad in [&b""[..], &[118, 0, 1, 1], &[119], &[119, 0, 1]] {
            assert!(parse_port(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            parse_names(&bytes);
            let _ = parse_port(&bytes);
        }
    }
}

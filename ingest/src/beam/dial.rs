//! Making a connection: TCP, then the handshake as a hidden node.
//!
//! The handshake is that of the crate `erl_dist`, over a stream that we give it: its messages have a length of 16 bits,
//! so there is nothing to cap. What we add is the deadline, one packet for each message, and the reason of a refusal.
//! A wrong cookie is answered by the peer with nothing but the end of the connection after our reply to its
//! challenge, so we count the messages that were flushed.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use erl_dist::DistributionFlags;
use erl_dist::handshake::{ClientSideHandshake, HandshakeError, HandshakeStatus};
use erl_dist::node::{Creation, LocalNode, NodeName, PeerNode};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::cookie::Cookie;
use super::link::{Client, Driver, link};
use super::wire::Wire;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Erlang's own `net_setuptime`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(7);

/// Who we are on a node.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Our node name.
    pub(super) name: NodeName,
    /// Tells this life of ours from earlier ones.
    pub(super) creation: u32,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody answers there.
    #[error("cannot connect: {0}")]
    Unreachable(std::io::Error),
    /// No answer before the deadline.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The cookie is not the node's.
    #[error("the cookie is wrong")]
    Cookie,
    /// The node lets in only names that it was told (`net_kernel:allow/1`).
    #[error("the node does not allow the name {0}")]
    NotAllowed(String),
    /// The node believes that our name is connected already.
    #[error("the node already has a connection from {0}")]
    NameTaken(String),
    /// The node's release cannot start processes on request.
    #[error("the node runs a release older than OTP 23")]
    TooOld,
    /// Anything else in the handshake.
    #[error("handshake: {0}")]
    Handshake(String),
}

/// Connects to the node that listens at `address`; the returned name is the one that it gives itself.
///
/// # Errors
/// [`DialError`].
pub(super) async fn dial(
    address: SocketAddr,
    us: &Identity,
    cookie: &Cookie,
    frame_bytes_max: usize,
    call_timeout: Duration,
) -> Result<(Driver, Client, String), DialError> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| DialError::Late(CONNECT_TIMEOUT))?
        .map_err(DialError::Unreachable)?;
    stream.set_nodelay(true).map_err(DialError::Unreachable)?;
    let (stream, peer) = timeout(HANDSHAKE_TIMEOUT, handshake(stream, us, cookie))
        .await
        .map_err(|_| DialError::Late(HANDSHAKE_TIMEOUT))??;
    if !peer.flags.contains(DistributionFlags::SPAWN) {
        return Err(DialError::TooOld);
    }
    let wire = Wire::new(&us.name.to_string(), us.creation);
    let (driver, client) = link(stream, wire, frame_bytes_max, call_timeout);
    Ok((driver, client, peer.name.to_string()))
}

/// Hidden, because `PUBLISHED` is not there; no fragments, no atom cache: each message then stands alone.
fn flags() -> DistributionFlags {
    DistributionFlags::mandatory()
        | DistributionFlags::DIST_MONITOR
        | DistributionFlags::DIST_MONITOR_NAME
        | DistributionFlags::SMALL_ATOM_TAGS
        | DistributionFlags::EXIT_PAYLOAD
        | DistributionFlags::SPAWN
}

async fn handshake(stream: TcpStream, us: &Identity, cookie: &Cookie) -> Result<(TcpStream, PeerNode), DialError> {
    let flushed = Arc::new(AtomicU8::new(0));
    let counted = Counted { inner: BufWriter::new(stream), flushed: Arc::clone(&flushed) };
    let mut local = LocalNode::new(us.name.clone(), Creation::new(us.creation));
    local.flags = flags();
    let why = |error: HandshakeError| reason(&error, us, flushed.load(Ordering::Relaxed));
    let mut handshake = ClientSideHandshake::new(counted.compat(), local, cookie.expose());
    let status = handshake.execute_send_name(erl_dist::LOWEST_DISTRIBUTION_PROTOCOL_VERSION).await.map_err(why)?;
    if status == HandshakeStatus::Alive {
        // Going on would cut off whoever has the name.
        return Err(DialError::NameTaken(us.name.to_string()));
    }
    let (stream, peer) = handshake.execute_rest(false).await.map_err(why)?;
    Ok((stream.into_inner().inner.into_inner(), peer))
}

/// Name and reply to the challenge: the messages that we send.
const REPLIED: u8 = 2;

fn reason(error: &HandshakeError, us: &Identity, flushed: u8) -> DialError {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error {
        HandshakeError::NotAllowed => DialError::NotAllowed(us.name.to_string()),
        HandshakeError::AlreadyActive => DialError::NameTaken(us.name.to_string()),
        HandshakeError::CookieMismatch => DialError::Cookie,
        HandshakeError::Io(e)
            if flushed >= REPLIED && [UnexpectedEof, ConnectionReset, BrokenPipe].contains(&e.kind()) =>
        {
            DialError::Cookie
        }
        other => DialError::Handshake(other.to_string()),
    }
}

/// Counts the messages that left.
struct Counted {
    inner: BufWriter<TcpStream>,
    flushed: Arc<AtomicU8>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        if let Poll::Ready(Ok(())) = done {
            self.flushed.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_after_our_reply_means_the_cookie() {
        let us = Identity { name: "a@b".parse().unwrap(), creation: 1 };
        let eof = || HandshakeError::Io(std::io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(reason(&eof(), &us, 2), DialError::Cookie));
        assert!(matches!(reason(&eof(), &us, 1), DialError::Handshake(_)));
        assert!(matches!(reason(&HandshakeError::NotAllowed, &us, 1), DialError::NotAllowed(_)));
    }

    #[test]
    fn we_are_hidden_and_take_whole_messages_only() {
        for absent in [
            DistributionFlags::PUBLISHED,
            DistributionFlags::FRAGMENTS,
            DistributionFlags::DIST_HDR_ATOM_CACHE,
            DistributionFlags::NAME_ME,
        ] {
            assert_eq!(flags().bits() & absent.bits(), 0);
        }
    }
}

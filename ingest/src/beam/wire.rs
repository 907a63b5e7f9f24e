//! The messages between connected nodes: the four that we send and the few that we listen to.
//!
//! A message is a length of 32 bits, the byte 112, a control tuple and, for some, a second term. Length zero is a tick.
//! We ask for no distribution header, no fragments and no atom cache, so each message stands alone.
//!
//! # Source
//! Erlang/OTP, *Distribution Protocol*, section *Protocol between Connected Nodes*.

use super::call::Call;
use super::term::{Decoder, Term, TermError, pid, reference};

const PASS_THROUGH: u8 = 112;
const VERSION: u8 = 131;

const EXIT2: i64 = 8;
const MONITOR_P: i64 = 19;
const DEMONITOR_P: i64 = 20;
const MONITOR_P_EXIT: i64 = 21;
const PAYLOAD_MONITOR_P_EXIT: i64 = 28;
const SPAWN_REQUEST: i64 = 29;
const SPAWN_REPLY: i64 = 31;

/// What a peer says to us.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// It lives.
    Tick,
    /// The worker of call `id` runs as this process, or why it does not (`system_limit`, `notsup`).
    Spawned { id: u64, worker: Result<Term, Box<str>> },
    /// The worker of call `id` ended with this reason, which holds the answer.
    Ended { id: u64, reason: Term },
    /// Somebody monitors a process of ours, or wants one: there is none, and this message says so.
    Wanted { answer: Vec<u8> },
    /// Something that is not for us; what it carries was not decoded.
    Ignored,
}

/// Why a message ends the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// Not the byte 112 after the length: fragments or headers that we did not ask for.
    #[error("message of unknown form {0}")]
    Form(u8),
    /// Not a control tuple.
    #[error("message without an operation")]
    Operation,
    /// A term that we do not take.
    #[error(transparent)]
    Term(#[from] TermError),
}

/// Our end of a connection: encodes what we send, recognises what is for us.
#[derive(Debug)]
pub(super) struct Wire {
    node: String,
    creation: u32,
    /// The one process that we claim to have; it owns all calls.
    caller: Term,
}

impl Wire {
    /// Makes our end, under our node's name and creation.
    pub(super) fn new(node: &str, creation: u32) -> Self {
        Self { node: node.to_owned(), creation, caller: pid(node, 1, 0, creation) }
    }

    /// Appends the request to run `call` in a process of its own, monitored by us. That process answers through the
    /// reason of its end and is gone then; it is what `erpc` does on the side of the callee.
    pub(super) fn request(&self, id: u64, call: &Call, out: &mut Vec<u8>) {
        let (module, function, arguments) = call.mfa();
        let reference = self.reference(id);
        let entry = Term::Tuple(vec![Term::atom("erpc"), Term::atom("execute_call"), Term::Int(4)]);
        let control = vec![
            Term::Int(SPAWN_REQUEST),
            reference.clone(),
            self.caller.clone(),
            self.caller.clone(),
            entry,
            Term::List(vec![Term::atom("monitor")]),
        ];
        let entry_arguments =
            Term::List(vec![reference, Term::atom(module), Term::atom(function), Term::List(arguments)]);
        message(&Term::Tuple(control), Some(&entry_arguments), out);
    }

    /// Appends what ends call `id` when nobody waits for it any more: no monitor, and no worker left behind.
    pub(super) fn abandon(&self, id: u64, worker: &Term, out: &mut Vec<u8>) {
        let demonitor = [Term::Int(DEMONITOR_P), self.caller.clone(), worker.clone(), self.reference(id)];
        message(&Term::Tuple(demonitor.into()), None, out);
        let kill = [Term::Int(EXIT2), self.caller.clone(), worker.clone(), Term::atom("kill")];
        message(&Term::Tuple(kill.into()), None, out);
    }

    /// Reads one message, the length taken off.
    ///
    /// # Errors
    /// [`WireError`]: the peer does not keep to the protocol, the connection is of no use any more.
    pub(super) fn parse(&self, frame: &[u8]) -> Result<Incoming, WireError> {
        let (form, rest) = match frame.split_first() {
            None => return Ok(Incoming::Tick),
            Some((form, rest)) => (*form, rest),
        };
        if form != PASS_THROUGH {
            return Err(WireError::Form(form));
        }
        let mut decoder = Decoder::new(rest);
        let Term::Tuple(control) = decoder.versioned()? else { return Err(WireError::Operation) };
        let operation = control.first().and_then(Term::int).ok_or(WireError::Operation)?;
        let mut fields = control.into_iter().skip(1);
        let mut next = || fields.next().ok_or(WireError::Operation);
        Ok(match operation {
            SPAWN_REPLY => {
                let (id, _to, _flags, result) = (self.id_of(&next()?), next()?, next()?, next()?);
                match (id, result) {
                    (Some(id), Term::Atom(why)) => Incoming::Spawned { id, worker: Err(why) },
                    (Some(id), worker @ Term::Pid(_)) => Incoming::Spawned { id, worker: Ok(worker) },
                    _ => Incoming::Ignored,
                }
            }
            MONITOR_P_EXIT | PAYLOAD_MONITOR_P_EXIT => {
                let (_from, _to, id) = (next()?, next()?, self.id_of(&next()?));
                match id {
                    None => Incoming::Ignored,
                    Some(id) if operation == MONITOR_P_EXIT => Incoming::Ended { id, reason: next()? },
                    Some(id) => Incoming::Ended { id, reason: decoder.versioned()? },
                }
            }
            // Silence would leave the asking process waiting, perhaps for ever.
            MONITOR_P => {
                let (from, target, reference) = (next()?, next()?, next()?);
                answer(vec![Term::Int(MONITOR_P_EXIT), target, from, reference, Term::atom("noproc")])
            }
            SPAWN_REQUEST => {
                let (id, from) = (next()?, next()?);
                answer(vec![Term::Int(SPAWN_REPLY), id, from, Term::Int(0), Term::atom("notsup")])
            }
            _ => Incoming::Ignored,
        })
    }

    fn reference(&self, id: u64) -> Term {
        // The first word has 18 bits on older releases.
        reference(&self.node, self.creation, [(id & 0x3_ffff) as u32, (id >> 18) as u32, 0])
    }

    /// Returns the call that a reference stands for, if it is one of ours.
    fn id_of(&self, term: &Term) -> Option<u64> {
        let Term::Reference(raw) = term else { return None };
        let words = raw.get(raw.len().checked_sub(12)?..)?;
        let word = |i: usize| u32::from_be_bytes([words[i], words[i + 1], words[i + 2], words[i + 3]]);
        let id = u64::from(word(0)) | u64::from(word(4)) << 18;
        (self.reference(id) == *term).then_some(id)
    }
}

/// Appends a tick.
pub(super) fn tick(out: &mut Vec<u8>) {
    out.extend([0; 4]);
}

fn answer(control: Vec<Term>) -> Incoming {
    let mut out = Vec::new();
    message(&Term::Tuple(control), None, &mut out);
    Incoming::Wanted { answer: out }
}

fn message(control: &Term, payload: Option<&Term>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0, 0, 0, 0, PASS_THROUGH, VERSION]);
    control.encode(out);
    if let Some(payload) = payload {
        out.push(VERSION);
        payload.encode(out);
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::call::{Call, SystemInfo};
    use super::*;

    fn frame(control: Vec<Term>, payload: Option<&Term>) -> Vec<u8> {
        let mut out = Vec::new();
        message(&Term::Tuple(control), payload, &mut out);
        out.split_off(4)
    }

    #[test]
    fn answers_are_matched_to_calls_by_reference() {
        let wire = Wire::new("forewarn@vm", 7);
        for id in [0, 1, 0x3_ffff, 0x4_0000, 1 << 40] {
            let worker = pid("n@h", 5, 0, 1);
            let reply = [Term::Int(31), wire.reference(id), wire.caller.clone(), Term::Int(2), worker.clone()];
            let spawned = wire.parse(&frame(reply.into(), None)).unwrap();
            assert_eq!(spawned, Incoming::Spawned { id, worker: Ok(worker.clone()) });
            let end = vec![Term::Int(21), worker.clone(), wire.caller.clone(), wire.reference(id), Term::Int(9)];
            assert_eq!(wire.parse(&frame(end, None)).unwrap(), Incoming::Ended { id, reason: Term::Int(9) });
            let end = vec![Term::Int(28), worker, wire.caller.clone(), wire.reference(id)];
            let payload = Term::atom("a");
            let ended = wire.parse(&frame(end, Some(&payload))).unwrap();
            assert_eq!(ended, Incoming::Ended { id, reason: payload });
        }
        // The same words under another creation are an answer to an earlier life of ours.
        let other = Wire::new("forewarn@vm", 8).reference(1);
        let end = vec![Term::Int(21), wire.caller.clone(), wire.caller.clone(), other, Term::Int(9)];
        assert_eq!(wire.parse(&frame(end, None)).unwrap(), Incoming::Ignored);
    }

    #[test]
    fn nothing_is_served_and_no_payload_decoded() {
        let wire = Wire::new("forewarn@vm", 7);
        let theirs = pid("n@h", 5, 0, 1);
        for operation in [1, 3, 4, 6, 8, 35] {
            let control = vec![Term::Int(operation), theirs.clone(), wire.caller.clone(), Term::atom("net_kernel")];
            let mut bytes = frame(control, None);
            bytes.extend([VERSION, 80, 0xff, 0xff]);
            assert_eq!(wire.parse(&bytes).unwrap(), Incoming::Ignored, "{operation}");
        }
        let monitor = vec![Term::Int(19), theirs.clone(), Term::atom("x"), reference("n@h", 1, [1, 2, 3])];
        let Incoming::Wanted { answer } = wire.parse(&frame(monitor, None)).unwrap() else { panic!() };
        assert!(answer.windows(6).any(|w| w == b"noproc"));
        let spawn = vec![Term::Int(29), reference("n@h", 1, [1, 2, 3]), theirs];
        let Incoming::Wanted { answer } = wire.parse(&frame(spawn, None)).unwrap() else { panic!() };
        assert!(answer.windows(6).any(|w| w == b"notsup"));
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        let wire = Wire::new("forewarn@vm", 7);
        assert_eq!(wire.parse(b"").unwrap(), Incoming::Tick);
        for bad in [&b"x"[..], b"p", b"p\x83", b"p\x83j", b"p\x83h\x00", b"p\x83h\x01a\x1f", b"\x83D\x00"] {
            assert!(wire.parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_reads_back_in_another_implementation() {
        let mut out = Vec::new();
        Wire::new("forewarn@vm", 7).request(3, &Call::SystemInfo(SystemInfo::AtomCount), &mut out);
        let length = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
        assert_eq!((out.len() - 4, out[4]), (length, PASS_THROUGH));
        let mut rest = &out[5..];
        let control = erl_dist::term::Term::decode(&mut rest).unwrap().to_string();
        assert_eq!(
            control,
            "{29,#Ref<'forewarn@vm'.3.0.0>,<'forewarn@vm'.1.0>,<'forewarn@vm'.1.0>,{'erpc','execute_call',4},['monitor']}"
        );
        let arguments = erl_dist::term::Term::decode(&mut rest).unwrap().to_string();
        assert_eq!(arguments, "[#Ref<'forewarn@vm'.3.0.0>,'erlang','system_info',['atom_count']]");
        assert!(rest.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let wire = Wire::new("forewarn@vm", 7);
            let _ = wire.parse(&bytes);
            let _ = wire.parse(&[&[PASS_THROUGH, VERSION], bytes.as_slice()].concat());
        }
    }
}

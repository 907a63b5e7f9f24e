use erl_dist::term as eetf;
use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8]) -> Result<Term, TermError> {
    Decoder::new(bytes).versioned()
}

fn encode(term: &Term) -> Vec<u8> {
    let mut out = vec![131];
    term.encode(&mut out);
    out
}

fn any_term() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Term::Int),
        (-1e300..1e300f64).prop_map(Term::Float),
        "[a-zA-Zäöλ@. ]{0,80}".prop_map(|s| Term::Atom(s.into())),
        proptest::collection::vec(any::<u8>(), 1..40).prop_map(Term::Text),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Term::Binary),
        any::<[u32; 3]>().prop_map(|[a, b, c]| pid("n@h", a, b, c)),
        any::<([u32; 3], u32)>().prop_map(|(w, c)| reference("n@h", c, w)),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Term::Tuple),
            proptest::collection::vec(inner, 0..8).prop_map(Term::List),
        ]
    })
}

/// The same term as another implementation of the format has it.
fn reference_form(term: &Term) -> eetf::Term {
    match term {
        Term::Int(i) => match i32::try_from(*i) {
            Ok(small) => eetf::FixInteger::from(small).into(),
            Err(_) => eetf::BigInteger::from(*i).into(),
        },
        Term::Float(f) => eetf::Float { value: *f }.into(),
        Term::Atom(a) => eetf::Atom::from(a.as_ref()).into(),
        Term::Tuple(t) => eetf::Tuple::from(t.iter().map(reference_form).collect::<Vec<_>>()).into(),
        Term::List(l) => eetf::List::from(l.iter().map(reference_form).collect::<Vec<_>>()).into(),
        Term::Binary(b) => eetf::Binary::from(b.clone()).into(),
        other => eetf::Term::decode(encode(other).as_slice()).unwrap(),
    }
}

proptest! {
    #[test]
    fn round_trips(term in any_term()) {
        prop_assert_eq!(decode(&encode(&term)).unwrap(), term);
    }

    #[test]
    fn agrees_with_another_implementation(term in any_term()) {
        let theirs = reference_form(&term);
        prop_assert_eq!(&eetf::Term::decode(encode(&term).as_slice()).unwrap(), &theirs);
        let mut bytes = Vec::new();
        theirs.encode(&mut bytes).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), term);
    }

    #[test]
    fn any_bytes_and_any_cut_are_an_error_at_worst(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), term in any_term(), cut: prop::sample::Index,
    ) {
        let _ = decode(&[&[131], bytes.as_slice()].concat());
        let whole = encode(&term);
        prop_assert!(decode(&whole[..cut.index(whole.len())]).is_err());
    }

    #[test]
    fn flipped_bytes_never_panic(term in any_term(), at: prop::sample::Index, with: u8) {
        let mut bytes = encode(&term);
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = decode(&bytes);
    }
}

#[test]
fn keeps_the_bytes_of_what_it_does_not_look_into() {
    let map = [131, 116, 0, 0, 0, 1, 97, 1, 106];
    let improper = [131, 108, 0, 0, 0, 1, 97, 1, 97, 2];
    let bits = [131, 77, 0, 0, 0, 1, 4, 0xf0];
    let fun = [131, 112, 0, 0, 0, 6, 1, 2];
    let export = [131, 113, 119, 1, b'm', 119, 1, b'f', 97, 2];
    let port = [131, 120, 119, 1, b'n', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let large = [131, 110, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for bytes in [&map[..], &improper, &bits, &fun, &export, &port, &large] {
        let term = decode(bytes).unwrap();
        assert!(matches!(term, Term::Opaque(_)), "{bytes:?}: {term:?}");
        assert_eq!(encode(&term), bytes);
    }
}

#[test]
fn integers_at_the_ends() {
    for i in [0, 255, 256, -1, i64::from(i32::MAX) + 1, i64::from(i32::MIN) - 1, i64::MAX, i64::MIN] {
        assert_eq!(decode(&encode(&Term::Int(i))).unwrap(), Term::Int(i));
    }
    assert!(matches!(decode(&[131, 110, 8, 0, 0, 0, 0, 0, 0, 0, 0, 128]).unwrap(), Term::Opaque(_)));
    assert_eq!(decode(&[131, 111, 0, 0, 0, 2, 0, 0, 1]).unwrap(), Term::Int(256));
}

#[test]
fn refuses_what_would_cost_more_than_it_says() {
    // Compressed; four thousand million elements; nested a million deep; a list of more terms than we make.
    assert_eq!(decode(&[131, 80, 0, 0, 0, 1]).unwrap_err(), TermError::Tag(80));
    for tag in [LARGE_TUPLE, LIST, MAP, BINARY, BIT_BINARY, LARGE_BIG] {
        assert!(decode(&[131, tag, 0xff, 0xff, 0xff, 0xff, 0]).is_err(), "{tag}");
    }
    let deep: Vec<u8> = std::iter::once(131).chain([SMALL_TUPLE, 1].into_iter().cycle().take(2_000_000)).collect();
    assert_eq!(decode(&deep).unwrap_err(), TermError::Deep);
    let count = TERMS_MAX + 1;
    let mut wide = vec![131];
    encode_long(LIST, count, &mut wide);
    wide.extend(std::iter::repeat_n(NIL, count + 1));
    assert_eq!(decode(&wide).unwrap_err(), TermError::Many);
}

#[test]
fn text_of_strings_binaries_and_lists() {
    assert_eq!(Term::Text(b"ab\xe4".to_vec()).text().unwrap(), "abä");
    assert_eq!(Term::Binary("ä".into()).text().unwrap(), "ä");
    assert_eq!(Term::List(vec![Term::Int(0x3bb)]).text().unwrap(), "λ");
    assert_eq!(Term::List(vec![Term::Int(-1)]).text(), None);
    assert_eq!(Term::Int(1).text(), None);
}

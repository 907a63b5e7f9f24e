use std::collections::BTreeSet;
use std::path::Path;

use super::*;

const D: &str = "/d";

fn with_file(content: &[u8]) -> (SimVfs, Box<dyn VfsFile>) {
    let vfs = SimVfs::new();
    vfs.create_dir_all(Path::new(D)).unwrap();
    let mut file = vfs.open(Path::new("/d/f"), Open::CreateNew).unwrap();
    file.append(content).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(Path::new(D)).unwrap();
    (vfs, file)
}

fn content(vfs: &SimVfs, path: &str) -> Option<Vec<u8>> {
    vfs.read(Path::new(path), u64::MAX).ok()
}

fn contents(vfs: &SimVfs, max: usize) -> BTreeSet<Option<Vec<u8>>> {
    vfs.crash_states(1, max).map(|s| content(&s, "/d/f")).collect()
}

#[test]
fn what_is_synced_survives_and_nothing_else_must() {
    let (vfs, mut file) = with_file(b"ab");
    assert_eq!(contents(&vfs, 10), BTreeSet::from([Some(b"ab".to_vec())]));
    file.append(b"xy").unwrap();
    let states = vfs.crash_states(1, 1000);
    assert!(states.is_exhaustive());
    assert_eq!(states.count(), 7);
    let found = contents(&vfs, 1000);
    for want in [&b"ab"[..], b"abxy", b"abx", b"ab\0\0", b"abx\0"] {
        assert!(found.contains(&Some(want.to_vec())), "{want:?}");
    }
    assert!(found.iter().flatten().all(|c| c.starts_with(b"ab") && c.len() <= 4));
    file.sync().unwrap();
    assert_eq!(contents(&vfs, 10), BTreeSet::from([Some(b"abxy".to_vec())]));
}

#[test]
fn a_later_write_may_survive_without_an_earlier_one() {
    let (vfs, mut file) = with_file(b"");
    file.append(b"1").unwrap();
    file.append(b"2").unwrap();
    assert!(contents(&vfs, 1000).contains(&Some(b"\x002".to_vec())));
}

#[test]
fn sectors_survive_each_on_its_own() {
    let (vfs, mut file) = with_file(b"");
    file.append(&[7; 3 * 512]).unwrap();
    let mut want = vec![7; 3 * 512];
    want[512..1024].fill(0);
    assert!(contents(&vfs, 10_000).contains(&Some(want)));
}

#[test]
fn a_cut_may_be_lost() {
    let (vfs, mut file) = with_file(b"abc");
    file.truncate(1).unwrap();
    assert_eq!(contents(&vfs, 10), BTreeSet::from([Some(b"a".to_vec()), Some(b"abc".to_vec())]));
    file.sync().unwrap();
    assert_eq!(contents(&vfs, 10), BTreeSet::from([Some(b"a".to_vec())]));
}

#[test]
fn names_survive_with_their_directory_only() {
    let vfs = SimVfs::new();
    vfs.create_dir_all(Path::new(D)).unwrap();
    let mut file = vfs.open(Path::new("/d/tmp"), Open::CreateNew).unwrap();
    file.append(b"1").unwrap();
    file.sync().unwrap();
    vfs.rename_no_replace(Path::new("/d/tmp"), Path::new("/d/f")).unwrap();
    let found: BTreeSet<(bool, bool)> =
        vfs.crash_states(1, 100).map(|s| (content(&s, "/d/tmp").is_some(), content(&s, "/d/f").is_some())).collect();
    assert_eq!(found, BTreeSet::from([(false, false), (true, false), (false, true)]));
    vfs.sync_dir(Path::new(D)).unwrap();
    assert_eq!(contents(&vfs, 10), BTreeSet::from([Some(b"1".to_vec())]));
    vfs.remove(Path::new("/d/f")).unwrap();
    assert_eq!(contents(&vfs, 10), BTreeSet::from([Some(b"1".to_vec()), None]));
}

#[test]
fn states_are_disks_of_their_own() {
    let (vfs, mut file) = with_file(b"ab");
    file.append(b"c").unwrap();
    for state in vfs.crash_states(1, 100) {
        let before = content(&state, "/d/f");
        let mut file = state.open(Path::new("/d/f"), Open::Append).unwrap();
        file.append(b"zz").unwrap();
        assert!(state.crash_states(1, 1).all(|s| content(&s, "/d/f") == before));
    }
    assert_eq!(content(&vfs, "/d/f").unwrap(), b"abc");
}

#[test]
fn sampling_is_seeded_and_has_both_ends() {
    let (vfs, mut file) = with_file(b"");
    for i in 0..20u8 {
        file.append(&[i; 100]).unwrap();
    }
    let draw = |seed| vfs.crash_states(seed, 50).map(|s| content(&s, "/d/f").unwrap()).collect::<Vec<_>>();
    let a = draw(7);
    assert_eq!(a.len(), 50);
    assert_eq!(a[0].len(), 0);
    assert_eq!(a[1], content(&vfs, "/d/f").unwrap());
    assert_eq!(a, draw(7));
    assert_ne!(a, draw(8));
    assert!(a.iter().collect::<BTreeSet<_>>().len() > 30);
}

#[test]
fn the_nth_call_fails_once() {
    let (vfs, mut file) = with_file(b"");
    vfs.fail(Fault::Append(1));
    file.append(b"aa").unwrap();
    assert!(file.append(b"bb").is_err());
    assert_eq!(content(&vfs, "/d/f").unwrap(), b"aab");
    file.append(b"c").unwrap();
    for (fault, call) in [
        (Fault::Read(0), (&|f: &mut dyn VfsFile| f.read_at(&mut [0], 0).map(drop)) as &dyn Fn(&mut dyn VfsFile) -> _),
        (Fault::Truncate(0), &|f| f.truncate(0)),
        (Fault::Open(0), &|_| vfs.open(Path::new("/d/f"), Open::Read).map(drop)),
        (Fault::List(0), &|_| vfs.list(Path::new(D)).map(drop)),
        (Fault::SyncDir(0), &|_| vfs.sync_dir(Path::new(D))),
        (Fault::Rename(0), &|_| vfs.rename_no_replace(Path::new("/d/f"), Path::new("/d/g"))),
        (Fault::Remove(0), &|_| vfs.remove(Path::new("/d/g"))),
    ] {
        vfs.fail(fault);
        assert_eq!(call(&mut *file).unwrap_err().raw_os_error(), Some(5), "{fault:?}");
        call(&mut *file).unwrap();
    }
}

#[test]
fn what_a_failed_sync_left_is_never_durable() {
    let (vfs, mut file) = with_file(b"");
    file.append(b"a").unwrap();
    vfs.fail(Fault::Sync(0));
    assert!(file.sync().is_err());
    file.append(b"b").unwrap();
    file.sync().unwrap();
    let found = contents(&vfs, 100);
    assert!(found.contains(&Some(b"\0b".to_vec())) && found.contains(&Some(b"ab".to_vec())));
    assert!(found.iter().flatten().all(|c| c.len() == 2 && c[1] == b'b'));
}

#[test]
fn a_full_disk_takes_what_fits() {
    let (vfs, mut file) = with_file(b"ab");
    vfs.set_capacity(4);
    assert_eq!(vfs.available(Path::new(D)).unwrap(), 2);
    assert_eq!(file.append(b"xyz").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(content(&vfs, "/d/f").unwrap(), b"abxy");
    vfs.set_capacity(100);
    file.append(b"z").unwrap();
}

#[test]
fn after_the_crash_every_call_fails_and_changes_nothing() {
    let (vfs, mut file) = with_file(b"ab");
    let ops = vfs.ops();
    assert_eq!(ops, 5);
    vfs.crash_after(ops + 1);
    file.append(b"c").unwrap();
    assert!(file.append(b"d").is_err());
    assert!(file.sync().is_err());
    assert!(vfs.open(Path::new("/d/f"), Open::Read).is_err());
    assert!(vfs.list(Path::new(D)).is_err());
    assert_eq!(contents(&vfs, 100).iter().flatten().map(Vec::len).max(), Some(3));
    assert!(contents(&vfs, 100).contains(&Some(b"ab".to_vec())));
}

#[test]
fn a_flipped_byte_is_flipped_everywhere() {
    let (vfs, mut file) = with_file(b"ab");
    file.append(b"c").unwrap();
    vfs.flip("/d/f", 0);
    vfs.flip("/d/f", 2);
    let want = [b'a' ^ 0xff, b'b', b'c' ^ 0xff];
    assert_eq!(content(&vfs, "/d/f").unwrap(), want);
    assert!(contents(&vfs, 100).contains(&Some(want.to_vec())));
}

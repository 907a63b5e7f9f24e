//! What every [`Vfs`] must do, on the real one and on the simulated one.

use std::io::ErrorKind;
use std::path::Path;

use forewarn_vfs::{Open, SimVfs, StdVfs, Vfs};

fn check(vfs: &dyn Vfs, root: &Path) {
    let dir = root.join("a/b");
    vfs.create_dir_all(&dir).unwrap();
    vfs.create_dir_all(&dir).unwrap();
    assert!(vfs.list(&dir).unwrap().is_empty());
    assert_eq!(vfs.list(&root.join("none")).unwrap_err().kind(), ErrorKind::NotFound);

    let path = dir.join("f");
    assert_eq!(vfs.open(&path, Open::Read).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(vfs.open(&path, Open::Append).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(vfs.open(&root.join("none/f"), Open::CreateNew).unwrap_err().kind(), ErrorKind::NotFound);
    let mut file = vfs.open(&path, Open::CreateNew).unwrap();
    assert_eq!(vfs.open(&path, Open::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);

    file.append(b"hello ").unwrap();
    file.append(b"world").unwrap();
    file.sync().unwrap();
    vfs.sync_dir(&dir).unwrap();
    assert_eq!(file.bytes().unwrap(), 11);
    let mut into = [0; 8];
    assert_eq!(file.read_at(&mut into, 6).unwrap(), 5);
    assert_eq!(&into[..5], b"world");
    assert_eq!(file.read_at(&mut into, 11).unwrap(), 0);
    assert_eq!(file.read_at(&mut into, 99).unwrap(), 0);
    assert_eq!(file.read_exact_at(&mut into, 6).unwrap_err().kind(), ErrorKind::UnexpectedEof);

    // A second handle appends at the end, wherever that is by then, and a third only reads.
    let mut second = vfs.open(&path, Open::Append).unwrap();
    file.truncate(5).unwrap();
    second.append(b"!").unwrap();
    assert_eq!(vfs.read(&path, 100).unwrap(), b"hello!");
    assert_eq!(vfs.read(&path, 5).unwrap_err().kind(), ErrorKind::InvalidData);
    assert!(vfs.open(&path, Open::Read).unwrap().append(b"x").is_err());

    let other = dir.join("g");
    vfs.rename_no_replace(&path, &other).unwrap();
    assert_eq!(vfs.rename_no_replace(&path, &other).unwrap_err().kind(), ErrorKind::NotFound);
    vfs.publish(&path, b"new").unwrap();
    assert_eq!(vfs.rename_no_replace(&other, &path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(vfs.publish(&path, b"newer").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(vfs.read(&path, 100).unwrap(), b"new");

    vfs.create_dir_all(&dir.join("c")).unwrap();
    let listed: Vec<_> = vfs.list(&dir).unwrap().into_iter().map(|e| (e.name, e.bytes, e.is_dir)).collect();
    assert_eq!(listed, [("c".into(), 0, true), ("f".into(), 3, false), ("g".into(), 6, false)]);

    // A removed file can still be read by who has it open.
    vfs.remove(&other).unwrap();
    assert_eq!(vfs.remove(&other).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(file.read_at(&mut into, 0).unwrap(), 6);
    assert!(vfs.available(root).unwrap() > 0);
}

#[test]
fn std_vfs_conforms() {
    let dir = tempfile::tempdir().unwrap();
    check(&StdVfs, dir.path());
}

#[test]
fn sim_vfs_conforms() {
    check(&SimVfs::new(), Path::new("/sim"));
}

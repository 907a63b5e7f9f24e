//! What is mounted, and which mounts are watched: one per file system, local, writable, not covered by another.
//!
//! Source: Linux `Documentation/filesystems/proc.rst`, `/proc/<pid>/mountinfo`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::config::matches_any;
use super::text::printable;

/// One line of `mountinfo`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mount {
    id: u64,
    parent: u64,
    /// `major:minor` of the file system, the same for all its mounts.
    device: Box<str>,
    /// Which directory of the file system is mounted: `/` unless it is a bind mount.
    root: Vec<u8>,
    pub(super) point: PathBuf,
    read_only: bool,
    pub(super) fstype: String,
    pub(super) source: String,
}

/// Reads `mountinfo`; returns the mounts and the number of lines that were none.
pub(super) fn parse(mountinfo: &[u8]) -> (Vec<Mount>, usize) {
    let (mut mounts, mut malformed) = (Vec::new(), 0);
    for line in mountinfo.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        match parse_line(line) {
            Some(mount) => mounts.push(mount),
            None => malformed += 1,
        }
    }
    (mounts, malformed)
}

/// `36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue`, with any number of fields between
/// the options and the dash.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|b| *b == b' ');
    let mut text = || std::str::from_utf8(words.next()?).ok();
    let (id, parent, device) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?.into());
    let (root, point, options) = (words.next()?, words.next()?, words.next()?);
    words.by_ref().find(|w| *w == b"-")?;
    let (fstype, source, super_options) = (words.next()?, words.next()?, words.next()?);
    let read_only = |options: &[u8]| options.split(|b| *b == b',').any(|o| o == b"ro");
    Some(Mount {
        id,
        parent,
        device,
        root: unescape(root),
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        read_only: read_only(options) || read_only(super_options),
        fstype: printable(&unescape(fstype)),
        source: printable(&unescape(source)),
    })
}

/// Undoes the kernel's escapes: a backslash and three octal digits stand for one byte.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let code = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    out
}

/// Returns the mounts to watch, by mount point.
pub(super) fn watched(mounts: &[Mount], fstypes_exclude: &[String], points_exclude: &[String]) -> Vec<Mount> {
    let parents: HashMap<u64, u64> = mounts.iter().map(|m| (m.id, m.parent)).collect();
    let mut chosen: HashMap<&str, &Mount> = HashMap::new();
    for mount in mounts {
        let is_root = mount.point == Path::new("/");
        let by_type = !matches_any(fstypes_exclude, &mount.fstype) && mount.fstype != "overlay";
        if mount.read_only
            || !(is_root || by_type)
            || matches_any(points_exclude, &mount.point.to_string_lossy())
            || mounts.iter().any(|other| covers(other, mount, &parents))
        {
            continue;
        }
        let best = chosen.entry(&mount.device).or_insert(mount);
        if rank(mount) < rank(best) {
            *best = mount;
        }
    }
    let mut list: Vec<Mount> = chosen.into_values().cloned().collect();
    list.sort_by(|a, b| a.point.cmp(&b.point));
    list
}

/// Which mount stands for its file system: the whole rather than a part of it, then the shortest path.
fn rank(mount: &Mount) -> (bool, usize, &Path) {
    (mount.root != b"/", mount.point.as_os_str().len(), &mount.point)
}

/// Says whether `upper` lies over the place of `lower`, so that the path of `lower` leads into `upper`: it is mounted
/// there or above, and `lower` is not mounted on it.
fn covers(upper: &Mount, lower: &Mount, parents: &HashMap<u64, u64>) -> bool {
    upper.id != lower.id && lower.point.starts_with(&upper.point) && !is_ancestor(upper.id, lower, parents)
}

fn is_ancestor(id: u64, mount: &Mount, parents: &HashMap<u64, u64>) -> bool {
    let mut at = mount.parent;
    // Each step leads up; the bound is for files that name each other.
    for _ in 0..=parents.len() {
        if at == id {
            return true;
        }
        match parents.get(&at) {
            Some(parent) if *parent != at => at = *parent,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::config::HostConfig;

    fn points(mountinfo: &str) -> Vec<String> {
        let (mounts, malformed) = parse(mountinfo.as_bytes());
        assert_eq!(malformed, 0);
        let config = HostConfig::default();
        let list = watched(&mounts, &config.disk_fstypes_exclude, &config.disk_mounts_exclude);
        list.iter().map(|m| m.point.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn escapes_and_bytes_that_are_no_utf8() {
        assert_eq!(unescape(br"/mnt/a\040b\134c\011"), b"/mnt/a b\\c\t");
        assert_eq!(unescape(br"\04\999\400"), br"\04\999\400");
        let (mounts, _) = parse(b"36 35 98:0 / /mnt/a\\040\xff rw shared:1 master:2 - ext4 /dev/sd\\040a rw\n");
        assert_eq!(mounts[0].point.as_os_str().len(), "/mnt/a ?".len());
        assert_eq!(mounts[0].source, "/dev/sd a");
        let (mounts, _) = parse(b"36 35 98:0 / /mnt rw - ext4  rw\n");
        assert_eq!(mounts[0].source, "");
    }

    #[test]
    fn malformed_lines_are_counted_and_cost_nothing_else() {
        let line = "36 35 98:0 / /mnt rw,noatime - ext4 /dev/sda1 rw";
        for cut in 1..line.len() - 2 {
            let (mounts, malformed) = parse(format!("{}\n{line}\n", &line[..cut]).as_bytes());
            assert_eq!((mounts.len(), malformed), (1, 1), "cut at {cut}");
        }
        assert_eq!(parse(b"").0, []);
        assert_eq!(parse(b"99999999999999999999999 1 a / / rw - a b c\n").1, 1);
    }

    #[test]
    fn one_mount_for_each_file_system() {
        let list = "\
20 1 254:0 / / rw - ext4 /dev/vda rw
21 20 254:1 /sub /a rw - ext4 /dev/vdb rw
22 20 254:1 / /data/long rw - ext4 /dev/vdb rw
23 20 254:1 / /data/longer rw - ext4 /dev/vdb rw
24 20 254:0 /var/x /bind rw - ext4 /dev/vda rw
25 20 0:40 / /tank rw - zfs tank rw
";
        assert_eq!(points(list), ["/", "/data/long", "/tank"]);
    }

    #[test]
    fn read_only_remote_and_pseudo_are_left_out() {
        let list = "\
20 1 254:0 / / rw - ext4 /dev/vda rw
21 20 0:21 / /proc rw - proc proc rw
22 20 0:22 / /sys rw - sysfs sysfs rw
23 20 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw
24 20 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
25 20 254:2 / /bound-ro ro - ext4 /dev/vdc rw
26 20 254:3 / /errors rw - ext4 /dev/vdd ro,errors=remount-ro
27 20 0:50 / /net rw - nfs4 server:/x rw
28 20 0:51 / /ssh rw - fuse.sshfs me@there: rw
29 20 8:1 / /ntfs rw - fuseblk /dev/sda1 rw
30 20 0:52 / /dev rw - devtmpfs devtmpfs rw
31 30 0:53 / /dev/shm rw - tmpfs tmpfs rw
32 20 0:54 / /run rw - tmpfs tmpfs rw,size=1m
33 32 0:55 / /run/user/1000 rw - tmpfs tmpfs rw
34 20 0:56 / /mnt/small rw - tmpfs x rw,size=1024k
35 20 0:57 / /var/lib/docker/overlay2/1/merged rw - overlay overlay rw
";
        assert_eq!(points(list), ["/", "/dev/shm", "/mnt/small", "/ntfs", "/run"]);
    }

    #[test]
    fn inside_a_container_the_root_is_watched_and_bound_files_are_not() {
        let list = "\
500 400 0:60 / / rw - overlay overlay rw,lowerdir=/l
501 500 254:0 /docker/hosts /etc/hosts rw - ext4 /dev/vda rw
502 500 254:0 /docker/volume /data rw - ext4 /dev/vda rw
";
        assert_eq!(points(list), ["/", "/data"]);
        assert_eq!(points("500 400 0:60 / / rw - 9p none rw\n"), ["/"]);
        assert_eq!(points("500 400 0:60 / / ro - overlay overlay rw\n"), Vec::<String>::new());
    }

    #[test]
    fn a_mount_that_another_covers_is_left_out() {
        let list = "\
20 1 254:0 / / rw - ext4 /dev/vda rw
25 20 0:23 / /dev/shm rw - tmpfs lower rw
30 25 0:27 / /dev/shm rw - tmpfs upper rw
40 20 0:31 / /srv/deep rw - tmpfs hidden rw
41 20 0:32 / /srv rw - tmpfs cover rw
42 41 0:33 / /srv/seen rw - tmpfs seen rw
";
        let (mounts, _) = parse(list.as_bytes());
        let sources: Vec<_> = watched(&mounts, &[], &[]).into_iter().map(|m| m.source).collect();
        assert_eq!(sources, ["/dev/vda", "upper", "cover", "seen"]);
    }

    #[test]
    fn mounts_that_name_each_other_as_parent_end() {
        let (mounts, _) =
            parse(b"1 2 0:1 / /a rw - ext4 x rw\n2 1 0:2 / /a/b rw - ext4 y rw\n3 9 0:3 / /a/b/c rw - ext4 z rw\n");
        assert_eq!(watched(&mounts, &[], &[]).len(), 2);
    }
}

//! Which hierarchies there are, and the groups in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::error::Error;
use crate::host::text::printable;

/// Groups listed at most, over all hierarchies.
const GROUPS_MAX: usize = 20_000;

/// One mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub(super) controllers: Controllers,
    /// Parents before their children.
    pub(super) groups: Vec<Group>,
}

/// Which files a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Controllers {
    /// The unified hierarchy: all controllers that no v1 hierarchy has.
    V2,
    /// The memory controller of v1.
    V1Memory,
    /// The pids controller of v1.
    V1Pids,
}

/// One group.
#[derive(Debug)]
pub(super) struct Group {
    /// Its path within the hierarchy, `/` for the root.
    pub(super) path: Box<str>,
    pub(super) dir: PathBuf,
    /// The index of the group above it.
    pub(super) parent: Option<usize>,
}

/// Lists the hierarchies at their usual places below `base`, `/sys/fs/cgroup`; `complain` gets the directories that
/// could not be read. Returns also whether the list is whole.
pub(super) fn list(base: &Path, complain: &mut dyn FnMut(Error)) -> (Vec<Hierarchy>, bool) {
    let unified = |dir: &Path| dir.join("cgroup.controllers").exists();
    let mut roots = Vec::new();
    if unified(base) {
        roots.push((Controllers::V2, base.to_owned()));
    } else {
        let v1 = [(Controllers::V1Memory, "memory"), (Controllers::V1Pids, "pids")];
        roots.extend(v1.map(|(c, name)| (c, base.join(name))).into_iter().filter(|(_, dir)| dir.is_dir()));
        roots.extend(Some((Controllers::V2, base.join("unified"))).filter(|(_, dir)| unified(dir)));
    }
    let mut room = GROUPS_MAX;
    let mut list = Vec::new();
    for (controllers, root) in roots {
        let groups = groups(root, room, complain);
        room -= groups.len();
        list.push(Hierarchy { controllers, groups });
    }
    (list, room > 0)
}

fn groups(root: PathBuf, max: usize, complain: &mut dyn FnMut(Error)) -> Vec<Group> {
    let mut groups = vec![Group { path: "/".into(), dir: root, parent: None }];
    let mut next = 0;
    while next < groups.len() && groups.len() < max {
        let Group { path, dir, .. } = &groups[next];
        match children(dir) {
            Ok(names) => {
                let prefix = if &**path == "/" { "" } else { path };
                let below = names.into_iter().map(|name| Group {
                    path: format!("{prefix}/{}", printable(name.as_encoded_bytes())).into(),
                    dir: dir.join(&name),
                    parent: Some(next),
                });
                let below: Vec<Group> = below.take(max - groups.len()).collect();
                groups.extend(below);
            }
            Err(e) if e.is_gone() => {}
            Err(e) => complain(e),
        }
        next += 1;
    }
    groups.truncate(max);
    groups
}

/// Returns the names of the directories in a directory, sorted.
fn children(dir: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let error = |e| Error::io(dir, e);
    // A directory has a link from its name, one from itself and one from each below it: most groups are leaves, and a
    // leaf's sixty files need not be listed.
    if fs::symlink_metadata(dir).map_err(error)?.nlink() == 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(error)? {
        let entry = entry.map_err(error)?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            names.push(entry.file_name());
        }
    }
    names.sort_unstable();
    Ok(names)
}

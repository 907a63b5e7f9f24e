//! Disks and their inodes: one per file system, local and writable.
//!
//! `limit` is `used + available`: blocks that only root may use are on neither side, so that a disk is full when its
//! users see it full.

use std::collections::HashSet;
use std::time::Duration;

use super::collector::Part;
use super::config::HostConfig;
use super::error::{Error, is_gone};
use super::mount::{parse, watched};
use super::series::Out;
use super::statvfs::{Answer, DEADLINE, Prober, Space, StatVfs, WORKERS_MAX};
use super::text::printable;
use super::tree::{Tree, read_bytes};

/// The first sample must not wait for a dead mount.
const FIRST_PATIENCE: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(super) struct Disks {
    fstypes_exclude: Vec<String>,
    mounts_exclude: Vec<String>,
    /// The file as it was when `disks` was made of it: it is parsed again only when it changes.
    mountinfo: Vec<u8>,
    malformed: bool,
    disks: Vec<Disk>,
    too_many: bool,
    prober: Prober,
    begun: Result<(), Error>,
    patience: Duration,
    noticed: HashSet<String>,
}

/// One watched file system, with its labels.
#[derive(Debug)]
struct Disk {
    point: std::path::PathBuf,
    mount: String,
    device: String,
    fstype: String,
    /// All three, because another device at the same place is another object.
    key: String,
}

impl Disks {
    pub(super) fn new(config: &HostConfig, statvfs: StatVfs) -> Self {
        Self {
            fstypes_exclude: config.disk_fstypes_exclude.clone(),
            mounts_exclude: config.disk_mounts_exclude.clone(),
            mountinfo: Vec::new(),
            malformed: false,
            disks: Vec::new(),
            too_many: false,
            prober: Prober::new(statvfs),
            begun: Ok(()),
            patience: FIRST_PATIENCE,
            noticed: HashSet::new(),
        }
    }

    fn list(&mut self, tree: &Tree) -> Result<(), Error> {
        let path = tree.proc("self/mountinfo");
        let mountinfo = read_bytes(&path)?;
        if mountinfo != self.mountinfo {
            let (mounts, malformed) = parse(&mountinfo);
            if mounts.is_empty() {
                return Err(Error::malformed(&path, "mounts"));
            }
            let mut list = watched(&mounts, &self.fstypes_exclude, &self.mounts_exclude);
            self.too_many = list.len() > WORKERS_MAX;
            list.truncate(WORKERS_MAX);
            self.disks = list
                .into_iter()
                .map(|m| {
                    let mount = printable(m.point.as_os_str().as_encoded_bytes());
                    let key = [mount.as_str(), &m.source, &m.fstype].join("\n");
                    Disk { point: m.point, mount, device: m.source, fstype: m.fstype, key }
                })
                .collect();
            self.mountinfo = mountinfo;
            self.malformed = malformed > 0;
        }
        if self.malformed { Err(Error::malformed(&path, "line")) } else { Ok(()) }
    }

    /// Gives or takes back the notice about one mount.
    fn tell(&mut self, message: String, wrong: bool, mend: &str, out: &mut Out<'_>) {
        if wrong {
            out.notice(&message, mend);
            self.noticed.insert(message);
        } else if self.noticed.remove(&message) {
            out.mended(&message);
        }
    }
}

impl Part for Disks {
    fn name(&self) -> &'static str {
        "disks"
    }

    fn begin(&mut self, tree: &Tree) {
        self.begun = self.list(tree);
        self.prober.ask(self.disks.iter().map(|d| d.point.as_path()));
    }

    fn collect(&mut self, _tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        self.prober.wait(self.patience);
        self.patience = DEADLINE;
        let disks = std::mem::take(&mut self.disks);
        for disk in &disks {
            let labels = [("mount", &*disk.mount), ("device", &*disk.device), ("fstype", &*disk.fstype)];
            let answer = self.prober.answer(&disk.point);
            let stalled = matches!(answer, Answer::Stalled);
            let refused = matches!(&answer, Answer::Space(Err(e)) if e.kind() == std::io::ErrorKind::PermissionDenied);
            match answer {
                Answer::Space(Ok(space)) if space.size == 0 => {}
                Answer::Space(Ok(space)) => {
                    let mut object = out.object(&disk.key, &labels);
                    object.set("host_disk_stalled", 0.0);
                    for (metric, value) in metrics(&space).into_iter().flatten() {
                        object.set(metric, value as f64);
                    }
                }
                Answer::Space(Err(e)) => {
                    out.unknown(&disk.key);
                    if !is_gone(&e) {
                        out.error(&Error::io(&disk.point, e));
                    }
                }
                Answer::Stalled => {
                    out.object(&disk.key, &labels).set("host_disk_stalled", 1.0);
                    out.unknown(&disk.key);
                }
                Answer::Pending => out.unknown(&disk.key),
            }
            let message = format!("the file system at {} does not answer", disk.mount);
            self.tell(message, stalled, "look for a dead disk or server behind it, or unmount it (umount -l)", out);
            let message = format!("the file system at {} may not be read", disk.mount);
            self.tell(message, refused, "run as a user who may enter the directories above it", out);
        }
        self.disks = disks;
        let message = format!("there are more than {WORKERS_MAX} file systems, and the rest is not watched");
        self.tell(message, self.too_many, "leave some out with host.disk_mounts_exclude", out);
        std::mem::replace(&mut self.begun, Ok(()))
    }
}

/// Returns the metrics of a file system: three of its space, and two of its inodes when it counts them.
fn metrics(space: &Space) -> [Option<(&'static str, u64)>; 5] {
    let used = space.size.saturating_sub(space.free);
    let files = |metric, value| (space.files > 0).then_some((metric, value));
    [
        Some(("host_disk_used_bytes", used)),
        Some(("host_disk_limit_bytes", used.saturating_add(space.available))),
        Some(("host_disk_size_bytes", space.size)),
        files("host_disk_inodes_used", space.files.saturating_sub(space.files_free)),
        files("host_disk_inodes_limit", space.files),
    ]
}

#[cfg(test)]
mod tests;

//! How much memory this process may have, and how much it has.

use std::fs;
use std::path::{Path, PathBuf};

/// The part of it that `limits.memory` is by default. The rest is for buffers of sockets, which the kernel holds, and for what
/// grows between two looks.
const DEFAULT_PERCENT: usize = 70;

/// The default of `limits.memory`; `None` where the system does not tell.
pub fn default_limit() -> Option<usize> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemTotal"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| group_limit(&fs::read_to_string(path).ok()?));
    Some(limits.chain(machine).min()? / 100 * DEFAULT_PERCENT)
}

/// Bytes that this process has in memory and that cannot be read again from a file; `None` where the system does not tell.
pub fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    field(&status, "RssAnon").or_else(|| field(&status, "VmRSS"))
}

/// A line such as `MemTotal:  24684084 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<usize> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// Where the limits of these control groups may be, versions 2 and 1. Groups above count too, and in a container the own group
/// may be at the top.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

/// `max`, and in version 1 a number near the largest, mean that there is none.
fn group_limit(text: &str) -> Option<usize> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_of_both_versions() {
        let files = |groups| limit_files(groups).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(files("0::/"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            files("0::/a.slice/b.scope\n"),
            [
                "/sys/fs/cgroup/a.slice/b.scope/memory.max",
                "/sys/fs/cgroup/a.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            files("5:cpu,memory:/docker/x\n1:name=systemd:/y"),
            [
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!((group_limit("536870912\n"), group_limit("max\n")), (Some(536_870_912), None));
    }

    #[test]
    fn this_machine_has_some() {
        assert_eq!(field("a: 1 kB\nRssAnon:\t     12 kB\n", "RssAnon"), Some(12_288));
        assert_eq!(field("VmRSS: x kB", "VmRSS"), None);
        assert!(
            default_limit().is_some_and(|limit| limit > 1 << 20) && resident().is_some_and(|bytes| bytes > 1 << 16)
        );
    }
}

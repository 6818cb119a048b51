//! Who listens on a TCP port: the kernel's list in `/proc/net/tcp` (proc(5)), and the process that
//! holds the socket.

use std::fs;
use std::path::Path;

use super::Tools;
use crate::agent::facts::{Listener, Runtime};

/// State of a listening socket in the list.
const LISTEN: &str = "0A";

/// Those of `ports` that are taken, on whatever address.
pub fn find(tools: &Tools, runtime: Option<&Runtime>, ports: &[u16]) -> Vec<Listener> {
    let lists = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let taken: Vec<(u16, String)> = lists
        .iter()
        .flatten()
        .flat_map(|list| sockets(list))
        .collect();
    let mut containers = None;
    let mut listeners = Vec::new();
    for &port in ports {
        let Some((_, inode)) = taken.iter().find(|(taken, _)| *taken == port) else {
            continue;
        };
        let process = holder(inode);
        let cgroup = process.as_ref().and_then(|process| read(process, "cgroup"));
        let container = cgroup.and_then(|cgroup| {
            let list = || runtime.and_then(|runtime| list_containers(tools, runtime));
            let all = containers.get_or_insert_with(list).as_ref()?;
            container_of(&cgroup, all)
        });
        listeners.push(Listener {
            port,
            program: process.and_then(|process| read(&process, "comm")),
            container,
        });
    }
    listeners
}

/// Port and inode of the listening sockets in a list.
fn sockets(list: &str) -> Vec<(u16, String)> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let inode = (*fields.get(9)?).to_owned();
        (*fields.get(3)? == LISTEN).then_some((port, inode))
    };
    list.lines().filter_map(socket).collect()
}

/// The directory in `/proc` of a process that holds the socket; only root sees those of others.
fn holder(inode: &str) -> Option<std::path::PathBuf> {
    let wanted = format!("socket:[{inode}]");
    let holds = |process: &Path| {
        let files = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target == Path::new(&wanted))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .map(|entry| entry.path())
        .find(|process| process.join("fd").is_dir() && holds(process))
}

fn read(process: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(process.join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// `ID NAME` lines of the containers that run.
fn list_containers(tools: &Tools, runtime: &Runtime) -> Option<String> {
    tools.output(&[
        &runtime.command,
        "ps",
        "--no-trunc",
        "--format",
        "{{.ID}} {{.Names}}",
    ])
}

/// The name of the container whose id stands in the path of the control group.
fn container_of(cgroup: &str, containers: &str) -> Option<String> {
    let mut lines = containers.lines().filter_map(|line| line.split_once(' '));
    let (_, name) = lines.find(|(id, _)| !id.is_empty() && cgroup.contains(id))?;
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_found_in_the_kernels_list() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \u{20}  0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
             \u{20}  1: 0100007F:0016 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n";
        assert_eq!(sockets(list), [(8000, "4711".to_owned())]);
        let six = "   0: 00000000000000000000000000000000:18EB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0";
        assert_eq!(sockets(six), [(6379, "7".to_owned())]);
    }

    #[test]
    fn a_container_is_known_by_its_control_group() {
        let containers = "aa11 web\nbb22 bundle-x\n";
        let name = |cgroup| container_of(cgroup, containers);
        assert_eq!(name("0::/docker/bb22").as_deref(), Some("bundle-x"));
        assert_eq!(
            name("0::/machine.slice/libpod-aa11.scope/container").as_deref(),
            Some("web")
        );
        assert_eq!(name("0::/user.slice"), None);
        assert_eq!(container_of("0::/x", " name"), None);
    }
}

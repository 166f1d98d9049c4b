//! Whether a process is the broker: it listens where the broker is reached.
//!
//! The costs of another process, such as the shell that started the broker, would look like those
//! of a very cheap one.

use crate::run::RunError;
use std::collections::BTreeSet;
use std::fs;

/// Refuses a process that listens on none of the ports of `addresses` (HOST:PORT). One whose ports
/// cannot be told, because it is another user's or has a network of its own, passes.
pub fn check(pid: u32, addresses: &[&str]) -> Result<(), RunError> {
    if !fs::exists(format!("/proc/{pid}/task")).unwrap_or(false) {
        return Err(RunError::Pid(pid));
    }
    let Some(ports) = ports_of(pid) else { return Ok(()) };
    let port = |address: &&str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let wanted: BTreeSet<u16> = addresses.iter().filter_map(port).collect();
    if wanted.is_empty() || !wanted.is_disjoint(&ports) {
        return Ok(());
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let words = |ports: &BTreeSet<u16>| -> String {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        if ports.is_empty() { "nowhere".to_owned() } else { format!("on {}", ports.join(", ")) }
    };
    Err(RunError::Options(format!(
        "process {pid} ({}) is not the broker: it listens {}, the broker {}; its costs would say \
         nothing",
        name.trim(),
        words(&ports),
        words(&wanted)
    )))
}

/// The TCP ports that a process listens on; `None` when that cannot be told.
fn ports_of(pid: u32) -> Option<BTreeSet<u16>> {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let is_ours = network("self")? == network(&pid.to_string())?;
    let links = fs::read_dir(format!("/proc/{pid}/fd")).ok().filter(|_| is_ours)?;
    let sockets: BTreeSet<String> = links
        .flatten()
        .filter_map(|link| fs::read_link(link.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.replace(']', "")))
        .collect();
    let tables = ["tcp", "tcp6"].map(|kind| fs::read_to_string(format!("/proc/{pid}/net/{kind}")));
    let listening = tables.iter().flatten().flat_map(|table| table.lines()).filter_map(listener);
    Some(listening.filter(|(_, inode)| sockets.contains(*inode)).map(|(port, _)| port).collect())
}

/// Port and inode of a line of /proc/net/tcp, if it is a listening socket.
fn listener(line: &str) -> Option<(u16, &str)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (_, port) = address.rsplit_once(':').filter(|_| *state == LISTEN)?;
    Some((u16::from_str_radix(port, 16).ok()?, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_listens_elsewhere_or_nowhere_is_not_the_broker() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let me = std::process::id();
        assert!(check(me, &["10.0.0.1:1", &address]).is_ok());
        let elsewhere = check(me, &["127.0.0.1:1"]).expect_err("nobody listens there");
        assert!(elsewhere.to_string().contains("the broker on 1;"), "{elsewhere}");
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().expect("it is there");
        let nowhere = check(cat.id(), &[&address]).expect_err("it listens nowhere");
        assert!(nowhere.to_string().contains("(cat) is not the broker: it listens nowhere"));
        cat.kill().and_then(|()| cat.wait()).expect("it is ours");
        assert!(matches!(check(u32::MAX, &[&address]), Err(RunError::Pid(u32::MAX))));
    }
}

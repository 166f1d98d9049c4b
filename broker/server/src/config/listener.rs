//! Addresses: where the broker listens, and what it tells its clients.

use super::broker::Layers;
use super::key::split_list;
use super::settings::ConfigError;

/// One named address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// In upper case, as Kafka keeps it.
    pub name: String,
    /// Empty in `listeners`: all interfaces.
    pub host: String,
    /// 0 in `listeners`: any free port, which is then the advertised one too.
    pub port: u16,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Listener { name, host, port } = self;
        let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(out, "{name}://{}{host}{}:{port}", brackets.0, brackets.1)
    }
}

/// The addresses of a broker. Both lists have the same names in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// To bind, without those of the controller.
    pub bound: Vec<Listener>,
    /// To tell clients; the port is 0 where the bound one is 0.
    pub advertised: Vec<Listener>,
    /// Name of the listener other brokers would use: one of `bound`.
    pub inter_broker: String,
}

/// `NAME://host:port`, with `[v6]` hosts.
fn parse(text: &str) -> Option<Listener> {
    let (name, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if name.is_empty() || (bare.is_none() && host.contains([':', '[', ']'])) {
        return None;
    }
    let host = bare.unwrap_or(host).to_owned();
    Some(Listener { name: name.to_ascii_uppercase(), host, port: port.parse().ok()? })
}

fn parse_all(layers: &Layers, key: &str, text: &str) -> Result<Vec<Listener>, ConfigError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for element in split_list(text) {
        let refused = |reason: &str| layers.settings.refuse(key, element, reason);
        let listener =
            parse(element).ok_or_else(|| refused("an address has the form NAME://host:port"))?;
        if listeners.iter().any(|other| other.name == listener.name) {
            return Err(refused("each listener name may stand there once"));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Address from the keys that came before `listeners`.
fn from_old_keys(layers: &Layers, host: &str, port: &str) -> Result<Option<Listener>, ConfigError> {
    let setting = |key| layers.settings.get(key).map(|setting| setting.value.clone());
    let (host, port_text) = (setting(host), setting(port));
    if host.is_none() && port_text.is_none() {
        return Ok(None);
    }
    let port_text = port_text.unwrap_or_else(|| "9092".into());
    let number =
        port_text.parse().map_err(|_| layers.settings.refuse(port, &port_text, "not a port"))?;
    Ok(Some(Listener { name: "PLAINTEXT".into(), host: host.unwrap_or_default(), port: number }))
}

/// Reads all keys about addresses. `hostname` is this machine's name, told to clients where a
/// listener is bound to all interfaces and nothing is advertised.
pub(super) fn read(layers: &Layers, hostname: &str) -> Result<Listeners, ConfigError> {
    let text = |key: &str| layers.value(key).unwrap_or_default().into_owned();
    let of_controller: Vec<String> =
        split_list(&text("controller.listener.names")).map(str::to_ascii_uppercase).collect();
    let is_ours = |listener: &Listener| !of_controller.contains(&listener.name);

    let is_set = layers.settings.get("listeners").is_some();
    let is_told = layers.settings.get("advertised.listeners").is_some();
    let old = from_old_keys(layers, "host.name", "port")?.filter(|_| !is_set);
    let mut bound = match old {
        Some(listener) => vec![listener],
        // Whoever tells clients an address wants to be reached, as from outside a container.
        None if is_told && !is_set => parse_all(layers, "listeners", "PLAINTEXT://:9092")?,
        None => parse_all(layers, "listeners", &text("listeners"))?,
    };
    bound.retain(is_ours);
    if bound.is_empty() {
        let reason = "at least one listener for clients is needed";
        return Err(layers.settings.refuse("listeners", &text("listeners"), reason));
    }
    check_protocols(layers, &bound, &text("listener.security.protocol.map"))?;

    let old = from_old_keys(layers, "advertised.host.name", "advertised.port")?;
    let mut given = match text("advertised.listeners") {
        text if !text.is_empty() => parse_all(layers, "advertised.listeners", &text)?,
        _ => old.into_iter().collect(),
    };
    given.retain(is_ours);
    check_advertised(layers, &bound, &given)?;
    let advertised = bound
        .iter()
        .map(|bound| {
            let found = given.iter().find(|listener| listener.name == bound.name);
            let mut told = found.unwrap_or(bound).clone();
            if is_all_interfaces(&told.host) {
                told.host = hostname.to_owned();
            }
            told
        })
        .collect();
    let inter_broker = match text("inter.broker.listener.name").to_ascii_uppercase() {
        name if name.is_empty() => bound[0].name.clone(),
        name if bound.iter().any(|listener| listener.name == name) => name,
        name => {
            return Err(layers.settings.refuse("inter.broker.listener.name", &name, NO_SUCH_NAME));
        }
    };
    Ok(Listeners { bound, advertised, inter_broker })
}

const NO_SUCH_NAME: &str = "listeners has no listener of this name";

fn is_all_interfaces(host: &str) -> bool {
    matches!(host, "" | "0.0.0.0" | "::")
}

fn check_protocols(layers: &Layers, bound: &[Listener], map: &str) -> Result<(), ConfigError> {
    for listener in bound {
        let protocol = split_list(map)
            .filter_map(|pair| pair.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case(&listener.name))
            .map(|(_, protocol)| protocol.trim().to_ascii_uppercase());
        let reason = match protocol.as_deref() {
            Some("PLAINTEXT") => continue,
            Some(other) => format!("security protocol {other} is not built yet"),
            None => format!("{} is missing in listener.security.protocol.map", listener.name),
        };
        return Err(layers.settings.refuse("listeners", &listener.to_string(), reason));
    }
    Ok(())
}

fn check_advertised(
    layers: &Layers,
    bound: &[Listener],
    given: &[Listener],
) -> Result<(), ConfigError> {
    for listener in given {
        let reason = if !listener.host.is_empty() && is_all_interfaces(&listener.host) {
            "clients cannot connect to the address of all interfaces"
        } else if !bound.iter().any(|bound| bound.name == listener.name) {
            NO_SUCH_NAME
        } else {
            continue;
        };
        return Err(layers.settings.refuse("advertised.listeners", &listener.to_string(), reason));
    }
    Ok(())
}

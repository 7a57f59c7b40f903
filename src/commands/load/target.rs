//! Who the load goes to: a server that was named, or the hub that other commands find, whose devices
//! are made where they are missing.

use std::sync::Arc;

use dunlin_chaos::hub::Hub as Reader;
use dunlin_chaos::load::dial::{Door, Wrapping};
use dunlin_chaos::load::plan::Client;
use dunlin_chaos::load::schedule::Share;
use dunlin_chaos::load::template::{self, Template};
use dunlin_chaos::load::trust;
use dunlin_gateway::websocket::WEBSOCKET_PATH;
use dunlin_model::id::DeviceId;

use super::options::Server;
use crate::commands::hub::{self, Hub, HubArgs};
use crate::commands::{CommandError, device};

/// A server with everything that clients need to come to it.
pub(super) struct Target {
    /// As it is shown.
    pub(super) name: String,
    pub(super) doors: Vec<Door>,
    pub(super) wrapping: Wrapping,
    pub(super) clients: Vec<Client>,
    /// The hub, if it is one of ours.
    pub(super) hub: Option<Hub>,
}

/// How a server is reached, before anybody comes to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Hosts, with their ports where these are not the usual one.
    pub(super) hosts: Vec<(String, Option<u16>)>,
    pub(super) tls: bool,
    /// The path of a WebSocket.
    pub(super) websocket: Option<String>,
}

impl Address {
    pub(super) fn of(server: &Server) -> Option<Self> {
        (!server.host.is_empty()).then(|| Self {
            hosts: server
                .host
                .iter()
                .map(|host| (host.clone(), server.port))
                .collect(),
            tls: server.tls,
            websocket: server.ws.then(|| server.ws_path.clone()),
        })
    }

    /// Reads `mqtt://host:port`, `mqtts://`, `ws://host:port/path` or `wss://`; the nodes of a cluster,
    /// which are used in turn, stand side by side as `host:port+host:port`.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or("a target is `dunlin`, or a URL like mqtt://host:1883")?;
        let (tls, is_websocket) = match scheme {
            "mqtt" | "tcp" => (false, false),
            "mqtts" | "ssl" | "tls" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            other => return Err(format!("{other}:// is none of mqtt, mqtts, ws and wss")),
        };
        let (authority, path) = match rest.find('/') {
            Some(place) => rest.split_at(place),
            None => (rest, ""),
        };
        let hosts: Vec<(String, Option<u16>)> = authority
            .split('+')
            .map(|node| (hub::host_of(node).to_owned(), hub::port_of(node)))
            .collect();
        let is_named = hosts.iter().all(|(host, _)| !host.is_empty());
        if !is_named || (!is_websocket && path.len() > 1) {
            return Err(format!("{url} is no address of a server"));
        }
        let path = if path.is_empty() { "/mqtt" } else { path };
        Ok(Self {
            hosts,
            tls,
            websocket: is_websocket.then(|| path.to_owned()),
        })
    }

    fn doors(&self) -> Vec<Door> {
        let usual = match (&self.websocket, self.tls) {
            (None, false) => 1883,
            (None, true) => 8883,
            (Some(_), false) => 80,
            (Some(_), true) => 443,
        };
        let door = |(host, port): &(String, Option<u16>)| Door {
            host: host.clone(),
            port: port.unwrap_or(usual),
        };
        self.hosts.iter().map(door).collect()
    }
}

/// The clients of one generator, `share` of `server.clients`, with what `introduce` gives each.
fn clients(
    server: &Server,
    share: Share,
    (names, topic): (&Template, &Template),
    introduce: impl Fn(u64, &str) -> Result<(Option<String>, Option<String>), CommandError>,
) -> Result<Vec<Client>, CommandError> {
    (0..server.clients)
        .filter(|index| share.has(*index))
        .map(|index| {
            let id = client_id(names, index);
            let (username, password) = introduce(index, &id)?;
            let own = template::Client {
                index: index + 1,
                client_id: &id,
                username: username.as_deref().unwrap_or_default(),
            };
            Ok(Client {
                index,
                topic: topic.of_client(own),
                door: usize::try_from(index).unwrap_or_default(),
                id,
                username,
                password,
            })
        })
        .collect()
}

/// What clients are called: as was said, or with `prefix` and their number.
fn names(server: &Server, prefix: &str) -> Result<Template, CommandError> {
    match &server.client_id {
        Some(template) => Ok(template.clone()),
        None => template::parse_client_id(&format!("{prefix}-%i")).map_err(super::options::usage),
    }
}

fn client_id(names: &Template, index: u64) -> String {
    let own = template::Client {
        index: index + 1,
        client_id: "",
        username: "",
    };
    let mut id = String::new();
    names.of_client(own).write(&mut id, 0);
    id
}

/// A server that was named.
pub(super) fn broker(
    server: &Server,
    address: &Address,
    share: Share,
    topic: &Template,
) -> Result<Target, CommandError> {
    let config = if !address.tls {
        None
    } else if server.insecure {
        Some(trust::anybody().map_err(|error| CommandError::Failed(format!("set up TLS: {error}")))?)
    } else {
        let trusted = trust::authorities(server.cafile.as_deref());
        Some(trusted.map_err(|error| CommandError::Failed(error.to_string()))?)
    };
    let doors = address.doors();
    let how = match (&address.websocket, address.tls) {
        (None, false) => "",
        (None, true) => " over TLS",
        (Some(_), false) => " over WebSocket",
        (Some(_), true) => " over WebSocket and TLS",
    };
    let addresses: Vec<String> = doors.iter().map(Door::address).collect();
    // A server ends the connection of whoever comes with a name that is in use.
    let names = names(server, &format!("load-{:08x}", rand::random::<u32>()))?;
    let introduce = |_, _: &str| Ok((server.username.clone(), server.password.clone()));
    Ok(Target {
        name: format!("{}{how}", addresses.join(", ")),
        doors,
        wrapping: Wrapping {
            tls: config,
            websocket: address.websocket.clone(),
        },
        clients: clients(server, share, (&names, topic), introduce)?,
        hub: None,
    })
}

/// The hub that other commands find, with a device for each client.
pub(super) async fn hub(
    server: &Server,
    args: &HubArgs,
    share: Share,
    topic: Option<&Template>,
) -> Result<Target, CommandError> {
    let hub = Hub::find(args)?;
    let doors = hub
        .gateways()
        .iter()
        .map(|door| {
            let address = if server.plain {
                let plain = door.mqtt.as_deref();
                plain.ok_or_else(|| CommandError::Failed("this hub has no MQTT without TLS".into()))?
            } else if server.ws {
                &door.https
            } else {
                &door.mqtts
            };
            let port = hub::port_of(address);
            Ok(Door {
                host: hub::host_of(address).to_owned(),
                port: port.ok_or_else(|| CommandError::Failed(format!("{address} has no port")))?,
            })
        })
        .collect::<Result<Vec<_>, CommandError>>()?;
    if doors.is_empty() {
        return Err(CommandError::Failed("this hub has no gateway".into()));
    }
    let devices = names(server, "load")?;
    let ids = (0..server.clients)
        .filter(|index| share.has(*index))
        .map(|index| {
            DeviceId::parse(&client_id(&devices, index))
                .map_err(|error| CommandError::Usage(error.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let found = device::ensure(&hub, &ids).await?;
    let created = found.iter().filter(|(_, created)| *created).count();
    if created > 0 {
        eprintln!("Created {}.", device::counted(created as u64));
    }
    let keys: std::collections::HashMap<&str, &str> = found
        .iter()
        .map(|(found, _)| (found.device_id.as_str(), found.key()))
        .collect();
    let own_topic;
    let topic = match topic {
        Some(topic) => topic,
        None => {
            own_topic = Template::parse("devices/%c/messages/events/").map_err(super::options::usage)?;
            &own_topic
        }
    };
    let introduce = |index: u64, id: &str| {
        let place = usize::try_from(index).unwrap_or_default() % doors.len();
        let key = keys.get(id).copied().unwrap_or_default();
        let device = DeviceId::parse(id).map_err(|error| CommandError::Usage(error.to_string()))?;
        let (username, token) = hub.introduction(&hub.gateways()[place], &device, key)?;
        Ok((Some(username), Some(token)))
    };
    let how = if server.plain {
        ""
    } else if server.ws {
        " over WebSocket and TLS"
    } else {
        " over TLS"
    };
    let names: Vec<String> = doors.iter().map(Door::address).collect();
    Ok(Target {
        name: format!("Dunlin at {}{how}", names.join(", ")),
        clients: clients(server, share, (&devices, topic), introduce)?,
        wrapping: Wrapping {
            tls: (!server.plain).then(|| Arc::clone(hub.trust())),
            websocket: server.ws.then(|| WEBSOCKET_PATH.to_owned()),
        },
        doors,
        hub: Some(hub),
    })
}

/// The hub's side on which messages are read back.
pub(super) fn reader(hub: &Hub) -> Result<Reader, CommandError> {
    let nodes = hub.gateways().iter().map(|door| door.https.clone()).collect();
    Reader::of_nodes(nodes, hub.trust(), hub.authorization()?)
        .map_err(|error| CommandError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address = |text| Address::parse(text).unwrap();
        let doors = |text| -> Vec<String> { address(text).doors().iter().map(Door::address).collect() };
        assert_eq!(doors("mqtt://broker"), ["broker:1883"]);
        assert_eq!(doors("mqtts://[::1]:9000"), ["[::1]:9000"]);
        assert_eq!(doors("mqtts://h"), ["h:8883"]);
        assert_eq!(doors("mqtt://a:1+b:2+c"), ["a:1", "b:2", "c:1883"]);
        assert!(!address("mqtt://h").tls && address("wss://h").tls);
        assert_eq!(address("ws://h:8080/x/y").websocket.as_deref(), Some("/x/y"));
        assert_eq!(address("wss://h").websocket.as_deref(), Some("/mqtt"));
        for nonsense in [
            "h:1883",
            "http://h",
            "mqtt://",
            "mqtt://h/path",
            "mqtt://:1",
            "mqtt://a+",
        ] {
            assert!(Address::parse(nonsense).is_err(), "{nonsense}");
        }
    }
}

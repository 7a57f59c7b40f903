//! The addresses of this door: which nodes there are, and which one a link means.
//!
//! Decides nothing about who may have a link. Each kind of node is a file of its own: [`cbs`](super::cbs),
//! [`management`](super::management), [`devicebound`](super::devicebound), [`feedback`](super::feedback),
//! [`partition`](super::partition).

use dunlin_model::directory::is_plain_name;

use crate::feedback::Kind;

/// Characters of a consumer group's name.
const GROUP_CHARS_MAX: usize = 50;

/// What a link is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// `$cbs`: takes tokens.
    Cbs,
    /// `$management`: tells of the hub and of partitions.
    Management,
    /// `/messages/devicebound`: takes messages to devices.
    DeviceBound,
    /// `/messages/serviceBound/feedback`: tells how messages to devices ended; `../filenotifications`: which files
    /// they have uploaded.
    Feedback(Kind),
    /// `{hub}/ConsumerGroups/{group}/Partitions/{partition}`: events.
    Partition(PartitionAddress),
}

/// The address of a partition, as a reader spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionAddress {
    /// Segments of the hub's name; any will do.
    hub: Vec<String>,
    /// The consumer group; any will do.
    pub(crate) group: String,
    /// What should be the number of a shard.
    pub(crate) partition: String,
}

impl Node {
    /// Reads an address, with or without scheme and host.
    pub(crate) fn parse(address: &str) -> Option<Node> {
        let segments = segments(address);
        match segments.as_slice() {
            ["$cbs"] => Some(Self::Cbs),
            [.., "$management"] => Some(Self::Management),
            [messages, bound]
                if messages.eq_ignore_ascii_case("messages") && bound.eq_ignore_ascii_case("devicebound") =>
            {
                Some(Self::DeviceBound)
            }
            [messages, bound, feedback]
                if messages.eq_ignore_ascii_case("messages")
                    && bound.eq_ignore_ascii_case("servicebound")
                    && feedback.eq_ignore_ascii_case("feedback") =>
            {
                Some(Self::Feedback(Kind::Feedback))
            }
            [messages, bound, files]
                if messages.eq_ignore_ascii_case("messages")
                    && bound.eq_ignore_ascii_case("servicebound")
                    && files.eq_ignore_ascii_case("filenotifications") =>
            {
                Some(Self::Feedback(Kind::Files))
            }
            [hub @ .., groups, group, partitions, partition]
                if !hub.is_empty()
                    && groups.eq_ignore_ascii_case("consumergroups")
                    && partitions.eq_ignore_ascii_case("partitions")
                    && is_group(group) =>
            {
                Some(Self::Partition(PartitionAddress {
                    hub: hub.iter().map(|segment| (*segment).to_owned()).collect(),
                    group: (*group).to_owned(),
                    partition: (*partition).to_owned(),
                }))
            }
            _ => None,
        }
    }
}

impl PartitionAddress {
    /// What a token must cover, in the spellings that clients' tokens have.
    pub(crate) fn resources(&self) -> [Vec<&str>; 2] {
        ["consumergroups", "ConsumerGroups"].map(|groups| {
            let mut path: Vec<&str> = self.hub.iter().map(String::as_str).collect();
            path.extend([groups, &self.group, "Partitions", &self.partition]);
            path
        })
    }
}

/// Splits an address into segments, leaving scheme and host out.
pub(crate) fn segments(address: &str) -> Vec<&str> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

fn is_group(name: &str) -> bool {
    name.eq_ignore_ascii_case("$default") || is_plain_name(name, GROUP_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_spelling() {
        assert_eq!(Node::parse("$cbs"), Some(Node::Cbs));
        assert_eq!(Node::parse("amqps://hub.example/$cbs"), Some(Node::Cbs));
        assert_eq!(Node::parse("$management"), Some(Node::Management));
        assert_eq!(Node::parse("hub/$management"), Some(Node::Management));
        for address in [
            "amqps://hub.example/messages/devicebound",
            "/messages/deviceBound",
        ] {
            assert_eq!(Node::parse(address), Some(Node::DeviceBound), "{address}");
        }
        assert_eq!(
            Node::parse("/messages/serviceBound/feedback"),
            Some(Node::Feedback(Kind::Feedback))
        );
        for address in [
            "/messages/serviceBound/filenotifications",
            "amqps://hub.example/messages/servicebound/fileNotifications",
        ] {
            let files = Some(Node::Feedback(Kind::Files));
            assert_eq!(Node::parse(address), files, "{address}");
        }
        for address in [
            "amqps://hub.example:5671/hub/ConsumerGroups/$Default/Partitions/3",
            "hub/consumergroups/$Default/partitions/3",
            "/hub/ConsumerGroups/$Default/Partitions/3/",
        ] {
            let Some(Node::Partition(found)) = Node::parse(address) else {
                panic!("{address}");
            };
            assert_eq!(
                (found.group.as_str(), found.partition.as_str()),
                ("$Default", "3")
            );
            assert_eq!(found.hub, ["hub"]);
        }
        let own = Node::parse("/messages/events/ConsumerGroups/a.b_c-1/Partitions/x");
        let Some(Node::Partition(found)) = own else {
            panic!("{own:?}");
        };
        assert_eq!(
            found.resources()[0],
            [
                "messages",
                "events",
                "consumergroups",
                "a.b_c-1",
                "Partitions",
                "x"
            ]
        );
    }

    #[test]
    fn what_is_no_node_is_none() {
        for address in [
            "",
            "/",
            "$cbs/more",
            "hub",
            "ConsumerGroups/$Default/Partitions/3",
            "hub/ConsumerGroups/a b/Partitions/3",
            "hub/ConsumerGroups/$other/Partitions/3",
            "hub/ConsumerGroups/$Default/Partitions",
            &format!("hub/ConsumerGroups/{}/Partitions/3", "g".repeat(51)),
        ] {
            assert_eq!(Node::parse(address), None, "{address}");
        }
    }
}

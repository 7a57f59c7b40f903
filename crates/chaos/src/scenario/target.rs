//! Whom a fault meets: a selector of a scenario, and the nodes that it names just then.
//!
//! Pure: takes what the cluster said last and a draw. Whether the choice may be made is decided in
//! [`crate::run`], which knows what is damaged already.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

/// Which nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one that leads most shards.
    MostLeaders,
    /// The one that leads fewest.
    Follower,
    /// The one that leads the directory.
    DirectoryLeader,
    /// Any one.
    Random,
    /// This one, from 0.
    Node(usize),
    /// As many as leave a majority of nodes, drawn.
    Minority,
    /// Half of the nodes, rounded down, drawn.
    Half,
    /// As many as make a majority of nodes, drawn.
    Majority,
    /// All.
    All,
    /// None: the fault is about the cluster.
    Cluster,
}

impl Target {
    /// How many nodes of `node_count` it names.
    pub fn count(self, node_count: usize) -> usize {
        match self {
            Target::Cluster => 0,
            Target::All => node_count,
            Target::Minority => node_count.saturating_sub(1) / 2,
            Target::Half => node_count / 2,
            Target::Majority => node_count / 2 + 1,
            _ => 1.min(node_count),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "most-leaders" => Target::MostLeaders,
            "follower" => Target::Follower,
            "directory-leader" => Target::DirectoryLeader,
            "random" => Target::Random,
            "minority" => Target::Minority,
            "half" => Target::Half,
            "majority" => Target::Majority,
            "all" => Target::All,
            "cluster" => Target::Cluster,
            _ => {
                let number = text
                    .strip_prefix("node-")
                    .and_then(|number| number.parse::<usize>().ok());
                match number {
                    Some(number) if number > 0 => Target::Node(number - 1),
                    _ => {
                        return Err(format!(
                            "'{text}' is none of most-leaders, follower, directory-leader, random, minority, \
                             half, majority, all, cluster, node-1, node-2, ..."
                        ));
                    }
                }
            }
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::MostLeaders => "most-leaders",
            Target::Follower => "follower",
            Target::DirectoryLeader => "directory-leader",
            Target::Random => "random",
            Target::Minority => "minority",
            Target::Half => "half",
            Target::Majority => "majority",
            Target::All => "all",
            Target::Cluster => "cluster",
            Target::Node(node) => return write!(f, "node-{}", node + 1),
        })
    }
}

/// What one knows of the nodes that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// Places of the nodes that run and keep messages, and the shards that each leads.
    pub nodes: Vec<(usize, Vec<u32>)>,
    /// Who leads the directory.
    pub directory_leader: Option<usize>,
}

impl Candidates {
    /// Shards that a node leads.
    pub fn led_by(&self, node: usize) -> &[u32] {
        let found = self.nodes.iter().find(|(place, _)| *place == node);
        found.map_or(&[], |(_, led)| led)
    }

    /// The nodes that a target names, none if there is no such node.
    pub fn choose(&self, target: Target, random: &mut StdRng) -> Vec<usize> {
        let places = || self.nodes.iter().map(|(place, _)| *place);
        let by_leads = |(place, led): &&(usize, Vec<u32>)| (led.len(), std::cmp::Reverse(*place));
        let one = match target {
            Target::Cluster => None,
            Target::MostLeaders => self.nodes.iter().max_by_key(by_leads).map(|(place, _)| *place),
            Target::Follower => self.nodes.iter().min_by_key(by_leads).map(|(place, _)| *place),
            Target::DirectoryLeader => self
                .directory_leader
                .filter(|leader| places().any(|p| p == *leader)),
            Target::Random if self.nodes.is_empty() => None,
            Target::Random => places().nth(random.random_range(0..self.nodes.len())),
            Target::Node(node) => places().find(|place| *place == node),
            Target::Minority | Target::Half | Target::Majority | Target::All => {
                let mut chosen: Vec<usize> = places().collect();
                chosen.shuffle(random);
                chosen.truncate(target.count(self.nodes.len()));
                return chosen;
            }
        };
        one.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn targets_are_read_and_written() {
        for text in [
            "most-leaders",
            "follower",
            "directory-leader",
            "random",
            "minority",
            "half",
            "majority",
            "all",
            "cluster",
            "node-2",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["", "node-0", "node-x", "everybody"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_target_names_the_nodes_that_it_means() {
        let candidates = Candidates {
            nodes: vec![(0, vec![1]), (1, vec![2, 3]), (2, vec![])],
            directory_leader: Some(2),
        };
        let choose = |target| candidates.choose(target, &mut StdRng::seed_from_u64(4));
        assert_eq!(choose(Target::MostLeaders), [1]);
        assert_eq!(choose(Target::Follower), [2]);
        assert_eq!(choose(Target::DirectoryLeader), [2]);
        assert_eq!(choose(Target::Node(0)), [0]);
        assert!(choose(Target::Node(7)).is_empty());
        assert!(choose(Target::Cluster).is_empty());
        assert_eq!(choose(Target::Random).len(), 1);
        assert_eq!(choose(Target::Majority).len(), 2);
        assert_eq!(choose(Target::Minority).len(), 1);
        for (nodes, minority, half, majority) in [(1, 0, 0, 1), (3, 1, 1, 2), (4, 1, 2, 3), (5, 2, 2, 3)] {
            let counts = [Target::Minority, Target::Half, Target::Majority].map(|target| target.count(nodes));
            assert_eq!(counts, [minority, half, majority], "of {nodes}");
        }
        let mut all = choose(Target::All);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!(candidates.led_by(1), [2, 3]);
        assert!(
            Candidates::default()
                .choose(Target::Random, &mut StdRng::seed_from_u64(4))
                .is_empty()
        );
    }
}

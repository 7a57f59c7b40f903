//! Which links a fault of the network meets, from the places of its nodes.
//!
//! Pure: takes an order and how many nodes there are. What is done to the links is in [`super::network`].

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::Order;
use crate::relay::carrier::Ends;

/// Which links, from the view of an order's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All from and to them.
    Both,
    /// Those between them and all others; among themselves they are as before.
    Sides,
    /// Those from them, or those to them, as it is told.
    OneWay,
    /// Those between all others.
    Others,
    /// Those between nodes that are not near each other in a ring that is drawn. Each node still reaches a
    /// majority, and no two reach the same.
    Ring,
    /// All there are.
    All,
}

impl Reach {
    /// The links that an order meets, of all those between `count` nodes.
    pub(super) fn links(self, order: &Order, count: usize) -> Vec<Ends> {
        let ring = Ring::draw(count, order.seed);
        let meets = |(from, to): &Ends| {
            let (is_from, is_to) = (order.nodes.contains(from), order.nodes.contains(to));
            match self {
                Reach::Both => is_from || is_to,
                Reach::Sides => is_from != is_to,
                Reach::OneWay if order.told("inbound") == 1 => is_to && !is_from,
                Reach::OneWay => is_from && !is_to,
                Reach::Others => !is_from && !is_to,
                Reach::Ring => !ring.are_near(*from, *to),
                Reach::All => true,
            }
        };
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to).filter(meets).collect()
    }
}

/// Nodes around a table.
struct Ring {
    /// The seat of each node.
    seats: Vec<usize>,
    /// Seats that are near, to either side: so many that they and one's own are a majority.
    reach: usize,
}

impl Ring {
    fn draw(count: usize, seed: u64) -> Ring {
        let mut seats: Vec<usize> = (0..count).collect();
        seats.shuffle(&mut StdRng::seed_from_u64(seed));
        Ring {
            seats,
            reach: (count / 2).div_ceil(2),
        }
    }

    fn are_near(&self, one: usize, other: usize) -> bool {
        let apart = self.seats[one].abs_diff(self.seats[other]);
        apart.min(self.seats.len() - apart) <= self.reach
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn order(nodes: &[usize], with: &[(&'static str, u64)], seed: u64) -> Order {
        Order {
            nodes: nodes.to_vec(),
            for_ms: 0,
            with: with.iter().copied().collect(),
            seed,
        }
    }

    /// Whom a node still reaches, itself included.
    fn view(links: &[Ends], node: usize, count: usize) -> BTreeSet<usize> {
        (0..count).filter(|to| !links.contains(&(node, *to))).collect()
    }

    #[test]
    fn sides_are_cut_off_from_each_other_and_whole_within() {
        let links = Reach::Sides.links(&order(&[1, 3], &[], 0), 5);
        for (node, side) in [
            (1, vec![1, 3]),
            (3, vec![1, 3]),
            (0, vec![0, 2, 4]),
            (4, vec![0, 2, 4]),
        ] {
            assert_eq!(view(&links, node, 5), side.into_iter().collect());
        }
        // Cut off each by itself, the two would not reach each other either.
        let links = Reach::Both.links(&order(&[1, 3], &[], 0), 5);
        assert_eq!(view(&links, 1, 5), [1].into());
    }

    #[test]
    fn one_way_and_others_are_what_their_names_say() {
        let heard = Reach::OneWay.links(&order(&[1], &[("inbound", 1)], 0), 3);
        assert_eq!(heard, [(0, 1), (2, 1)]);
        let told = Reach::OneWay.links(&order(&[1], &[("inbound", 0)], 0), 3);
        assert_eq!(told, [(1, 0), (1, 2)]);
        assert_eq!(Reach::Others.links(&order(&[1], &[], 0), 3), [(0, 2), (2, 0)]);
        assert_eq!(Reach::All.links(&order(&[], &[], 0), 3).len(), 6);
    }

    #[test]
    fn in_a_ring_each_reaches_a_majority_and_no_two_the_same() {
        for count in [4, 5, 7, 9] {
            let links = Reach::Ring.links(&order(&[0], &[], 7), count);
            let views: BTreeSet<_> = (0..count).map(|node| view(&links, node, count)).collect();
            assert_eq!(views.len(), count, "two of {count} see the same");
            for view in views {
                assert!(
                    view.len() > count / 2 && view.len() < count,
                    "{view:?} of {count}"
                );
            }
            assert!(
                links.iter().all(|(from, to)| links.contains(&(*to, *from))),
                "both ways"
            );
        }
        let drawn: BTreeSet<_> = (0..20)
            .map(|seed| Reach::Ring.links(&order(&[0], &[], seed), 5))
            .collect();
        assert!(drawn.len() > 5, "another seed has another ring");
        assert_eq!(
            Reach::Ring.links(&order(&[0], &[], 7), 3),
            [],
            "three are too few"
        );
    }
}

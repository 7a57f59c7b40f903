//! When messages are due: plain arithmetic, so that a load that falls behind stays on schedule.
//!
//! Message `m` of a run is due at `m * period_ns / messages` after its start, and belongs to client
//! `m % clients`. So a client's messages are evenly spaced, no two clients send at the same moment, and
//! several generators that know the same numbers share one schedule without talking to each other. An
//! open-loop load sends at these times whatever was answered; latencies are counted from here.

/// The schedule of a whole run, all generators together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// So many messages are due ..
    messages: u64,
    /// .. in so many nanoseconds.
    period_ns: u64,
    clients: u64,
    /// Messages of the whole run, if they are bounded.
    count_max: u64,
}

impl Schedule {
    /// `rate` messages per second of all clients together; `rate` and `clients` are at least 1.
    pub fn of_rate(rate: u64, clients: u64, count_max: Option<u64>) -> Self {
        Self::new(rate, 1_000_000_000, clients, count_max)
    }

    /// One message of each client per `interval_ns`; both are at least 1.
    pub fn of_interval(interval_ns: u64, clients: u64, count_max: Option<u64>) -> Self {
        Self::new(clients, interval_ns, clients, count_max)
    }

    fn new(messages: u64, period_ns: u64, clients: u64, count_max: Option<u64>) -> Self {
        assert!(
            messages > 0 && period_ns > 0 && clients > 0,
            "a schedule of nothing"
        );
        Self {
            messages,
            period_ns,
            clients,
            count_max: count_max.unwrap_or(u64::MAX),
        }
    }

    /// Messages per second.
    pub fn per_s(&self) -> f64 {
        self.messages as f64 * 1e9 / self.period_ns as f64
    }

    /// When message `number` (from 0) of client `client` (from 0) is due, in nanoseconds after the start;
    /// `None` if the run has fewer.
    pub fn due_ns(&self, client: u64, number: u64) -> Option<u64> {
        self.at_ns(number.checked_mul(self.clients)?.checked_add(client)?)
    }

    /// When message `message` (from 0) of all clients together is due, in the same way.
    pub fn at_ns(&self, message: u64) -> Option<u64> {
        if message >= self.count_max {
            return None;
        }
        let due_ns = u128::from(message) * u128::from(self.period_ns) / u128::from(self.messages);
        u64::try_from(due_ns).ok()
    }
}

/// Messages of one client when a bounded number is dealt out to all of them.
pub fn share_of(count_max: u64, clients: u64, client: u64) -> u64 {
    count_max / clients + u64::from(client < count_max % clients)
}

/// Which of several generators this is; together they have every client once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: u64,
    count: u64,
}

impl Share {
    /// The only one.
    pub const ALL: Share = Share { index: 0, count: 1 };

    /// Reads `2/3`: the second of three.
    pub fn parse(text: &str) -> Result<Share, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(index, count)| Some((index.parse::<u64>().ok()?, count.parse::<u64>().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Share {
                index: index - 1,
                count,
            }),
            _ => Err("which of how many, like 2/3".into()),
        }
    }

    /// Whether a client is this generator's.
    pub fn has(&self, client: u64) -> bool {
        client % self.count == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_times_do_not_drift() {
        // A rate that no nanosecond divides.
        let schedule = Schedule::of_rate(3, 1, None);
        assert_eq!(schedule.due_ns(0, 0), Some(0));
        assert_eq!(schedule.due_ns(0, 1), Some(333_333_333));
        for second in [1, 60, 86_400, 365 * 86_400] {
            assert_eq!(schedule.due_ns(0, 3 * second), Some(second * 1_000_000_000));
        }
    }

    #[test]
    fn clients_take_turns_and_no_message_is_due_twice_or_never() {
        let schedule = Schedule::of_rate(1000, 7, Some(100));
        let mut all: Vec<u64> = (0..7)
            .flat_map(|client| (0..20).filter_map(move |number| schedule.due_ns(client, number)))
            .collect();
        all.sort_unstable();
        let expected: Vec<u64> = (0..100).map(|message| message * 1_000_000).collect();
        assert_eq!(all, expected);
        let in_turn: Vec<u64> = (0..).map_while(|message| schedule.at_ns(message)).collect();
        assert_eq!(in_turn, expected);
        assert_eq!(schedule.due_ns(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn an_interval_is_that_of_each_client() {
        let schedule = Schedule::of_interval(10_000_000, 4, None);
        assert_eq!(schedule.per_s(), 400.0);
        assert_eq!(schedule.due_ns(0, 1), Some(10_000_000));
        assert_eq!(schedule.due_ns(1, 0), Some(2_500_000));
    }

    #[test]
    fn generators_share_clients_without_gap_or_overlap() {
        let shares: Vec<Share> = ["1/3", "2/3", "3/3"]
            .iter()
            .map(|text| Share::parse(text).unwrap())
            .collect();
        for client in 0..100 {
            assert_eq!(shares.iter().filter(|share| share.has(client)).count(), 1);
        }
        assert!(Share::ALL.has(5) && Share::parse("1/1") == Ok(Share::ALL));
        for nonsense in ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"] {
            assert!(Share::parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_count_is_dealt_out_evenly() {
        let shares: Vec<u64> = (0..4).map(|client| share_of(10, 4, client)).collect();
        assert_eq!(shares, [3, 3, 2, 2]);
    }
}

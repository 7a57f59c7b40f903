//! Attackers together: who they are, which door each of them goes to, and that they are let loose and held back
//! as one. The run of [`super`] has one crowd for all its rounds; a fault of a scenario has its own.

use std::sync::Arc;

use dunlin_gateway::client::Transport;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::attack::{Insider, Order, attack};
use super::count::Counters;
use super::kind::Kind;
use super::pace::Pace;

/// Devices that all attackers of a take-over fight for.
const FOUGHT_OVER: usize = 4;
/// File descriptors that this process needs besides those of its attackers.
const DESCRIPTORS_BESIDES: u64 = 200;

/// Where attackers go, and as whom they speak.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The gateways.
    pub targets: Vec<Transport>,
    /// The hub's name in user names.
    pub host: String,
    /// Devices that are registered for them. Those that never let go need one each, or they throw each other out.
    pub insiders: Vec<Insider>,
}

/// What a crowd is told.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What they do; it is shared out evenly.
    pub kinds: &'a [Kind],
    /// How many they are, which is connections at one time.
    pub attackers: usize,
    /// Draws what they send.
    pub seed: u64,
    /// Packets of all of them together.
    pub packets_max: u64,
    /// How fast all of them together may send; as fast as they can without it.
    pub pace: Option<Pace>,
}

/// Attackers that are let loose together. Dropping it ends them.
pub struct Crowd {
    counters: Arc<Counters>,
    pace: Option<Arc<Pace>>,
    loose: watch::Sender<bool>,
    attackers: JoinSet<()>,
}

impl Crowd {
    /// Gathers them; they are held back at first. Without gateways or devices there is nobody.
    pub fn gather(ground: &Ground, plan: Plan<'_>) -> Crowd {
        let counters = Arc::new(Counters::default());
        let pace = plan.pace.map(Arc::new);
        let (loose, seen) = watch::channel(false);
        let mut attackers = JoinSet::new();
        for place in 0..plan.attackers {
            let Some((kind, target, insider)) = post(ground, plan.kinds, place) else {
                break;
            };
            let order = Order {
                kind,
                target: target.clone(),
                host: ground.host.clone(),
                insider: insider.clone(),
                seed: plan.seed ^ (place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                counters: Arc::clone(&counters),
                packets_max: plan.packets_max,
                pace: pace.clone(),
            };
            attackers.spawn(attack(order, seen.clone()));
        }
        Crowd {
            counters,
            pace,
            loose,
            attackers,
        }
    }

    /// Lets them loose.
    pub fn let_loose(&self) {
        if let Some(pace) = &self.pace {
            pace.begin();
        }
        self.loose.send_replace(true);
    }

    /// Holds them back: they drop what they are at, and their connections with it.
    pub fn hold_back(&self) {
        self.loose.send_replace(false);
    }

    /// What they have done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sends them away and returns when all are gone, which no hub can hold up: whatever they wait for, they give it up.
    /// What they have done is what they leave.
    pub async fn end(self) -> Arc<Counters> {
        let Crowd {
            counters,
            loose,
            mut attackers,
            ..
        } = self;
        drop(loose);
        while attackers.join_next().await.is_some() {}
        counters
    }
}

/// What the attacker in this place does, and where, and as whom. Those of one kind go round the gateways; in a
/// take-over as many fight for a device as there are gateways, each from another.
fn post<'a>(ground: &'a Ground, kinds: &[Kind], place: usize) -> Option<(Kind, &'a Transport, &'a Insider)> {
    let Ground {
        targets, insiders, ..
    } = ground;
    if kinds.is_empty() || targets.is_empty() || insiders.is_empty() {
        return None;
    }
    let kind = kinds[place % kinds.len()];
    let of_kind = place / kinds.len();
    let insider = match kind {
        Kind::TakeOver => of_kind / targets.len() % FOUGHT_OVER,
        _ => place,
    };
    Some((
        kind,
        &targets[of_kind % targets.len()],
        &insiders[insider % insiders.len()],
    ))
}

/// Why this process has no room for so many connections, if it has none.
pub(crate) fn no_room_for(attackers: usize) -> Option<String> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let wanted = attackers as u64 + DESCRIPTORS_BESIDES;
    limit.filter(|limit| *limit < wanted).map(|limit| {
        format!("this process may open {limit} files and needs {wanted}: raise it with `ulimit -n`")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::hostile::kind::KINDS;

    fn ground(addresses: &[String]) -> Ground {
        Ground {
            targets: addresses
                .iter()
                .map(|address| Transport::Tcp {
                    address: address.clone(),
                })
                .collect(),
            host: "localhost".into(),
            insiders: (0..64)
                .map(|place| Insider {
                    device: format!("insider-{place}"),
                    token: String::new(),
                })
                .collect(),
        }
    }

    fn address(target: &Transport) -> &str {
        match target {
            Transport::Tcp { address } => address,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_kind_comes_to_each_gateway_and_those_who_hold_on_are_different_devices() {
        let ground = ground(&["a".into(), "b".into(), "c".into()]);
        let all: Vec<Kind> = KINDS.iter().map(|(_, kind)| *kind).collect();
        for kinds in [&all[..], &all[..1], &all[..2], &[Kind::TakeOver]] {
            let posts: Vec<_> = (0..12 * kinds.len())
                .map(|place| post(&ground, kinds, place).unwrap())
                .collect();
            for kind in kinds {
                let of_kind = posts.iter().filter(|(one, ..)| one == kind);
                let doors: BTreeSet<&str> = of_kind.clone().map(|(_, target, _)| address(target)).collect();
                assert_eq!(doors.len(), 3, "{kind:?}");
                let devices: BTreeSet<&str> = of_kind.map(|(.., insider)| insider.device.as_str()).collect();
                if *kind == Kind::TakeOver {
                    assert_eq!(devices.len(), FOUGHT_OVER);
                } else if kinds.len() == 1 {
                    assert_eq!(devices.len(), 12, "{kind:?}");
                }
            }
        }
        let nobody = Ground {
            targets: Vec::new(),
            ..ground
        };
        assert!(post(&nobody, &all, 0).is_none());
    }

    /// The kernel may have accepted a connection before its attacker knows of it.
    async fn wait_until_held(crowd: &Crowd) {
        while crowd.counters().held() == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Accepts one connection and reads until its end: whether that was a RST. Nothing of one that says more than the
    /// beginning of a handshake, since it may wait for an answer.
    async fn meet(listener: &TcpListener) -> Option<bool> {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = 0;
        loop {
            match stream.read(&mut [0; 1024]).await {
                Ok(0) => return Some(false),
                Ok(more) => bytes += more,
                Err(error) => return Some(error.kind() == std::io::ErrorKind::ConnectionReset),
            }
            if bytes > 16 {
                return None;
            }
        }
    }

    fn crowd(listener: &TcpListener, kind: Kind) -> Crowd {
        let ground = ground(&[listener.local_addr().unwrap().to_string()]);
        Crowd::gather(
            &ground,
            Plan {
                kinds: &[kind],
                attackers: 1,
                seed: 1,
                packets_max: u64::MAX,
                pace: None,
            },
        )
    }

    #[tokio::test]
    async fn a_crowd_comes_when_it_is_let_loose_and_is_gone_when_it_is_sent_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let crowd = crowd(&listener, Kind::HalfOpen);
        crowd.let_loose();
        let (mut stream, _) = listener.accept().await.unwrap();
        wait_until_held(&crowd).await;
        crowd.hold_back();
        // Nobody closed it here: that it ends is the attacker's doing.
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(crowd.counters().connections_of(Kind::HalfOpen), 1);
        crowd.let_loose();
        let again = listener.accept().await.unwrap();
        wait_until_held(&crowd).await;
        let counters = crowd.end().await;
        assert_eq!((counters.held(), counters.counted().connections), (0, 2));
        drop(again);
    }

    #[tokio::test]
    async fn a_reset_is_a_reset_and_a_half_close_an_end_that_leaves_the_other_side_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let resets = crowd(&listener, Kind::Reset);
        resets.let_loose();
        let mut ended_by_reset = None;
        while ended_by_reset.is_none() {
            ended_by_reset = meet(&listener).await;
        }
        assert_eq!(ended_by_reset, Some(true));
        resets.end().await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let half = crowd(&listener, Kind::HalfClose);
        half.let_loose();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // A stranger says FIN at once; a device would say CONNECT first.
            if stream.read(&mut [0; 1]).await.unwrap() > 0 {
                continue;
            }
            assert_eq!(half.counters().held(), 1, "it has not closed");
            assert_eq!(half.counters().counted().closed, 0);
            break;
        }
        half.end().await;
    }
}

//! Connections whose session is over, kept for a while for the next one on the same container: an operation that follows
//! another is spared the handshake, which takes longer than most phases.
//!
//! Guarantees: there are never more than [`LIMIT`]; none is kept longer than [`LASTS`]; what is taken has not been seen to
//! end. Nothing runs on the node for them: an agent waits there for its next request.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

use pallet_core::session::Meant;

use super::{send, tasks::Spawner};
use crate::transport::Channel;
use pallet_core::target::Target;

/// How many are kept at once, over all nodes.
const LIMIT: usize = 32;
/// How long one is kept.
const LASTS: Duration = Duration::from_secs(60);
/// How long an agent that was kept may take to answer. A new connection is cheaper than more patience.
const ANSWER: Duration = Duration::from_secs(2);

/// Where a connection leads to. It is good for that alone: whoever is to log in as another user, or with another key, does
/// not go by one that was opened before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The UID of the GroupNode.
    pub node: String,
    /// What is meant to be there.
    pub incarnation: Meant,
    /// How it is reached.
    pub target: Target,
}

/// Connections without a session.
#[derive(Clone, Default)]
pub struct Warm(Arc<Mutex<VecDeque<Kept>>>);

struct Kept {
    place: Place,
    since: Instant,
    channel: Channel,
}

impl Warm {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock()
    }

    /// Keeps a connection whose agent waits for a request.
    pub fn keep(&self, place: Place, channel: Channel, tasks: &Spawner) {
        let since = Instant::now();
        let mut surplus = Vec::new();
        {
            let mut kept = self.kept();
            // One connection to a container is enough.
            while let Some(at) = kept.iter().position(|other| other.place == place) {
                surplus.extend(kept.remove(at));
            }
            if kept.len() >= LIMIT {
                surplus.extend(kept.pop_front());
            }
            kept.push_back(Kept { place, since, channel });
        }
        surplus.into_iter().for_each(|kept| part(kept.channel, tasks));
        let (warm, own) = (self.clone(), tasks.clone());
        tasks.spawn(async move {
            tokio::time::sleep(LASTS).await;
            let late: Vec<Kept> = {
                let mut kept = warm.kept();
                let (late, rest): (VecDeque<Kept>, VecDeque<Kept>) =
                    kept.drain(..).partition(|kept| kept.since.elapsed() >= LASTS);
                *kept = rest;
                late.into_iter().collect()
            };
            late.into_iter().for_each(|kept| part(kept.channel, &own));
        });
    }

    /// The connection to a container, where one is kept and its agent answers `hello`. Returned with what it has said.
    pub async fn take(&self, place: &Place, hello: &[u8]) -> Option<(Channel, Vec<u8>)> {
        let mut channel = {
            let mut kept = self.kept();
            let at = kept.iter().position(|other| other.place == *place)?;
            kept.remove(at)?.channel
        };
        if (&mut channel.closed).now_or_never().is_some() {
            return None;
        }
        send(&mut channel, hello).await.ok()?;
        let mut said = vec![0; 16 << 10];
        match timeout(ANSWER, channel.output.read(&mut said)).await {
            Ok(Ok(n @ 1..)) => {
                said.truncate(n);
                Some((channel, said))
            }
            _ => None,
        }
    }
}

/// Ends a connection in the background: nobody waits for the agent's farewell.
pub fn part(mut channel: Channel, tasks: &Spawner) {
    tasks.spawn(async move {
        let _ = send(&mut channel, b"bye\n").await;
        let _ = timeout(Duration::from_secs(2), channel.closed).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run::tasks::Tasks, transport::Closed};
    use pallet_core::target::Container;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    /// A connection and the agent's end of it. `over` tells whether it is known to have ended.
    fn connection(over: bool) -> (Channel, DuplexStream) {
        let (near, far) = duplex(1024);
        let (output, input) = tokio::io::split(near);
        let ended = Closed::new(false, "");
        let closed = if over { std::future::ready(ended).boxed() } else { std::future::pending().boxed() };
        (Channel { input: Box::new(input), output: Box::new(output), closed, guard: Box::new(()) }, far)
    }

    fn place(instance: &str) -> Place {
        let container = Container { namespace: "shop".into(), pod: "web-0".into(), container: "main".into() };
        Place {
            node: "node".into(),
            incarnation: Meant { uid: "pod".into(), instance: instance.into(), told: "pod".into() },
            target: Target::Container(container),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_kept_is_taken_once_and_for_its_own_container_only() {
        let (tasks, warm) = (Tasks::default(), Warm::default());
        let (channel, mut agent) = connection(false);
        warm.keep(place("a"), channel, &tasks.spawner());
        assert!(warm.take(&place("b"), b"hello\n").await.is_none(), "another container");
        agent.write_all(b"n hello w\n").await.unwrap();
        let (_channel, said) = warm.take(&place("a"), b"hello\n").await.unwrap();
        assert_eq!(said, b"n hello w\n");
        assert!(warm.take(&place("a"), b"hello\n").await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_ended_or_does_not_answer_is_none() {
        let (tasks, warm) = (Tasks::default(), Warm::default());
        let (ended, _agent) = connection(true);
        warm.keep(place("a"), ended, &tasks.spawner());
        assert!(warm.take(&place("a"), b"hello\n").await.is_none());
        let (silent, _agent) = connection(false);
        warm.keep(place("a"), silent, &tasks.spawner());
        assert!(warm.take(&place("a"), b"hello\n").await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_kept_for_long_and_the_oldest_goes_first() {
        let (tasks, warm) = (Tasks::default(), Warm::default());
        let mut agents = Vec::new();
        for n in 0..=LIMIT {
            let (channel, agent) = connection(false);
            warm.keep(place(&n.to_string()), channel, &tasks.spawner());
            agents.push(agent);
        }
        assert_eq!(warm.kept().len(), LIMIT);
        assert!(warm.kept().iter().all(|kept| kept.place != place("0")));
        let mut told = [0; 4];
        agents[0].read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"bye\n");
        tokio::time::sleep(LASTS + Duration::from_secs(1)).await;
        assert_eq!(warm.kept().len(), 0);
        agents[5].read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"bye\n");
    }
}

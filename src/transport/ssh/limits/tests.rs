use futures::{FutureExt, poll};
use std::pin::pin;

use super::*;

const HANDSHAKES: Limit = Limit { all: 8, each: 4, few: 1, common: 6 };

fn host(last: u8) -> Address {
    Address::Host(SocketAddr::from(([10, 0, 0, last], 22)))
}

fn limits() -> Arc<Limits> {
    Limits::new(HANDSHAKES)
}

fn connect(limits: &Arc<Limits>, namespace: &str, address: Address) -> Option<AddressPermit> {
    limits.address(namespace, address).now_or_never().flatten()
}

fn shake(limits: &Arc<Limits>, namespace: &str) -> Option<HandshakePermit> {
    limits.handshake(namespace, None).granted().now_or_never().and_then(|grant| grant.handshake)
}

#[test]
fn a_namespace_has_its_limit_and_the_last_permits_are_for_those_that_hold_few() {
    let limits = limits();
    let mut held = Vec::new();
    for (namespace, expected) in [("a", 4), ("b", 2), ("c", 1), ("d", 1), ("e", 0)] {
        let got: Vec<_> = (0..9).map_while(|_| shake(&limits, namespace)).collect();
        assert_eq!(got.len(), expected, "{namespace}");
        held.extend(got);
    }
    drop(held);
    assert_eq!(limits.len(), 0);
}

#[test]
fn an_address_is_shared_by_more_namespaces_than_one_can_fill() {
    let limits = limits();
    let first: Vec<_> = ["a", "a", "a", "b", "b", "b"].map(|it| connect(&limits, it, host(1))).into();
    assert_eq!(first.iter().flatten().count(), 4, "two each");
    let others: Vec<_> = ["c", "d", "e", "f", "g"].map(|it| connect(&limits, it, host(1))).into();
    assert_eq!(others.iter().flatten().count(), 4, "eight in all");
    assert!(connect(&limits, "a", host(2)).is_some());
    drop((first, others));
    assert_eq!(limits.len(), 0);
}

/// The first has many requests, and they are older.
#[tokio::test]
async fn namespaces_take_turns() {
    let limits = limits();
    let mut held: Vec<_> = (0..8).map(|n| connect(&limits, &format!("x{n}"), host(1)).unwrap()).collect();
    let mut greedy: Vec<_> = (0..4).map(|_| Box::pin(limits.address("a", host(1)))).collect();
    for request in &mut greedy {
        assert!(poll!(request).is_pending());
    }
    let mut modest = [Box::pin(limits.address("b", host(1))), Box::pin(limits.address("c", host(1)))];
    for request in &mut modest {
        assert!(poll!(request).is_pending());
    }
    drop(held.pop());
    let first = greedy.remove(0).now_or_never().expect("the oldest");
    // The permit that goes round is the same one: whoever has just had it waits for those that have not.
    drop(first);
    let [b, c] = modest;
    let b = b.now_or_never().expect("the one that was not served yet");
    assert!(poll!(&mut greedy[0]).is_pending());
    drop(b);
    let c = c.now_or_never().expect("the next");
    drop(c);
    assert!(greedy.remove(0).now_or_never().is_some());
}

/// Whoever waits for a handshake keeps nobody from the address that it is connected to.
#[tokio::test]
async fn a_connection_that_waits_for_a_handshake_is_revoked_for_one_that_needs_its_permit() {
    let limits = limits();
    let busy: Vec<_> = (0..4).map(|_| shake(&limits, "a").unwrap()).collect();
    let mut waiting: Vec<_> =
        (0..2).map(|_| limits.handshake("a", Some(connect(&limits, "a", host(1)).unwrap()))).collect();
    // Nobody needs it: the connections stay.
    let others: Vec<_> = (0..6).map(|n| connect(&limits, &format!("x{n}"), host(1)).unwrap()).collect();
    assert!(waiting.iter_mut().all(|it| it.is_revoked().now_or_never().is_none()));
    let more = [connect(&limits, "y", host(1)), connect(&limits, "z", host(1))];
    assert!(more.iter().all(Option::is_some), "permits that are parked are no others'");
    assert!(waiting.iter_mut().all(|it| it.is_revoked().now_or_never() == Some(true)));
    // Both are granted at once or not at all.
    let mut waiting = waiting.into_iter().map(|it| Box::pin(it.granted()));
    let (mut first, second) = (waiting.next().unwrap(), waiting.next().unwrap());
    drop((second, busy));
    assert!(poll!(&mut first).is_pending(), "the address is busy");
    drop(more);
    let grant = first.now_or_never().expect("both are free");
    assert!(grant.handshake.is_some() && grant.address.is_some());
    drop((grant, others));
    assert_eq!(limits.len(), 0);
}

#[tokio::test]
async fn a_parked_permit_stays_where_the_handshake_is_granted_and_goes_with_a_request_that_is_withdrawn() {
    let limits = limits();
    let busy: Vec<_> = (0..4).map(|_| shake(&limits, "a").unwrap()).collect();
    let mut waiting = limits.handshake("a", connect(&limits, "a", host(1)));
    assert!(poll!(pin!(waiting.is_revoked())).is_pending());
    drop(busy);
    assert!(!waiting.is_revoked().await);
    let grant = waiting.granted().await;
    assert!(grant.address.is_some());
    drop(grant);
    let busy: Vec<_> = (0..4).map(|_| shake(&limits, "a").unwrap()).collect();
    drop(limits.handshake("a", connect(&limits, "a", host(1))));
    drop(busy);
    assert_eq!(limits.len(), 0);
}

#[test]
fn a_handshake_that_lapsed_counts_for_its_own_namespace_alone() {
    let limits = limits();
    let mut held: Vec<_> = ["a", "a", "a", "a", "b", "b", "c", "d"].map(|it| shake(&limits, it).unwrap()).into();
    assert!(shake(&limits, "e").is_none());
    held[0].lapse();
    assert!(shake(&limits, "a").is_none());
    held.push(shake(&limits, "e").unwrap());
    drop(held);
    assert_eq!(limits.len(), 0);
}

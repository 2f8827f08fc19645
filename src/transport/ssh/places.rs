//! How many may be at something at once, by what it is.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places, so many for each key.
///
/// Guarantee: a key takes up memory only while somebody has a place of it or waits for one.
pub struct Places<K: Clone + Eq + Hash> {
    each: usize,
    keys: Mutex<HashMap<K, Key>>,
}

struct Key {
    places: Arc<Semaphore>,
    claims: usize,
}

/// A place, until it is dropped.
pub struct Place<K: Clone + Eq + Hash> {
    // Given back before the claim is, so that whoever waits is counted until then.
    _permit: Option<OwnedSemaphorePermit>,
    _claim: Claim<K>,
}

struct Claim<K: Clone + Eq + Hash> {
    all: Arc<Places<K>>,
    key: K,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// With so many places for `each` key.
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self { each, keys: Mutex::default() })
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<K, Key>> {
        // A panic while the map was held cannot have left it half changed: every change is one step.
        self.keys.lock()
    }

    /// Waits for a place, in order.
    pub async fn take(self: &Arc<Self>, key: K) -> Place<K> {
        let places = {
            let mut keys = self.keys();
            let entry = keys
                .entry(key.clone())
                .or_insert_with(|| Key { places: Arc::new(Semaphore::new(self.each)), claims: 0 });
            entry.claims += 1;
            entry.places.clone()
        };
        let claim = Claim { all: self.clone(), key };
        // The semaphore is never closed.
        let permit = places.acquire_owned().await.ok();
        Place { _permit: permit, _claim: claim }
    }

    /// How many keys somebody has or wants a place of.
    pub fn len(&self) -> usize {
        self.keys().len()
    }
}

impl<K: Clone + Eq + Hash> Drop for Claim<K> {
    fn drop(&mut self) {
        let mut keys = self.all.keys();
        if let Some(key) = keys.get_mut(&self.key) {
            key.claims -= 1;
            if key.claims == 0 {
                keys.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, poll};
    use std::pin::pin;

    #[tokio::test]
    async fn no_more_than_so_many_have_a_place_and_nothing_is_left_of_them() {
        let places = Places::new(2);
        let (first, second) = (places.take("a").await, places.take("a").await);
        let other = places.take("b").await;
        let mut third = pin!(places.take("a"));
        let mut given_up = Box::pin(places.take("a"));
        assert!(poll!(&mut third).is_pending() && poll!(&mut given_up).is_pending());
        drop(given_up);
        drop(first);
        let third = third.now_or_never().expect("a place was given back");
        assert_eq!(places.len(), 2);
        drop((second, third, other));
        assert_eq!(places.len(), 0);
    }
}

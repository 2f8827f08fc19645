//! Pure: what is remembered of a node between a session and the write of what it learned.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::End;
use crate::{
    plan::{
        Record, SessionView, Trouble,
        snapshot::{LONGEST_PAUSE, UNSETTLED_PAUSE},
    },
    target::Target,
    text,
};
use pallet_api::conditions::{MESSAGE_LIMIT, clip};
use pallet_api::reason::Reason;

/// What is remembered of a node beyond the cache. It is lost with the operator, and found again in the node's journal.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// What the last session learned and the cache does not show yet.
    unsaved: Option<Record>,
    /// Why the node could not be reached, and how often in a row.
    trouble: Option<(Trouble, u32)>,
    /// A session of this operator has taken over what the node's journal holds.
    read: bool,
}

/// What a snapshot takes over of a node.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The session in flight.
    pub session: Option<SessionView>,
    /// What is known and not written yet.
    pub unsaved: Option<Record>,
    /// Why the node could not be reached.
    pub trouble: Option<Trouble>,
    /// Whether a session of this operator has taken over what the node's journal holds.
    pub read: bool,
}

impl Memory {
    /// What a snapshot takes over.
    pub fn seen(&self, session: Option<SessionView>) -> Seen {
        let trouble = self.trouble.as_ref().map(|(trouble, _)| trouble.clone());
        Seen { session, unsaved: self.unsaved.clone(), trouble, read: self.read }
    }

    /// A session has taken over what the node's journal holds.
    pub fn has_read(&mut self) {
        self.read = true;
    }

    /// Takes over what a session knows. Says whether it was news.
    pub fn learn(&mut self, record: &Record) -> bool {
        let news = self.unsaved.as_ref() != Some(record);
        if news {
            self.unsaved = Some(record.clone());
        }
        news
    }

    /// The record was written, and the cache shows it.
    pub fn saved(&mut self, written: &Record) {
        if self.unsaved.as_ref() == Some(written) {
            self.unsaved = None;
        }
    }

    /// A session on a machine is over. Where that could not be reached, it is left alone for a while: 1 s at first, doubling
    /// while the same instance stays out of reach in the same way.
    pub fn finish(&mut self, instance: &str, target: &Target, end: End, now: Timestamp) {
        let same = |trouble: &Trouble| trouble.instance == instance && trouble.target == *target;
        let before = self.trouble.take().filter(|(trouble, _)| same(trouble));
        let (since, before) = before.map_or((now, 0), |(trouble, times)| (trouble.since, times));
        let (reason, message) = match end {
            End::Done | End::Stopped => return,
            End::Lost(message) => (Reason::ConnectionLost.into(), message),
            End::Refused { reason, message } => (reason, message),
            End::NotIdempotent { about, message } => {
                let until = now + SignedDuration::try_from(UNSETTLED_PAUSE).unwrap_or_default();
                let (reason, instance, target) = (Reason::NotIdempotent.into(), instance.to_owned(), target.clone());
                let message = clip(&message, MESSAGE_LIMIT);
                let trouble = Trouble { instance, target, reason, message, since, until, about: Some(about) };
                self.trouble = Some((trouble, before.saturating_add(1)));
                return;
            }
        };
        let pause = Duration::from_secs(1 << before.min(16)).min(LONGEST_PAUSE);
        let until = now + SignedDuration::try_from(pause).unwrap_or_default();
        let trouble = Trouble {
            instance: instance.to_owned(),
            target: target.clone(),
            reason: text::line(&reason, 64),
            message: clip(&text::printable(&message), MESSAGE_LIMIT),
            since,
            until,
            about: None,
        };
        self.trouble = Some((trouble, before.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Container;

    #[test]
    fn the_pause_grows_while_the_same_container_stays_out_of_reach() {
        let (mut memory, now) = (Memory::default(), Timestamp::from_second(1000).unwrap());
        let target = |pod: &str| {
            let container = Container { namespace: "shop".into(), pod: pod.into(), container: "main".into() };
            Target::Container(container)
        };
        let (here, there) = (target("web-0"), target("web-1"));
        let pause = |memory: &mut Memory, instance: &str, target: &Target| {
            memory.finish(instance, target, End::Lost("cut".into()), now);
            memory.seen(None).trouble.unwrap().until.duration_since(now).as_secs()
        };
        let pauses = [pause(&mut memory, "a", &here), pause(&mut memory, "a", &here), pause(&mut memory, "a", &here)];
        assert_eq!(pauses, [1, 2, 4]);
        assert_eq!(pause(&mut memory, "a", &there), 1, "another way there");
        assert_eq!(pause(&mut memory, "b", &there), 1, "another instance");
        memory.finish("b", &there, End::Done, now);
        assert!(memory.seen(None).trouble.is_none());
        assert_eq!(pause(&mut memory, "b", &there), 1);
    }

    #[test]
    fn only_what_was_written_is_forgotten() {
        let (mut memory, older) = (Memory::default(), Record::default());
        let newer = Record { facts: [("a".to_owned(), 1.into())].into(), ..Record::default() };
        assert!(memory.learn(&newer) && !memory.learn(&newer));
        memory.saved(&older);
        assert_eq!(memory.seen(None).unsaved, Some(newer.clone()));
        memory.saved(&newer);
        assert_eq!(memory.seen(None).unsaved, None);
    }
}

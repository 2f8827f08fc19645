//! What must hold after every step, and what must hold in the end. Numbers as in the project's list of invariants.

use std::{collections::BTreeSet, sync::Arc};

use pallet_api::{
    GroupNodeStatus, GroupSpecStatus,
    group_node::{self, Outcome},
    nodes::Retention,
};
use pallet_core::{
    plan::{Effect, Intervals, Node, Plan, Removal, Snapshot, Step, Subject, plan, progress::Cause, status},
    session::frame::Verdict,
};

use crate::{
    machine::Run,
    world::{GROUP, Link, World},
};

impl World {
    /// After every step.
    pub fn check(&self) {
        for (name, machine) in &self.machines {
            let active = machine.journal.iter().filter(|run| run.verdict.is_none()).count();
            assert!(active <= 1, "2: {active} runs overlap on {name}");
        }
    }

    /// 1: no creation raises the live nodes above the count that was read.
    pub fn check_creation(&self, of: &str) {
        let snapshot = self.operator.snapshots.get(of).expect("a plan before a creation");
        let own = self.cluster.nodes.objects.values().filter(|node| node.spec.group == of);
        let live = own.filter(|node| node.metadata.deletion_timestamp.is_none()).count();
        let group = snapshot.in_force().expect("a declaration");
        let most = (group.count + group.rollout.max_surge) as usize;
        assert!(live <= most, "1: {live} live nodes, {most} at most");
    }

    /// 3 and 5: what a run may follow on.
    pub fn check_start(&mut self, name: &str, machine: &str, run: &Run, script: &str) {
        if run.is_look() {
            assert!(script.starts_with("mode=check "), "a look would change {name}");
            self.count("looks");
            return;
        }
        self.count("runs");
        if let Some((phase, tag)) = run.phase.split_once(".lift.") {
            let (phase, tag) = (phase.to_owned(), tag.to_owned());
            self.check_lift_start(name, (machine, &run.life), &phase, &tag);
            return self.check_new(name, run);
        }
        if run.from > 0 {
            self.count("runs behind a manual step");
        }
        let machine = &self.machines[machine];
        let latest = |phase: &str| machine.latest(&run.life, phase);
        let phase = run.phase.as_str();
        let succeeded = machine.lived(&run.life).any(|other| other.phase == phase && other.succeeded());
        match phase {
            "bootstrap" | "install" | "destroy-server" => {
                assert!(!succeeded, "3: {phase} starts again on {name} after a success");
            }
            "settings" => {}
            _ => {
                let looks = format!("{phase}.check");
                let differs = |other: &Run| {
                    other.phase == looks && other.actions.iter().any(|a| a.result == group_node::Effect::Changed)
                };
                // What has succeeded last, and whether a look has found something since.
                let mut since = machine.lived(&run.life).rev().take_while(|other| other.phase != phase);
                let drifted = since.any(differs);
                // What a Lift has run since is no run of converge's: converge may go back to what it ran before.
                let same = |other: &Run| other.phase == phase && other.succeeded() && other.digest == run.digest;
                let again = latest(phase).is_some_and(same) && !drifted;
                if drifted {
                    self.totals.count("phases reapplied");
                }
                assert!(!again, "3: {phase} starts again on {name} with the digest that has succeeded last");
            }
        }
        assert!(phase != "bootstrap" || script.contains("bootstrap "), "the script is not that of its phase");
        if !matches!(phase, "bootstrap" | "destroy-server") {
            let farewell = latest("destroy-server").is_some() || self.leaves(name);
            assert!(
                latest("bootstrap").is_some_and(Run::succeeded) || farewell,
                "5: {phase} before bootstrap on {name}"
            );
        }
        if matches!(phase, "init" | "install" | "configure") {
            // A former leader may still be reading the facts beside this one.
            let read = latest("settings").is_some_and(Run::succeeded) || self.frozen.is_some();
            assert!(read, "5: {phase} before settings on {name}");
            assert!(latest("destroy-server").is_none(), "5: {phase} after destroy-server on {name}");
        }
        if phase == "configure" {
            let stopped = ["init", "install"].iter().find(|phase| latest(phase).is_some_and(|run| !run.succeeded()));
            assert_eq!(stopped, None, "5: configure after a phase that has failed on {name}");
        }
        if phase == "destroy-server" {
            assert!(self.leaves(name), "7: destroy-server on {name}, which stays");
            assert!(latest("settings").is_some(), "5: destroy-server before settings on {name}");
            self.count("farewells");
        }
        self.check_new(name, run);
    }

    /// 11: whoever leads next knows of every node on which something runs: its status does not speak of this life, or the group
    /// lists it. What a former leader does is over when its lease is; here it may still be going on.
    pub fn check_listed(&self, name: &str, link: &Link) {
        let of = name.rsplit_once('-').map_or(name, |(group, _)| group);
        let (Some(group), Some(node)) = (self.cluster.groups.objects.get(of), self.cluster.nodes.objects.get(name))
        else {
            return;
        };
        if self.former || self.frozen.is_some() || group.metadata.deletion_timestamp.is_some() {
            return;
        }
        let incarnation = node.status.as_ref().and_then(|status| status.incarnation.as_ref());
        // Of another start nobody thinks that it is converged, though its file system is the same.
        let trusted = incarnation.is_some_and(|met| met.filesystem_id == link.life && met.instance == link.instance);
        let listed = group.status.as_ref().map_or("", |status| &status.unconverged);
        assert!(!trusted || Intervals::of(listed).contain(node.spec.ordinal), "11: {name} is not listed in {listed:?}");
    }

    fn check_new(&mut self, name: &str, run: &Run) {
        match self.history.get(&(run.life.clone(), run.id.clone())) {
            Some(_) => panic!("run {} was started twice on {name}", run.id),
            None => self.tell(|| format!("{name}: {} attempt {} starts", run.phase, run.attempt)),
        }
    }

    /// Whether a node is being removed. Its machine may outlast it for a moment.
    fn leaves(&self, name: &str) -> bool {
        self.cluster.nodes.objects.get(name).is_none_or(|node| node.metadata.deletion_timestamp.is_some())
    }

    /// 6: nothing foreign is touched.
    pub fn check_ours(&self, name: &str, uid: &str) {
        let snapshot = self.operator.snapshots.get(GROUP).expect("a plan before a deletion");
        if let Some(pod) = self.cluster.pods.objects.get(name).filter(|pod| pod.metadata.uid.as_deref() == Some(uid)) {
            let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
            assert_eq!(owner.map(|owner| &owner.uid), Some(&snapshot.head.uid), "6: {name} is not the group's");
        }
    }

    /// 7: no victim without a reason, and none too many.
    pub fn check_plan(&mut self, snapshot: &Snapshot, planned: &Plan) {
        let surplus = planned
            .effects
            .iter()
            .filter(|effect| matches!(effect, Effect::DeleteNode { why: Removal::Surplus(_), .. }))
            .count();
        let live = snapshot.live().count();
        if surplus > 0 {
            let group = snapshot.group.as_ref().unwrap();
            let most = (group.count + group.rollout.max_surge) as usize;
            // Deletions without an answer are asked for again later.
            let now = |ordinal: u32| {
                let is_it =
                    |effect: &Effect| matches!(effect, Effect::DeleteNode { ordinal: other, .. } if *other == ordinal);
                planned.effects.iter().any(is_it)
            };
            let later = |node: &Node| {
                planned.refused.contains(&Subject::Removal(format!("GroupNode {}", node.name))) && !now(node.ordinal)
            };
            let left = live - surplus - snapshot.live().filter(|node| later(node)).count();
            let most = if group.needs_approval { live } else { most };
            assert!(
                (group.count as usize..=most).contains(&left),
                "7: {surplus} victims of {live} at {}: {:?}, refused {:?}",
                group.count,
                planned.effects,
                planned.refused
            );
        }
        if snapshot.group.as_ref().is_ok_and(|group| group.needs_approval) {
            for effect in &planned.effects {
                if let Effect::DeleteNode { ordinal, why: Removal::Surplus(_), .. } = effect
                    && !self.former
                {
                    let victims = snapshot.leave.victims.clone().unwrap_or_default();
                    assert!(victims.contains(ordinal), "7: nobody has approved that {ordinal} goes");
                }
            }
        }
        self.count_stops(planned);
        self.check_hosts(snapshot, planned);
        if self.plans_twice() {
            assert_eq!(plan(snapshot), *planned, "a plan is a function of its snapshot");
        }
    }

    /// Whether to plan a second time, to compare: in one of so many cases, since plans are what a seed spends its time on.
    pub fn plans_twice(&mut self) -> bool {
        self.plans += 1;
        self.plans.is_multiple_of(16)
    }

    /// 10: nothing is begun on a host that is known to be another's before this group's, and no host is taken twice.
    fn check_hosts(&mut self, snapshot: &Snapshot, planned: &Plan) {
        let own = |place: &str, but: u32| {
            let of =
                |node: &&Arc<Node>| snapshot.machine(node).is_some_and(|machine| machine.instance() == Some(place));
            snapshot.nodes.values().filter(of).any(|node| node.ordinal != but)
        };
        for effect in &planned.effects {
            match effect {
                Effect::StartSession { ordinal, .. } => {
                    let node = &snapshot.nodes[ordinal];
                    let Some(host) = &node.host else { continue };
                    let place = snapshot.machine(node).and_then(|machine| machine.instance()).expect("it runs");
                    assert!(!own(place, *ordinal), "10: two nodes at work on {place}");
                    let Some(other) = snapshot.occupied.get(place) else { continue };
                    // This group alone looks at its incarnations here; the others only ever took what they have.
                    let written = node.written().incarnation.as_ref();
                    let works = written.is_some_and(|incarnation| incarnation.instance == place);
                    let took = place == format!("{}:{}", host.address, host.port);
                    let first = took && (node.created, &node.uid) < (other.right.since, &other.right.node);
                    assert!(works || first, "10: {place} is {}", other.who);
                }
                Effect::TakeHost { host, .. } => {
                    let place = format!("{}:{}", host.address, host.port);
                    let taken = snapshot.occupied.contains_key(&place) || own(&place, u32::MAX);
                    assert!(!taken, "10: {place} is taken twice");
                }
                Effect::DeleteNode { why: Removal::HostInUse, .. } => self.count("hosts given way"),
                Effect::DeleteNode { why: Removal::HostWithdrawn, .. } => self.count("hosts let go"),
                _ => {}
            }
        }
        for step in planned.steps.values() {
            if matches!(step, Step::Await(Cause::MachineWaiting { reason, .. }) if reason == "HostInUse") {
                self.count("hosts waited for");
            }
        }
    }

    fn count_stops(&mut self, planned: &Plan) {
        for step in planned.steps.values() {
            match step {
                Step::Await(Cause::Barrier { .. }) => self.count("barriers"),
                Step::Await(Cause::Stopped { .. }) => self.count("rollouts stopped"),
                _ => {}
            }
        }
        for effect in &planned.effects {
            if matches!(effect, Effect::DeleteNode { why: Removal::Replaced { .. }, .. }) {
                self.count("nodes replaced");
            }
        }
    }

    /// 4: no status claims a success, or any other end, that no journal holds.
    pub fn check_status(&mut self, status: &GroupNodeStatus) {
        let filesystem_id = status.incarnation.as_ref().map(|i| i.filesystem_id.clone()).unwrap_or_default();
        let of_lifts = status.lifts.iter().filter(|lift| lift.outcome.is_none()).flat_map(|lift| &lift.phase_results);
        for phase_result in
            status.phase_results.iter().chain(of_lifts).filter(|phase_result| phase_result.outcome != Outcome::Unknown)
        {
            let journalled = self.history.get(&(filesystem_id.clone(), phase_result.run_id.clone()));
            let Some(run) = journalled else {
                if phase_result.phase == "test" {
                    // It is no run: what it says follows from the facts of the same status.
                    let holds = status.facts["own"] == "x";
                    let said = phase_result.outcome == Outcome::Succeeded;
                    // A look may have read the facts since, and found that something else is due first; or a Lift, whose test is
                    // its own.
                    let lifts = status.lifts.iter().flat_map(|lift| &lift.phase_results);
                    let mut read = status.phase_results.iter().chain(lifts).filter(|other| other.phase == "settings");
                    let newer = read.any(|read| read.started_at.0 >= phase_result.started_at.0);
                    assert!(holds || !said || newer, "4: test has succeeded on {:?}", status.facts);
                    continue;
                }
                // What failed in an earlier life is carried on; a success never is.
                assert_ne!(
                    phase_result.outcome,
                    Outcome::Succeeded,
                    "4: {} of {} is in no journal",
                    phase_result.phase,
                    phase_result.run_id
                );
                continue;
            };
            // A phase that could not be rendered has never run: its result has the ID of the last run, and a digest of its own.
            let never_ran = phase_result.outcome == Outcome::Failed && phase_result.exit_code.is_none();
            if never_ran && phase_result.digest != run.digest {
                continue;
            }
            let told = match run.verdict {
                Some(Verdict::Exit(0)) if run.waits() => phase_result.outcome == Outcome::Waiting,
                Some(Verdict::Exit(0)) => {
                    phase_result.outcome == Outcome::Succeeded && phase_result.exit_code.is_none()
                }
                Some(Verdict::Exit(code)) => {
                    phase_result.outcome == Outcome::Failed && phase_result.exit_code == Some(code)
                }
                Some(Verdict::TimedOut) => phase_result.outcome == Outcome::TimedOut,
                _ => phase_result.outcome == Outcome::Failed,
            };
            assert!(told, "4: {phase_result:?} is not what the journal says: {run:?}");
        }
        for phase_result in &status.phase_results {
            match phase_result.outcome {
                Outcome::TimedOut => self.count("runs timed out"),
                Outcome::Failed if phase_result.phase == "test" => self.count("tests failed"),
                Outcome::Failed => self.count("runs failed"),
                Outcome::Interrupted => self.count("runs interrupted"),
                _ => {}
            }
        }
    }

    /// kstatus: never both, and Ready only where nothing is said against it.
    pub fn check_group_status(&self, status: &GroupSpecStatus) {
        let holds = |kind: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        assert!(!(holds("Reconciling") && holds("Stalled")), "Reconciling and Stalled at once: {status:?}");
        assert!(!(holds("Ready") && (holds("Reconciling") || holds("Stalled"))), "Ready beside another: {status:?}");
        assert!(status.phase_errors.len() <= 5);
    }

    /// Whether everything was delivered, said and done.
    pub fn is_at_rest(&mut self) -> bool {
        let busy = self.operator.works() || !self.operator.woken.is_empty() || !self.operator.links.is_empty();
        if !self.cluster.settled(self.operator.seat) || busy || self.frozen.is_some() {
            return false;
        }
        let Some(group) = self.cluster.groups.objects.get(GROUP) else {
            let gone = self.cluster.nodes.objects.is_empty() && self.cluster.pods.objects.is_empty();
            return gone && self.lifts_are_at_rest();
        };
        // What costs least is asked first: this is asked after every step.
        let ready = group.status.iter().flat_map(|s| &s.conditions).any(|c| c.type_ == "Ready" && c.status == "True");
        if !ready || !self.lifts_have_ended() {
            return false;
        }
        let status = group.status.clone();
        if self.rival_is_busy() {
            return false;
        }
        let Some((snapshot, planned)) = self.look(GROUP) else { return false };
        let quiet = |ordinal: &u32, step: &Step| match status::node(&snapshot, &snapshot.nodes[ordinal], Some(step)) {
            status::Due::No => true,
            status::Due::Now(_) | status::Due::At(_) => false,
        };
        let leaving = snapshot.nodes.values().any(|node| node.deletion.is_some());
        // One whose node is gone already is on its way out, too.
        let going = self.cluster.pods.objects.values().any(|pod| pod.metadata.deletion_timestamp.is_some());
        self.lifts_are_at_rest()
            && !leaving
            && !going
            && planned.effects.is_empty()
            // What somebody made whose node is gone goes when it is old enough.
            && planned.wake.is_none()
            && planned.steps.iter().all(|(ordinal, step)| quiet(ordinal, step))
            && status.as_ref() == Some(&status::group(&snapshot, &planned.steps))
    }

    /// 9: the declared state is there, and stays without a write or a command. 4: the journals' last word is told.
    pub fn check_rest(&mut self) {
        let Some(group) = self.cluster.groups.objects.get(GROUP).cloned() else { return };
        assert_eq!(self.cluster.nodes.objects.len(), group.spec.count.unwrap() as usize, "9: {}", self.describe());
        let pods = if self.uses.hosts() { 0 } else { group.spec.count.unwrap() as usize };
        assert_eq!(self.cluster.pods.objects.len(), pods, "9: {}", self.describe());
        let mut places = BTreeSet::new();
        for (name, node) in &self.cluster.nodes.objects {
            let status = node.status.clone().unwrap();
            let place = if self.uses.hosts() { status.address.clone().unwrap() } else { name.clone() };
            assert!(places.insert(place.clone()), "10: two nodes on {place}");
            let machine = &self.machines[&place];
            let life =
                status.incarnation.as_ref().map(|incarnation| incarnation.filesystem_id.clone()).unwrap_or_default();
            for phase in
                group.spec.converge.phases.iter().flatten().map(String::as_str).chain(["bootstrap", "settings"])
            {
                let told = status.phase_results.iter().find(|phase_result| phase_result.phase == phase);
                if phase == "test" {
                    assert!(told.is_some_and(|told| told.outcome == Outcome::Succeeded), "4: test on {name}");
                    continue;
                }
                let told = told.expect("a phase result of every phase");
                assert_eq!(told.outcome, Outcome::Succeeded, "4: {phase} on {name}");
                let last = machine.latest(&life, phase).expect("a run of every phase");
                // What a Lift has run is as good.
                let lifted = told.run_id.starts_with(&format!("{phase}.lift."));
                let told_of = last.id == told.run_id || (lifted && last.digest == told.digest);
                // Settings is asked anew by every session; one that was lost leaves a run that nobody needs.
                let same = told_of && last.succeeded();
                // What runs once is left as a Lift has made it, should nobody have heard of the end of that before it was given up.
                let unheard = last.id != told.run_id && !told.overridden_by.is_empty() && phase == "install";
                assert!(same || phase == "settings" || unheard, "4: {phase} on {name}: {last:?}");
                if phase == "configure" && self.uses.texts() {
                    assert_eq!(last.text, self.text, "4: {phase} on {name} has written an older text");
                }
            }
        }
        if let Some(pod) = &group.spec.node.pod {
            let (claims, each) = (self.cluster.claims.objects.len(), pod.volume_claim_templates.len());
            let exact = pod.persistent_volume_claim_retention_policy.when_scaled == Retention::Delete;
            let needed = group.spec.count.unwrap() as usize * each;
            let there: Vec<&String> = self.cluster.claims.objects.keys().collect();
            let seen =
                self.operator.snapshots.get(GROUP).map(|snapshot| snapshot.claims.keys().cloned().collect::<Vec<_>>());
            let right = claims >= needed && (!exact || claims == needed);
            assert!(right, "9: {claims} claims, {needed} needed: there are {there:?}, the operator sees {seen:?}");
        }
        let before = (self.operator.writes, self.operator.commands, self.cluster.writes());
        for _ in 0..5 {
            self.let_pass(jiff::SignedDuration::from_hours(1));
            self.pass();
            self.pass_lifts();
        }
        assert_eq!(before, (self.operator.writes, self.operator.commands, self.cluster.writes()), "9: not at rest");
    }

    pub fn describe(&self) -> String {
        let group = self.cluster.groups.objects.get(GROUP);
        let planned = self.operator.snapshots.get(GROUP).map(plan);
        format!("{:#?}\nplan {planned:#?}", group.and_then(|group| group.status.as_ref()))
    }
}

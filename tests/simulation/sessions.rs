//! Sessions between an operator and its machines: real ones, over wires that lose what they carry.

use std::collections::VecDeque;

use pallet_core::{
    plan::{Purpose, SessionKind, SessionView},
    session::secrets::KnownSecrets,
    session::{
        End, Session, Want,
        frame::{Frame, Verdict},
    },
    target::Target,
};
use pallet_operator::run::Start;

use crate::{
    machine::{Request, Run},
    world::{Link, World},
};

impl World {
    pub fn open(&mut self, start: Start) {
        let uid = start.node_uid.clone();
        if self.operator.links.contains_key(&uid) {
            return;
        }
        self.operator.commands += 1;
        self.operator.nonces += 1;
        let name = start.identity.name.clone();
        let lift = start.purpose.lift().map(str::to_owned);
        let overrides = matches!(&start.purpose, Purpose::Lift(run) if run.overrides);
        let machine = match &start.target {
            Target::Container(_) => name.clone(),
            Target::Machine(endpoint) => endpoint.address.clone(),
        };
        let (told, meant) = (start.incarnation.told.clone(), start.incarnation.instance.clone());
        let (group, retry_token) = (start.group.clone(), start.identity.retry_token.clone());
        let (session, greeting) = Session::open(
            start.group,
            start.identity,
            start.incarnation,
            start.record,
            start.purpose,
            format!("nonce-{}-{}-{}", self.operator.seat, self.now, self.operator.nonces),
            KnownSecrets::default(),
        );
        // The connection goes by the pod's name, or the host's address: to whatever is there by now.
        let there = self.machines.get(&machine);
        let (begun, life) = there.map(|there| (there.instance.clone(), there.life(&told))).unwrap_or_default();
        let is_there = there.is_some();
        let instance = if start.target.is_container() { begun.clone() } else { meant.clone() };
        let link = Link {
            session,
            group,
            retry_token,
            node: name,
            machine,
            start: begun,
            life,
            instance,
            meant,
            target: start.target,
            since: self.now,
            lift,
            overrides,
            inbox: VecDeque::new(),
            awaiting: None,
        };
        self.operator.links.insert(uid.clone(), link);
        self.show(&uid);
        if self.former {
            self.cut(&uid, "this operator does not lead any more");
        } else if is_there {
            self.send(&uid, &greeting);
        } else {
            self.cut(&uid, "there is nothing");
        }
    }

    /// Shows a session to the reconciles of its operator.
    fn show(&mut self, uid: &str) {
        let view = self.operator.links.get(uid).map(|link| SessionView {
            instance: link.meant.clone(),
            since: link.since,
            running: link.session.running(),
            kind: link.session.kind(),
            lift: link.lift.clone(),
        });
        let views = &mut self.operator.sessions.known().views;
        match view {
            Some(view) => drop(views.insert(uid.to_owned(), view)),
            None => drop(views.remove(uid)),
        }
    }

    pub fn cut(&mut self, uid: &str, why: &str) {
        let Some(mut link) = self.operator.links.remove(uid) else { return };
        self.tell(|| format!("the session on {} is lost: {why}", link.node));
        let end = link.session.lose(why, self.now);
        self.close(uid, &link, end);
    }

    fn close(&mut self, uid: &str, link: &Link, end: End) {
        let now = self.now;
        self.operator.woken.insert(link.group.key.name.clone());
        self.show(uid);
        let known = &mut *self.operator.sessions.known();
        let memory = known.memories.entry(uid.to_owned()).or_default();
        memory.learn(&link.session.record());
        if link.session.has_caught_up() {
            memory.has_read();
        }
        memory.finish(&link.meant, &link.target, end, now);
    }

    pub fn hear_one(&mut self, uid: &str) {
        let link = self.operator.links.get_mut(uid).unwrap();
        let Some(frame) = link.inbox.pop_front() else { return };
        let before = link.session.running();
        let want = link.session.hear(frame.clone(), self.now);
        let node = link.node.clone();
        self.tell(|| format!("{node}: {frame:?}"));
        match want {
            Want::Wait => {}
            Want::Send(bytes) => self.send(uid, &bytes),
            Want::End(end) => {
                let link = self.operator.links.remove(uid).unwrap();
                self.tell(|| format!("the session on {node} ends: {end:?}"));
                self.close(uid, &link, end);
                return;
            }
        }
        if let Some(link) = self.operator.links.get(uid) {
            let (record, running) = (link.session.record().into_owned(), link.session.running());
            let news = self.operator.sessions.known().memories.entry(uid.to_owned()).or_default().learn(&record);
            if news || running != before {
                let group = self.operator.links[uid].group.key.name.clone();
                self.operator.woken.insert(group);
            }
            self.show(uid);
        }
    }

    /// Bytes on their way to a machine. They may be lost, and the answer may.
    fn send(&mut self, uid: &str, bytes: &[u8]) {
        let request = Request::parse(bytes);
        if !self.calm && self.random.chance(2) {
            self.count("requests lost");
            self.cut(uid, "the request was lost");
            return;
        }
        let link = &self.operator.links[uid];
        let (name, machine, overrides) = (link.node.clone(), link.machine.clone(), link.overrides);
        let frames = match request {
            Request::Hello { uid } => self.machines[&machine].greet(&uid),
            Request::Facts => vec![Frame::Facts(format!("hostname\t{name}\nos.family\tlinux\n").into_bytes())],
            Request::Attach { id } => self.attach(uid, &id),
            Request::Cancel { id } => {
                self.cancel(&link.life.clone(), &machine, &id);
                self.attach(uid, &id)
            }
            // The same before it starts anything on a node.
            Request::Run { .. } if self.former => {
                self.cut(uid, "it leads no more");
                return;
            }
            Request::Run { id, seconds, phase, attempt, digest, from, script } => {
                let (there, life) = (&self.machines[&machine], link.life.clone());
                if there.lived(&life).any(|run| run.id == id) {
                    self.attach(uid, &id)
                } else if let Some(active) = there.active() {
                    let (foreign, holder) = (active.life != life, active.id.clone());
                    if foreign { self.in_the_way(&holder) } else { vec![Frame::Busy(holder)] }
                } else {
                    let (duration, verdict) = self.fate(seconds);
                    let run = Run {
                        id: id.clone(),
                        life: life.clone(),
                        phase,
                        attempt,
                        digest,
                        began: self.now,
                        ends: self.now + duration,
                        verdict: None,
                        own: self.own(&machine),
                        from,
                        actions: Run::actions_of(&script, self.machines[&machine].meddled),
                        overrides,
                        text: Run::text_of(&script),
                    };
                    let link = &self.operator.links[uid];
                    if link.session.kind() == SessionKind::Converge {
                        self.check_listed(&name, link);
                    }
                    self.check_start(&name, &machine, &run, &script);
                    let there = self.machines.get_mut(&machine).unwrap();
                    there.journal.push(run.clone());
                    there.meddled &= run.phase != "configure";
                    self.history.insert((life, id.clone()), Run { verdict: Some(verdict), ..run });
                    self.operator.links.get_mut(uid).unwrap().awaiting = Some(id.clone());
                    vec![Frame::Started(id)]
                }
            }
        };
        if let Some(link) = self.operator.links.get_mut(uid) {
            link.inbox.extend(frames);
        }
    }

    /// What settings finds on a machine: it changes now and then, and comes right in the end.
    fn own(&mut self, machine: &str) -> &'static str {
        let flips = self.random.chance(10);
        let machine = self.machines.get_mut(machine).unwrap();
        machine.own = match machine.own {
            _ if self.calm => "x",
            "x" if flips => "y",
            "y" if flips => "x",
            other => other,
        };
        machine.own
    }

    /// Ends a run that still runs, where it is of this life.
    fn cancel(&mut self, life: &str, machine: &str, id: &str) {
        let machine = self.machines.get_mut(machine).unwrap();
        let mine = |run: &&mut Run| run.id == id && run.life == life && run.verdict.is_none();
        let Some(run) = machine.journal.iter_mut().find(mine) else { return };
        run.verdict = Some(Verdict::Cancelled);
        let run = run.clone();
        self.history.insert((run.life.clone(), id.to_owned()), run);
        self.count("runs cancelled");
    }

    /// A run of a former node, which is nobody's to join.
    fn in_the_way(&mut self, id: &str) -> Vec<Frame> {
        self.count("runs of others in the way");
        vec![Frame::Refused { reason: "foreign".into(), message: format!("run {id} is another node's") }]
    }

    fn attach(&mut self, uid: &str, id: &str) -> Vec<Frame> {
        self.count("runs reattached");
        let link = &self.operator.links[uid];
        let machine = &self.machines[&link.machine];
        match machine.journal.iter().find(|run| run.id == id) {
            None => return vec![Frame::Absent(id.to_owned())],
            Some(run) if run.life != link.life => return self.in_the_way(id),
            Some(_) => {}
        }
        match machine.ended(id) {
            Some(frame) => vec![frame],
            None => {
                self.operator.links.get_mut(uid).unwrap().awaiting = Some(id.to_owned());
                vec![Frame::Attached(id.to_owned())]
            }
        }
    }
}

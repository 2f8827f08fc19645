//! Machines that exist: they are rebooted and made anew, led elsewhere by the inventory, and wanted by other groups.

use jiff::SignedDuration;
use pallet_api::{GroupNode, GroupNodeFields, GroupSpec, group_node::NodeHost};
use pallet_core::session::frame::Verdict;
use serde_json::{Value, json};

use crate::{
    machine::{Machine, Run},
    world::{NAMESPACE, RIVAL, World},
};

/// How many machines there are, and how many of them an inventory names at first: more than a group ever wants.
const MACHINES: usize = 12;
const NAMED: usize = 8;
/// So many stay in the inventory, whatever is taken off: what is asked for can be had, when the others let go.
const LEAST: usize = 5;

/// What the group's inventory says.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Names and addresses, and whether they are listed now.
    hosts: Vec<(String, String, bool)>,
}

impl Inventory {
    /// A group's `node`.
    pub fn node(&self) -> Value {
        let listed = self.hosts.iter().filter(|(_, _, listed)| *listed);
        let inventory: Vec<Value> =
            listed.map(|(name, address, _)| json!({"name": name, "address": address})).collect();
        json!({"hosts": {"key": {"secretKeyRef": {"name": "login"}}, "inventory": inventory}})
    }

    fn listed(&self) -> usize {
        self.hosts.iter().filter(|(_, _, listed)| *listed).count()
    }
}

fn address(number: usize) -> String {
    format!("10.9.0.{number}")
}

impl World {
    pub fn set_up_hosts(&mut self) {
        for number in 0..MACHINES {
            self.instances += 1;
            let filesystem_id = format!("filesystem_id-{}", self.instances);
            let instance = format!("boot-{}", self.instances);
            let own = if self.random.chance(40) { "y" } else { "x" };
            let machine = Machine { uid: None, instance, filesystem_id, journal: Vec::new(), own, meddled: false };
            self.machines.insert(address(number), machine);
        }
        self.inventory.hosts = (0..NAMED).map(|number| (format!("h{number}"), address(number), true)).collect();
    }

    /// The other groups let go, and all hosts are listed.
    pub fn let_hosts_be(&mut self) {
        while self.let_go_of_one() {}
        self.change_rival(|group| group.spec.count = Some(0));
        self.inventory.hosts.iter_mut().for_each(|(_, _, listed)| *listed = true);
        self.publish_inventory();
        // Nobody watches an idle host: whether it was made anew is seen by whoever goes there.
        self.change(|group| group.spec.converge.reapply = "calm".into());
    }

    fn publish_inventory(&mut self) {
        let node = self.inventory.node();
        self.change(|group| group.spec.node = serde_json::from_value(node.clone()).unwrap());
        self.change_rival(|group| group.spec.node = serde_json::from_value(node).unwrap());
    }

    /// A group of the same operator that takes its nodes from the same inventory.
    pub fn make_rival(&mut self) {
        let script = |text: &str| json!({"actions": [{"exec": {"script": text}}]});
        let object = serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": RIVAL, "namespace": NAMESPACE},
            "spec": {
                "count": self.random.below(3), "node": self.inventory.node(),
                "phases": {"bootstrap": script("bootstrap rival"), "settings": {"facts": [{"name": "own", "exec": "own"}]}, "configure": script("rival")},
                "converge": {"phases": ["configure"], "timeout": "20s", "retry": {"limit": 2, "backoff": "2s"}}
            }
        }));
        let now = self.now;
        self.cluster.groups.create(&mut self.cluster.counter, object.unwrap(), now).unwrap();
    }

    fn change_rival(&mut self, change: impl FnOnce(&mut GroupSpec)) {
        let _ = self.cluster.groups.update(&mut self.cluster.counter, RIVAL, None, None, |group| {
            change(group);
            *group.metadata.generation.get_or_insert(0) += 1;
        });
    }

    pub fn scale_rival(&mut self) {
        let count = self.random.below(4) as u32;
        self.counts.insert(count);
        self.tell(|| format!("the rival is scaled to {count}"));
        self.change_rival(|group| group.spec.count = Some(count));
    }

    /// Whether the second group has not let go of everything yet.
    pub fn rival_is_busy(&self) -> bool {
        self.uses.hosts() && self.cluster.nodes.objects.values().any(|node| node.spec.group == RIVAL)
    }

    /// Somebody takes a host off the list, puts one on it, or gives one another address.
    pub fn edit_inventory(&mut self) {
        let at = self.random.below(self.inventory.hosts.len());
        let (kind, number) = (self.random.below(3), self.random.below(MACHINES));
        let (enough, to) = (self.inventory.listed() > LEAST, address(number));
        let free = self.inventory.hosts.iter().all(|(_, other, _)| *other != to);
        let (name, address, listed) = &mut self.inventory.hosts[at];
        let said = format!("the inventory is edited at {name}");
        match kind {
            0 if !*listed || enough => *listed = !*listed,
            1 if free => *address = to,
            2 => self.inventory.hosts.rotate_left(1),
            _ => return,
        }
        self.count("inventories edited");
        self.tell(|| said);
        self.publish_inventory();
    }

    pub fn fault_on_host(&mut self) {
        let name = address(self.random.below(MACHINES));
        match self.random.below(4) {
            0 => {
                self.count("hosts rebooted");
                self.tell(|| format!("{name} is rebooted"));
                self.reboot(&name);
            }
            1 => {
                self.count("hosts made anew");
                self.tell(|| format!("{name} is made anew"));
                self.reboot(&name);
                self.instances += 1;
                let filesystem_id = format!("filesystem_id-{}", self.instances);
                let machine = self.machines.get_mut(&name).unwrap();
                (machine.filesystem_id, machine.journal, machine.meddled) = (filesystem_id, Vec::new(), false);
            }
            2 => self.take_for_another(&name),
            _ => drop(self.let_go_of_one()),
        }
    }

    /// What runs ends, and all connections.
    fn reboot(&mut self, name: &str) {
        self.instances += 1;
        let machine = self.machines.get_mut(name).unwrap();
        machine.instance = format!("boot-{}", self.instances);
        for run in machine.journal.iter_mut().filter(|run| run.verdict.is_none()) {
            run.verdict = Some(Verdict::Died);
            self.history.insert((run.life.clone(), run.id.clone()), run.clone());
        }
    }

    /// Another group has a machine, whether or not it was free: another operator saw to that, or an answer was lost.
    pub fn take_for_another(&mut self, address: &str) {
        let ordinal = (0..).find(|ordinal| !self.cluster.nodes.objects.contains_key(&format!("db-{ordinal}"))).unwrap();
        if ordinal >= 3 {
            return;
        }
        self.count("hosts taken by others");
        self.tell(|| format!("another group takes {address}"));
        let host = Some(NodeHost { name: "db".into(), address: address.to_owned(), port: 22 });
        let fields =
            GroupNodeFields { group: "db".into(), group_uid: "db-uid".into(), taken_over_from: None, ordinal, host };
        let mut object = GroupNode::new(&format!("db-{ordinal}"), fields);
        object.metadata.namespace = Some(NAMESPACE.into());
        let now = self.now;
        self.cluster.nodes.create(&mut self.cluster.counter, object, now).unwrap();
        // It is at work there for a while, whatever becomes of its node.
        let machine = self.machines.get_mut(address).unwrap();
        if machine.active().is_none() {
            let (life, id) = (format!("{}.@db", machine.filesystem_id), format!("db-run-{}", self.instances));
            self.instances += 1;
            let ends = now + SignedDuration::from_secs(1 + self.random.below(30) as i64);
            let run = Run {
                id: id.clone(),
                life: life.clone(),
                phase: "configure".into(),
                attempt: 1,
                digest: String::new(),
                began: now,
                ends,
                verdict: None,
                own: "x",
                from: 0,
                actions: Vec::new(),
                text: None,
                overrides: false,
            };
            machine.journal.push(run.clone());
            self.history.insert((life, id), Run { verdict: Some(Verdict::Exit(0)), ..run });
        }
    }

    /// Says whether there was one.
    fn let_go_of_one(&mut self) -> bool {
        let others = self.cluster.nodes.objects.iter().find(|(_, node)| node.spec.group == "db");
        let Some((name, uid)) = others.map(|(name, node)| (name.clone(), node.metadata.uid.clone().unwrap())) else {
            return false;
        };
        let now = self.now;
        self.tell(|| format!("another group lets {name} go"));
        self.cluster.nodes.delete(&mut self.cluster.counter, &name, &uid, false, now).is_ok()
    }
}

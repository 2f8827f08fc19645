//! The kubelets: pods start and go, containers restart, and pods are evicted.

use k8s_openapi::api::core::v1::Pod;
use pallet_api as api;
use serde_json::{Value, json};

use crate::{machine::Machine, world::World};

impl World {
    pub fn some_pod(&mut self) -> Option<String> {
        let names: Vec<String> = self.cluster.pods.objects.keys().cloned().collect();
        let at = self.random.below(names.len());
        names.get(at).cloned()
    }

    pub fn some_kubelet(&mut self) {
        if let Some(name) = self.some_pod() {
            self.kubelet(&name);
        }
    }

    pub fn kubelet(&mut self, name: &str) {
        let pod = &self.cluster.pods.objects[name];
        if pod.metadata.deletion_timestamp.is_some() {
            self.tell(|| format!("pod {name} is gone"));
            self.machines.remove(name);
            self.cluster.pods.remove(&mut self.cluster.counter, name);
            return;
        }
        if self.is_nobodys(pod) {
            self.tell(|| format!("the collector deletes pod {name}"));
            let uid = self.cluster.pods.objects[name].metadata.uid.clone().unwrap();
            let _ = self.cluster.pods.delete(&mut self.cluster.counter, name, &uid, true, self.now);
            return;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        match phase.as_deref() {
            None => self.boot(name),
            Some("Running") => self.show_readiness(name),
            _ => {}
        }
    }

    /// Whether all owners of a pod are gone: the garbage collector takes it then.
    fn is_nobodys(&self, pod: &Pod) -> bool {
        let there = |uid: &String| {
            let groups = self.cluster.groups.objects.values().filter_map(|group| group.metadata.uid.as_ref());
            let nodes = self.cluster.nodes.objects.values().filter_map(|node| node.metadata.uid.as_ref());
            groups.chain(nodes).any(|other| other == uid)
        };
        !pod.metadata.owner_references.iter().flatten().any(|owner| there(&owner.uid))
    }

    /// A container starts, on a new file system.
    fn boot(&mut self, name: &str) {
        self.instances += 1;
        let number = self.instances;
        let uid = self.cluster.pods.objects[name].metadata.uid.clone().unwrap();
        let instance = format!("containerd://{number}");
        self.tell(|| format!("{name} runs in {instance}"));
        let filesystem_id = format!("filesystem_id-{number}");
        let own = if self.random.chance(40) { "y" } else { "x" };
        let machine = Machine {
            uid: Some(uid),
            instance: instance.clone(),
            filesystem_id,
            journal: Vec::new(),
            own,
            meddled: false,
        };
        self.machines.insert(name.to_owned(), machine);
        self.set_status(name, |status| {
            status["phase"] = "Running".into();
            status["podIP"] = format!("10.0.0.{}", number % 250).into();
            status["containerStatuses"] = json!([{
                "name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": instance, "state": {"running": {}}
            }]);
        });
        self.show_readiness(name);
    }

    fn show_readiness(&mut self, name: &str) {
        let pod = &self.cluster.pods.objects[name];
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let holds = |kind: &str| conditions.clone().any(|c| c.type_ == kind && c.status == "True");
        if holds(api::CONVERGED_GATE) != holds("Ready") {
            let ready = if holds(api::CONVERGED_GATE) { "True" } else { "False" };
            self.set_status(name, |status| {
                let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
                conditions.retain(|c| c["type"] != "Ready");
                conditions.push(json!({"type": "Ready", "status": ready}));
                status["conditions"] = conditions.into();
            });
        }
    }

    fn set_status(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let _ = self.cluster.pods.update(&mut self.cluster.counter, name, None, None, |pod: &mut Pod| {
            let mut status = serde_json::to_value(pod.status.clone().unwrap_or_default()).unwrap();
            change(&mut status);
            pod.status = Some(serde_json::from_value(status).unwrap());
        });
    }

    pub fn fault_on_node(&mut self) {
        let Some(name) = self.some_pod() else { return };
        let pod = &self.cluster.pods.objects[&name];
        let running = self.machines.contains_key(&name) && pod.metadata.deletion_timestamp.is_none();
        match self.random.below(3) {
            0 if running => {
                self.count("restarts");
                self.tell(|| format!("the container of {name} restarts"));
                self.machines.remove(&name);
                self.boot(&name);
            }
            1 if running => {
                self.count("evictions");
                self.tell(|| format!("{name} is evicted"));
                self.machines.remove(&name);
                self.set_status(&name, |status| {
                    status["phase"] = "Failed".into();
                    status["reason"] = "Evicted".into();
                });
            }
            _ => {
                let uid = pod.metadata.uid.clone().unwrap();
                self.count("pods deleted");
                self.tell(|| format!("somebody deletes pod {name}"));
                let _ = self.cluster.pods.delete(&mut self.cluster.counter, &name, &uid, true, self.now);
            }
        }
    }
}

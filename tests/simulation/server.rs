//! The API server as the operator's client meets it: requests and answers as HTTP, over the objects of the [`Cluster`]. Requests fail
//! before or after they are carried out, answers are lost or never come, and the operator is killed before or after any of them.

use http::{Method, Response, StatusCode, request::Parts};
use kube::{Resource, client::Body};
use pallet_api::{GroupNode, GroupNodeStatus, GroupSpecStatus, LiftStatus};
use pallet_core::plan::revisions;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    cluster::{Counter, Refusal, Store},
    operator::Call,
    world::{GROUP, RIVAL, World},
};

/// What became of a request.
pub enum Served {
    /// The operator has its answer, or will never have one.
    Done,
    /// The operator was killed.
    Killed,
}

/// What a request is about.
struct Address<'a> {
    plural: &'a str,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
    query: &'a str,
}

impl<'a> Address<'a> {
    fn of(parts: &'a Parts) -> Self {
        let words: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let at = words.iter().position(|word| *word == "namespaces").expect("a request in a namespace");
        let word = |place: usize| words.get(at + place).copied();
        Self {
            plural: word(2).expect("a resource"),
            name: word(3),
            subresource: word(4),
            query: parts.uri.query().unwrap_or_default(),
        }
    }
}

type Answer = Result<Value, Refusal>;

impl World {
    /// Carries a request out and answers it, unless fate has it otherwise.
    pub fn serve(&mut self, call: Call) -> Served {
        let Call { parts, body, answer } = call;
        let address = Address::of(&parts);
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if address.plural == "events" {
            // An event is a courtesy: whether it is written makes no difference to anything.
            let _ = answer.send(json_response(StatusCode::CREATED, &body));
            return Served::Done;
        }
        let writes = parts.method != Method::GET && !address.query.contains("dryRun");
        if writes {
            self.operator.writes += 1;
            if self.may_crash(|| format!("before {} {}", parts.method, parts.uri.path())) {
                return Served::Killed;
            }
        }
        if !self.calm && self.random.chance(if writes { 3 } else { 1 }) {
            self.count("answers lost");
            if self.random.chance(50) {
                let _ = self.carry_out(&parts, &address, &body);
            }
            match self.random.below(3) {
                // The connection breaks.
                0 => drop(answer),
                1 => {
                    let _ = answer.send(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
                }
                // There is no answer before the deadline of the call.
                _ => self.operator.unanswered.push(answer),
            }
            return Served::Done;
        }
        let result = self.carry_out(&parts, &address, &body);
        self.tell(|| {
            let outcome = if result.is_ok() { "done" } else { "refused" };
            format!("{} {} {outcome}", parts.method, parts.uri.path())
        });
        if writes && self.may_crash(|| format!("after {} {}", parts.method, parts.uri.path())) {
            return Served::Killed;
        }
        let response = match result {
            Ok(object) if parts.method == Method::POST => json_response(StatusCode::CREATED, &object),
            Ok(object) => json_response(StatusCode::OK, &object),
            Err(Refusal::NotFound) => failure(StatusCode::NOT_FOUND, "NotFound"),
            Err(Refusal::Conflict) if parts.method == Method::POST => failure(StatusCode::CONFLICT, "AlreadyExists"),
            Err(Refusal::Conflict) => failure(StatusCode::CONFLICT, "Conflict"),
        };
        let _ = answer.send(response);
        Served::Done
    }

    /// A request that was on its way when its operator froze: it arrives now or later, when another leads, or is lost; its answer
    /// reaches nobody in time.
    pub fn delay(&mut self, call: Call) {
        let Call { parts, body, answer } = call;
        self.operator.unanswered.push(answer);
        let address = Address::of(&parts);
        if address.plural == "events" || parts.method == Method::GET {
            return;
        }
        // What becomes of data under a deletion that is late is up to the protection of claims in use, which is not here.
        match self.random.below(3) {
            0 => self.arrive(&parts, &body),
            1 if address.plural != "persistentvolumeclaims" => self.late.push((parts, body)),
            _ => {}
        }
    }

    /// A request of an operator that does not lead any more arrives.
    pub fn arrive(&mut self, parts: &Parts, body: &[u8]) {
        self.count("requests that arrive late");
        self.tell(|| format!("late: {} {}", parts.method, parts.uri.path()));
        self.is_late = true;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let _ = self.carry_out(parts, &Address::of(parts), &body);
        self.is_late = false;
    }

    fn may_crash(&mut self, when: impl FnOnce() -> String) -> bool {
        let crashes = !self.calm && self.random.chance(1);
        if crashes {
            self.crash(&when());
        }
        crashes
    }

    fn carry_out(&mut self, parts: &Parts, address: &Address<'_>, body: &Value) -> Answer {
        match (&parts.method, address.name) {
            (&Method::GET, None) => Ok(self.list_nodes(address.query)),
            (&Method::GET, Some(name)) => self.get(address.plural, name),
            (&Method::POST, _) => self.post(address, body.clone()),
            (&Method::PATCH, Some(name)) => self.patch(address, name, body),
            (&Method::DELETE, Some(name)) => self.delete(address.plural, name, body),
            (method, _) => panic!("nobody sends {method} {}", parts.uri),
        }
    }

    /// The operator lists GroupNodes, and nothing else: what may be there though nobody said so.
    fn list_nodes(&mut self, query: &str) -> Value {
        let of = if query.contains(RIVAL) { RIVAL } else { GROUP };
        let own: Vec<&GroupNode> = self.cluster.nodes.objects.values().filter(|node| node.spec.group == of).collect();
        let list = json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNodeList", "metadata": {"resourceVersion": "1"}, "items": own
        });
        if !own.is_empty() {
            self.count("groups held by a node that nobody knew");
        }
        list
    }

    fn get(&self, plural: &str, name: &str) -> Answer {
        let cluster = &self.cluster;
        match plural {
            "groupspecs" => found(&cluster.groups, name),
            "groupnodes" => found(&cluster.nodes, name),
            "pods" => found(&cluster.pods, name),
            "persistentvolumeclaims" => found(&cluster.claims, name),
            "lifts" => found(&cluster.lifts, name),
            "controllerrevisions" => found(&cluster.revisions, name),
            "configmaps" => self.config_map(name),
            _ => Err(Refusal::NotFound),
        }
    }

    fn config_map(&self, name: &str) -> Answer {
        let text = self.text.filter(|_| name == "site").ok_or(Refusal::NotFound)?;
        Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": format!("text-{text}.\n")}
        }))
    }

    fn post(&mut self, address: &Address<'_>, mut body: Value) -> Answer {
        if address.query.contains("dryRun") {
            return Ok(body);
        }
        let now = self.now;
        if let Some(prefix) = body["metadata"]["generateName"].as_str().map(str::to_owned) {
            body["metadata"]["name"] = format!("{prefix}{}", self.cluster.counter.next()).into();
        }
        match address.plural {
            "groupnodes" => {
                let node: GroupNode = serde_json::from_value(body).unwrap();
                if let Some(host) = node.spec.host.as_ref().filter(|_| !self.calm && self.random.chance(5)) {
                    // Somebody else has just taken it, and no watch has told of it yet.
                    let address = host.address.clone();
                    self.take_for_another(&address);
                }
                let of = node.spec.group.clone();
                let created = self.cluster.nodes.create(&mut self.cluster.counter, node, now)?;
                // Its operator counted before others led.
                if !self.is_late {
                    self.check_creation(&of);
                }
                Ok(json(&created))
            }
            "pods" => created(&mut self.cluster.pods, &mut self.cluster.counter, body, now),
            "persistentvolumeclaims" => created(&mut self.cluster.claims, &mut self.cluster.counter, body, now),
            "controllerrevisions" => {
                self.count("revisions kept");
                let answer = created(&mut self.cluster.revisions, &mut self.cluster.counter, body, now);
                // A crash or a lost answer may have one kept twice before the spare one goes.
                assert!(self.cluster.revisions.objects.len() <= revisions::MOST + 8, "revisions are bounded");
                answer
            }
            plural => panic!("nobody creates {plural}"),
        }
    }

    fn patch(&mut self, address: &Address<'_>, name: &str, body: &Value) -> Answer {
        let status = address.subresource == Some("status");
        let counter = &mut self.cluster.counter;
        match address.plural {
            "groupspecs" => {
                if let Some(count) = body["spec"]["count"].as_u64() {
                    let known = u32::try_from(count).is_ok_and(|count| self.counts.contains(&count));
                    assert!(known, "1: nobody has ever asked for {count}");
                }
                let answer = patched(&mut self.cluster.groups, counter, name, body, status)?;
                if status {
                    let status: GroupSpecStatus = serde_json::from_value(answer["status"].clone()).unwrap();
                    self.check_group_status(&status);
                }
                Ok(answer)
            }
            "groupnodes" => {
                let answer = patched(&mut self.cluster.nodes, counter, name, body, status)?;
                if status {
                    let status: GroupNodeStatus = serde_json::from_value(answer["status"].clone()).unwrap();
                    self.check_status(&status);
                }
                Ok(answer)
            }
            "lifts" => {
                let before = self.cluster.lifts.objects.get(name).and_then(|lift| lift.status.clone());
                let answer = patched(&mut self.cluster.lifts, counter, name, body, status)?;
                if status {
                    let status: LiftStatus = serde_json::from_value(answer["status"].clone()).unwrap();
                    self.check_lift(&before.unwrap_or_default(), &status);
                }
                Ok(answer)
            }
            "pods" => patched(&mut self.cluster.pods, counter, name, body, status),
            "persistentvolumeclaims" => panic!("9: claim {name} would be changed"),
            plural => panic!("nobody changes {plural}"),
        }
    }

    fn delete(&mut self, plural: &str, name: &str, body: &Value) -> Answer {
        let uid = body["preconditions"]["uid"].as_str().expect("a precondition").to_owned();
        let now = self.now;
        match plural {
            "groupnodes" => self.count("nodes removed"),
            "pods" if !self.is_late => self.check_ours(name, &uid),
            "persistentvolumeclaims" => {
                let under = self.cluster.nodes.objects.keys().find(|node| name.ends_with(&format!("-{node}")));
                assert_eq!(under, None, "7: claim {name} would be deleted under its node");
                self.count("claims deleted");
            }
            "lifts" => self.count("Lifts gone by their time"),
            _ => {}
        }
        let counter = &mut self.cluster.counter;
        match plural {
            "groupnodes" => deleted(&mut self.cluster.nodes, counter, name, &uid, false, now),
            // A pod is held by its kubelet.
            "pods" => deleted(&mut self.cluster.pods, counter, name, &uid, true, now),
            "persistentvolumeclaims" => deleted(&mut self.cluster.claims, counter, name, &uid, false, now),
            "lifts" => deleted(&mut self.cluster.lifts, counter, name, &uid, false, now),
            "controllerrevisions" => deleted(&mut self.cluster.revisions, counter, name, &uid, false, now),
            plural => panic!("nobody deletes {plural}"),
        }
    }
}

fn json(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap()
}

fn found<O: Serialize>(store: &Store<O>, name: &str) -> Answer {
    store.objects.get(name).map(json).ok_or(Refusal::NotFound)
}

fn created<O>(store: &mut Store<O>, counter: &mut Counter, body: Value, now: jiff::Timestamp) -> Answer
where
    O: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned,
{
    store.create(counter, serde_json::from_value(body).unwrap(), now).map(|object| json(&object))
}

/// A merge patch, or the strategic one of a pod's conditions. Each has the preconditions that it names.
fn patched<O>(store: &mut Store<O>, counter: &mut Counter, name: &str, patch: &Value, status: bool) -> Answer
where
    O: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned,
{
    let current = store.objects.get(name).ok_or(Refusal::NotFound)?;
    let (uid, version) = (patch["metadata"]["uid"].as_str(), patch["metadata"]["resourceVersion"].as_str());
    let differs = |wanted: Option<&str>, is: &Option<String>| wanted.is_some() && wanted != is.as_deref();
    if differs(uid, &current.meta().uid) || differs(version, &current.meta().resource_version) {
        return Err(Refusal::Conflict);
    }
    let mut object = json(current);
    let before = object["spec"].clone();
    let mut patch = patch.clone();
    if status {
        patch = json!({"status": patch["status"]});
    } else if let Some(fields) = patch.as_object_mut() {
        fields.remove("status");
    }
    if O::kind(&()) == "Pod" {
        let conditions = patch["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.retain(|old| conditions.iter().all(|new| new["type"] != old["type"]));
        all.extend(conditions);
        patch["status"]["conditions"] = all.into();
    }
    json_patch::merge(&mut object, &patch);
    if object["spec"] != before {
        object["metadata"]["generation"] = (object["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
    }
    let changed: O = serde_json::from_value(object).unwrap();
    let current = store.update(counter, name, uid, version, |object| *object = changed.clone());
    match current {
        // The last finalizer went: the answer shows it once more.
        Err(Refusal::NotFound) => Ok(json(&changed)),
        current => current.map(|object| json(&object)),
    }
}

fn deleted<O>(
    store: &mut Store<O>,
    counter: &mut Counter,
    name: &str,
    uid: &str,
    grace: bool,
    now: jiff::Timestamp,
) -> Answer
where
    O: Resource<DynamicType = ()> + Clone + Serialize,
{
    store.delete(counter, name, uid, grace, now)?;
    Ok(store.objects.get(name).map_or_else(|| json!({"kind": "Status", "status": "Success"}), json))
}

fn json_response(code: StatusCode, value: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(value.to_string().into_bytes())).unwrap()
}

fn failure(code: StatusCode, reason: &str) -> Response<Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code.as_u16()
    });
    json_response(code, &status)
}

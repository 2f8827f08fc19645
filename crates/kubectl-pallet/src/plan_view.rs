//! Pure: a plan, for people and for machines.

use pallet_api::group_spec::PlanStatus;
use serde::Serialize;
use serde_json::Value;

use crate::output::Table;

/// What would happen to one group.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// The group.
    pub group: String,
    /// Whether it is there already.
    pub exists: bool,
    /// What is to be done; nodes by their ordinals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// Why nothing of it could be done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What else should be known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Under approval: Manual, what waits in the status now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<PlanStatus>,
}

impl Planned {
    /// For machines.
    pub fn data(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        // What is to be approved stands in the status of the group; this here has no digest.
        if let Some(plan) = value.get_mut("plan").and_then(Value::as_object_mut) {
            plan.remove("digest");
        }
        value
    }

    /// For people.
    pub fn render(&self, colours: bool) -> String {
        let mut lines = Vec::new();
        let group = &self.group;
        match (&self.plan, self.errors.is_empty()) {
            (_, false) => {
                lines.push(format!("gs/{group}: nothing could be done, it would be Stalled:"));
                lines.extend(self.errors.iter().map(|error| format!("  {error}")));
            }
            (None, true) => lines.push(format!("gs/{group}: nothing to do")),
            (Some(plan), true) => {
                lines.push(format!("gs/{group}{}", if self.exists { "" } else { " (new)" }));
                lines.extend(table(plan).render(colours).lines().map(|line| format!("  {line}")));
            }
        }
        lines.extend(self.notes.iter().map(|note| format!("  note: {note}")));
        if let Some(plan) = &self.waiting {
            let shown = self.plan.as_ref().is_some_and(|own| table(own).render(false) == table(plan).render(false));
            lines.push(format!("  {}:", if shown { "this waits for approval" } else { "waits for approval now" }));
            // What was just said is not said again.
            let known = if shown { table(plan).render(false).lines().count() } else { 0 };
            lines.extend(of_status(group, plan).iter().skip(known).map(|line| format!("    {line}")));
        }
        lines.join("\n")
    }
}

/// A plan as the operator shows it in the status.
pub fn of_status(group: &str, plan: &PlanStatus) -> Vec<String> {
    let mut lines: Vec<String> = table(plan).render(false).lines().map(str::to_owned).collect();
    lines.push(format!("digest: {}", plan.digest));
    lines.push(format!("approve it: kubectl pallet approve {group} {}", plan.digest));
    lines
}

fn table(plan: &PlanStatus) -> Table {
    let mut table = Table::new(&["DO", "NODES", "SINCE"]);
    if !plan.creates.is_empty() {
        table.row(vec!["create".into(), plan.creates.clone().into(), "they are missing".into()]);
    }
    for removal in &plan.removals {
        table.row(vec!["remove".into(), removal.nodes.clone().into(), format!("surplus: {}", removal.reason).into()]);
    }
    if !plan.replaces.is_empty() {
        table.row(vec!["replace".into(), plan.replaces.clone().into(), "the pod template has changed".into()]);
    }
    for phase in &plan.phases {
        let nodes = if phase.nodes.is_empty() { "none now" } else { &phase.nodes };
        table.row(vec![format!("run {}", phase.phase).into(), nodes.into(), phase.reason.clone().into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_a_table_of_what_is_done_where_and_why() {
        let plan: PlanStatus = serde_json::from_value(json!({"digest": "d", "generation": 2, "creates": "3-4",
            "removals": [{"nodes": "7", "reason": "highest ordinal"}],
            "phases": [{"phase": "configure", "nodes": "0-4", "reason": "changed"}, {"phase": "bootstrap", "nodes": "", "reason": "changed"}]}))
        .unwrap();
        let planned = Planned { group: "web".into(), exists: true, plan: Some(plan), ..Planned::default() };
        assert_eq!(
            planned.render(false),
            "gs/web\n  DO              NODES      SINCE\n  create          3-4        they are missing\n  remove          7          surplus: highest ordinal\n  \
             run configure   0-4        changed\n  run bootstrap   none now   changed"
        );
    }

    #[test]
    fn what_would_be_stalled_says_why_and_shows_no_plan() {
        let planned = Planned { group: "web".into(), errors: vec!["spec.x: y".into()], ..Planned::default() };
        assert_eq!(planned.render(false), "gs/web: nothing could be done, it would be Stalled:\n  spec.x: y");
    }
}

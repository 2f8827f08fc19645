//! Pure: how the phases of a node are filled in: rendered for a session, or looked up for a plan.

use std::{cell::OnceCell, sync::Arc};

use super::{Identity, Look};
use crate::{
    group::Attributes,
    phase::{
        Action, Digest, PhaseName,
        render::{
            RenderError, Rendered,
            memo::{Hash, Key},
        },
    },
};

/// A phase that was filled in for a node.
pub trait Filled {
    /// Its name.
    fn phase(&self) -> &PhaseName;
    /// Over what it does.
    fn digest(&self) -> &Digest;
}

impl Filled for Rendered {
    fn phase(&self) -> &PhaseName {
        &self.phase
    }
    fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// What a plan has to know of a phase that was filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Its name.
    pub phase: PhaseName,
    /// Over what it does.
    pub digest: Digest,
}

impl Filled for Outline {
    fn phase(&self) -> &PhaseName {
        &self.phase
    }
    fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// How phases are filled in.
pub(super) trait Fill: Sized {
    /// What comes of it.
    type Of: Filled;
    /// Whether the values of settings can be filled in.
    fn values(look: &Look<'_, Self>) -> Result<(), RenderError>;
    /// Fills a phase in.
    fn phase(look: &Look<'_, Self>, phase: &PhaseName, actions: &Arc<Vec<Action>>) -> Result<Self::Of, RenderError>;
}

/// Renders.
pub(super) struct Whole;

impl Fill for Whole {
    type Of = Rendered;
    fn values(look: &Look<'_, Self>) -> Result<(), RenderError> {
        look.values().as_ref().map(|_| ()).map_err(Clone::clone)
    }
    fn phase(look: &Look<'_, Self>, phase: &PhaseName, actions: &Arc<Vec<Action>>) -> Result<Rendered, RenderError> {
        look.render(phase, actions)
    }
}

/// Renders what the memo of the group does not know.
#[derive(Default)]
pub(super) struct Remembered {
    key: OnceCell<Key>,
}

impl Fill for Remembered {
    type Of = Outline;
    fn values(look: &Look<'_, Self>) -> Result<(), RenderError> {
        let fill = || look.values().as_ref().map(|_| ()).map_err(Clone::clone);
        // Nothing to fill in is known without a look.
        if look.group.phases.settings.values.is_empty() {
            return Ok(());
        }
        look.group.memo.values(look.identity.ordinal, look.key(), fill)
    }
    fn phase(look: &Look<'_, Self>, phase: &PhaseName, actions: &Arc<Vec<Action>>) -> Result<Outline, RenderError> {
        let render = || look.render(phase, actions).map(|rendered| rendered.digest);
        let digest = look.group.memo.phase(look.identity.ordinal, look.key(), phase, actions, render)?;
        Ok(Outline { phase: phase.clone(), digest })
    }
}

impl Look<'_, Remembered> {
    /// Over everything that templates see and that is not of the parsed group itself.
    fn key(&self) -> Key {
        let hash = || {
            let (group, mut hash) = (self.group, Hash::default());
            let Identity { name, ordinal, address, attributes, retry_token: _, ack: _ } = self.identity;
            let Attributes { host, labels, params } = &**attributes;
            [&group.key.namespace, &group.key.name, name, address, host].into_iter().for_each(|text| hash.text(text));
            hash.number(labels.len() as u64);
            labels.iter().for_each(|(name, value)| [name, value].into_iter().for_each(|text| hash.text(text)));
            hash.values(params.iter());
            [group.count, *ordinal, u32::from(self.is_chosen())].into_iter().for_each(|n| hash.number(n.into()));
            hash.text(&super::login(group, self.identity).map(|login| login.user).unwrap_or_default());
            hash.bytes(&group.memo.inputs(&group.inputs));
            hash.values(self.record.facts.iter());
            hash.end()
        };
        *self.fill.key.get_or_init(hash)
    }
}

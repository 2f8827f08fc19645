//! IO: what virtual machines are told at their first start, in Secrets: keys that are made here and nowhere else.

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Api, api::PostParams};

use super::{Applier, Error, key_pair::KeyPair, within};
use pallet_api::reason::Reason;
use pallet_core::{
    group::{Group, VirtualMachineShape},
    node::{
        cloud_init::{self, Additions, Own},
        virtual_machine::{LOGIN_KEY, Told, build_group_secret, build_secret, group_secret_name, secret_name},
    },
    plan::TemplateVerdict,
};

impl Applier<'_> {
    /// Creates the Secret of a virtual machine, and that of its group, where they are not there.
    pub(super) async fn post_secrets(
        &self,
        group: &Group,
        shape: &VirtualMachineShape,
        name: &str,
        node_uid: &str,
    ) -> Result<(), Error> {
        let (secrets, secret) = (self.secrets(), secret_name(name, node_uid, &shape.hash));
        let own =
            |secret: &Secret| secret.metadata.owner_references.iter().flatten().any(|owner| owner.uid == node_uid);
        match within("get secret", secrets.get_opt(&secret)).await? {
            Some(found) if own(&found) => return Ok(()),
            Some(_) => return self.refuse_template(group, taken(&secret)),
            None => {}
        }
        let (login, user_data) = match self.needed(group, shape).await? {
            Ok(needed) => needed,
            Err(verdict) => return self.refuse_template(group, verdict),
        };
        let host = KeyPair::generate()?;
        let merged = match merged(shape, user_data.as_deref(), &login, &host) {
            Ok(merged) => merged,
            Err(verdict) => return self.refuse_template(group, verdict),
        };
        let told = Told { user_data: &merged, login: &login.private, host: &host.public };
        self.post_secret(&secrets, build_secret(group, (name, node_uid), &secret, &told)).await
    }

    /// Whether a virtual machine could be told what it needs: asked before any is replaced for one that could not be made.
    pub(super) async fn check_secrets(
        &self,
        group: &Group,
        shape: &VirtualMachineShape,
    ) -> Result<TemplateVerdict, Error> {
        let (login, user_data) = match self.needed(group, shape).await? {
            Ok(needed) => needed,
            Err(verdict) => return Ok(verdict),
        };
        // Which key it is makes no difference.
        Ok(merged(shape, user_data.as_deref(), &login, &login).err().unwrap_or(TemplateVerdict::Accepted))
    }

    /// The key pair to log in with, and the user's own user data; or why they are not to be had.
    async fn needed(
        &self,
        group: &Group,
        shape: &VirtualMachineShape,
    ) -> Result<Result<(KeyPair, Option<String>), TemplateVerdict>, Error> {
        let login = match self.group_key(group).await {
            Ok(Some(login)) => login,
            Ok(None) => return Ok(Err(taken(&group_secret_name(&group.key.name)))),
            Err(Error::Unfit(message)) => return Ok(Err(invalid(message))),
            Err(error) => return Err(error),
        };
        match self.user_data(shape).await {
            Ok(user_data) => Ok(Ok((login, user_data))),
            Err(Error::Unfit(message)) => Ok(Err(invalid(message))),
            Err(error) => Err(error),
        }
    }

    /// The key pair that the operator logs in with on the machines of a group: that of its Secret, which is made where it is
    /// not there. Nothing where somebody else's Secret has its name.
    async fn group_key(&self, group: &Group) -> Result<Option<KeyPair>, Error> {
        let (secrets, name) = (self.secrets(), group_secret_name(&group.key.name));
        for _ in 0..3 {
            if let Some(found) = within("get secret", secrets.get_opt(&name)).await? {
                if self.was_ours(&found) {
                    return Err(Error::NotYet("the Secret of a former group of this name is going"));
                }
                if !self.is_ours(&found) {
                    return Ok(None);
                }
                let private = found.data.and_then(|mut data| data.remove(LOGIN_KEY)).unwrap_or_default();
                let private = String::from_utf8(private.0).unwrap_or_default();
                let pair = KeyPair::read(&private);
                return pair.map(Some).ok_or_else(|| {
                    Error::Unfit(format!(
                        "the Secret {name} holds no private key under {LOGIN_KEY}; delete it, and one is made"
                    ))
                });
            }
            let pair = KeyPair::generate()?;
            let secret = build_group_secret(group, &pair.private, &pair.public);
            match self.post_secret(&secrets, secret).await {
                Ok(()) => return Ok(Some(pair)),
                // Another pass was faster.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unplanned("the Secret of the group's key pair was made and removed again and again"))
    }

    /// The user's own user data.
    async fn user_data(&self, shape: &VirtualMachineShape) -> Result<Option<String>, Error> {
        let own = cloud_init::own(&shape.template)
            .map_err(|_| Error::Unplanned("user data that was found sound and is not"))?;
        let name = match own {
            Own::None => return Ok(None),
            Own::Text(text) => return Ok(Some(text)),
            Own::Secret(name) => name,
        };
        let found = within("get secret", self.secrets().get_opt(&name)).await?;
        let mut data = found.and_then(|secret| secret.data).unwrap_or_default();
        // KubeVirt takes either.
        let text = ["userdata", "userData"].into_iter().find_map(|key| data.remove(key));
        let text = text.and_then(|text| String::from_utf8(text.0).ok());
        text.map(Some).ok_or_else(|| {
            Error::Unfit(format!("the Secret {name} with the user data is not there, or holds no text under userdata"))
        })
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    /// Whether it is the Secret of the group itself.
    fn is_ours(&self, secret: &Secret) -> bool {
        secret.metadata.owner_references.iter().flatten().any(|owner| owner.uid == self.snapshot.head.uid)
    }

    /// Whether it is that of a former group of the same name, which the collector takes in a moment.
    fn was_ours(&self, secret: &Secret) -> bool {
        let head = &self.snapshot.head;
        let former =
            |owner: &OwnerReference| owner.kind == "GroupSpec" && owner.name == head.key.name && owner.uid != head.uid;
        secret.metadata.owner_references.iter().flatten().any(former)
    }

    /// Has the status say why no machine can be made.
    fn refuse_template(&self, group: &Group, verdict: TemplateVerdict) -> Result<(), Error> {
        let message = match &verdict {
            TemplateVerdict::Refused { message, .. } => message.clone(),
            TemplateVerdict::Unchecked | TemplateVerdict::Accepted => return Ok(()),
        };
        self.remember_verdict(group, verdict);
        Err(Error::Unfit(message))
    }

    async fn post_secret(&self, secrets: &Api<Secret>, secret: serde_json::Value) -> Result<(), Error> {
        let secret: Secret = serde_json::from_value(secret).map_err(|_| Error::Unplanned("a Secret that is none"))?;
        within("create secret", secrets.create(&PostParams::default(), &secret)).await.map(|_| ())
    }
}

/// The user data of a machine, or why what the user has of it cannot be merged.
fn merged(
    shape: &VirtualMachineShape,
    user_data: Option<&str>,
    login: &KeyPair,
    host: &KeyPair,
) -> Result<String, TemplateVerdict> {
    let additions = Additions {
        user: &shape.user,
        authorized_key: login.public.trim(),
        host_key: &host.private,
        host_public_key: host.public.trim(),
    };
    cloud_init::merge(user_data, &additions)
        .map_err(|message| invalid(format!("its user data for cloud-init: {message}")))
}

/// Somebody else's Secret stands at a name that is needed: nothing can be made before it is gone.
fn taken(name: &str) -> TemplateVerdict {
    let message = format!("there is a Secret {name} that does not belong to this group; delete or rename it");
    TemplateVerdict::Refused { reason: Reason::NameConflict, message }
}

fn invalid(message: String) -> TemplateVerdict {
    TemplateVerdict::Refused { reason: Reason::InvalidTemplate, message }
}

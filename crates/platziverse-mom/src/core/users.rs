//! Users: who may ask for anything.

use std::net::IpAddr;

use platziverse_store::mom::{self, UserDeletion};
use uuid::Uuid;

use crate::core::key::{self, KeyForm};
use crate::core::{Caller, Code, Core, Refusal};

/// A user who has just been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// Who it is.
    pub id: Uuid,
    /// The key, which is shown this once.
    pub key: String,
}

impl Core {
    /// Makes a user, whose key has the form that is asked for. `from` is where the request came from.
    pub async fn create_user(
        &self,
        form: KeyForm,
        from: Option<IpAddr>,
    ) -> Result<NewUser, Refusal> {
        if !self.inner.settings.open_registration {
            let detail =
                "this server lets no new users in (mom.open_registration); ask its operator";
            return Err(Refusal::new(Code::RegistrationClosed, detail));
        }
        if let Some(address) = from {
            self.inner.limits.registration(address)?;
        }
        let key = key::make(form)?;
        let id = mom::create_user(&self.inner.store, key::hash(&key)).await?;
        Ok(NewUser { id, key })
    }

    /// The user who has the key.
    pub async fn user(&self, caller: &Caller) -> Result<Uuid, Refusal> {
        Ok(self.ask(caller, None).await?.0)
    }

    /// Gives the user another key; the old one is unknown from now on.
    pub async fn rotate_key(&self, caller: &Caller) -> Result<String, Refusal> {
        let user = self.user(caller).await?;
        let key = key::make(KeyForm::Current)?;
        match mom::rotate_key(&self.inner.store, user, key::hash(&key)).await? {
            true => Ok(key),
            false => Err(gone()),
        }
    }

    /// Deletes the user, whose subscriptions end soon after, with what is in them.
    pub async fn delete_user(&self, caller: &Caller) -> Result<(), Refusal> {
        let user = self.user(caller).await?;
        match mom::delete_user(&self.inner.store, user).await? {
            UserDeletion::Deleted => Ok(()),
            UserDeletion::HasObjects => {
                let detail = "the user has created topics or queues: delete them first";
                Err(Refusal::new(Code::HasObjects, detail))
            }
            UserDeletion::Unknown => Err(gone()),
        }
    }
}

/// That the user has been deleted meanwhile.
pub(super) fn gone() -> Refusal {
    Refusal::new(Code::UnknownKey, "the user has just been deleted")
}

//! What clients of the older system ask for.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::core::{
    AckMode, Caller, Code, Core, KeyForm, NewMessage, ObjectKind, ObjectOptions, Outcome, PAGE_MAX,
    Page, Refusal, Taken, Which,
};

/// The most names of a list: it is answered in one piece.
const NAMES_MAX: usize = 10_000;
/// What a message is.
const TEXT: &str = "text/plain; charset=utf-8";

/// Everything that is asked for by key and, but for lists, by name.
#[derive(Clone)]
pub(super) struct Verbs {
    core: Core,
}

impl Verbs {
    pub(super) fn new(core: &Core) -> Self {
        Self { core: core.clone() }
    }

    /// A new user's key.
    pub(super) async fn create_user(&self, from: Option<IpAddr>) -> Result<String, Code> {
        let user = self.core.create_user(KeyForm::Older, from).await.map_err(code)?;
        Ok(user.key)
    }

    pub(super) async fn create(
        &self,
        key: &str,
        kind: ObjectKind,
        name: Option<&str>,
    ) -> Result<(), Code> {
        let caller = Caller::of(key);
        let options = ObjectOptions::default();
        match self.core.create(&caller, kind, given(name)?, options).await.map_err(code)? {
            Outcome::New => Ok(()),
            Outcome::Exists => Err(Code::AlreadyExists),
        }
    }

    pub(super) async fn delete(
        &self,
        key: &str,
        kind: ObjectKind,
        name: Option<&str>,
    ) -> Result<(), Code> {
        self.core.delete(&Caller::of(key), kind, given(name)?).await.map_err(code)
    }

    /// The names of what the user has created.
    pub(super) async fn list(&self, key: &str, kind: ObjectKind) -> Result<Vec<String>, Code> {
        let caller = Caller::of(key);
        let mut names = Vec::new();
        let mut page =
            Page { which: Which::Created, after: None, limit: PAGE_MAX, with_counts: false };
        loop {
            let listed = self.core.list(&caller, kind, &page).await.map_err(code)?;
            names.extend(listed.items.into_iter().map(|item| item.object.name));
            if listed.next.is_none() || names.len() >= NAMES_MAX {
                return Ok(names);
            }
            page.after = listed.next;
        }
    }

    pub(super) async fn subscribe(
        &self,
        key: &str,
        kind: ObjectKind,
        name: Option<&str>,
    ) -> Result<(), Code> {
        self.core.subscribe(&Caller::of(key), kind, given(name)?).await.map_err(code)
    }

    pub(super) async fn publish(
        &self,
        key: &str,
        kind: ObjectKind,
        name: Option<&str>,
        message: Option<String>,
    ) -> Result<(), Code> {
        let message = NewMessage {
            content_type: Some(TEXT.to_owned()),
            body: Bytes::from(message.ok_or(Code::InvalidRequest)?),
            ..NewMessage::default()
        };
        let published = self.core.publish(&Caller::of(key), kind, given(name)?, message).await;
        published.map(drop).map_err(code)
    }

    /// The next message, which is acknowledged with the answer.
    pub(super) async fn consume(
        &self,
        key: &str,
        kind: ObjectKind,
        name: Option<&str>,
    ) -> Result<String, Code> {
        let caller = Caller::of(key);
        let taken =
            self.core.consume(&caller, kind, given(name)?, Duration::ZERO, AckMode::Auto).await;
        match taken.map_err(code)? {
            // Others may publish what is no text.
            Some(Taken { message, .. }) => Ok(String::from_utf8_lossy(&message.body).into_owned()),
            None => Err(Code::Empty),
        }
    }
}

fn given(name: Option<&str>) -> Result<&str, Code> {
    name.ok_or(Code::InvalidRequest)
}

fn code(refusal: Refusal) -> Code {
    refusal.code
}

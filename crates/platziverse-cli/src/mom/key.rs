//! `platziverse key`: the key that an application shows to topics and queues.

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::{Access, Server, Session};
use crate::settings::Context;
use crate::{output, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a user of topics and queues; its key is told this once
    Create {
        #[command(flatten)]
        server: Server,
        /// Write the key to a new file, which only you can read, instead of printing it
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// As JSON: {"id": …, "key": …}; without the key if it is in a file
        #[arg(long)]
        json: bool,
    },
    /// Replace a key: the old one is invalid at once. With --key-file, the new one is written there
    Rotate {
        #[command(flatten)]
        access: Access,
        /// As JSON: {"key": …}; without the key if it is in a file
        #[arg(long)]
        json: bool,
    },
    /// Show whose key it is
    Show {
        #[command(flatten)]
        access: Access,
        /// As JSON: {"id": …}
        #[arg(long)]
        json: bool,
    },
    /// Delete the user, once it has no topics and queues; its subscriptions go with it
    Delete {
        #[command(flatten)]
        access: Access,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// As JSON: {"deleted": the user's id}
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// What a person who stops the command in the middle should know.
    pub(crate) fn when_interrupted(&self) -> Option<&'static str> {
        match self {
            Self::Show { .. } => None,
            Self::Create { .. } => Some("; there may be a user whose key nobody knows"),
            Self::Rotate { .. } => Some("; the old key may be invalid"),
            Self::Delete { .. } => Some("; it may have been done"),
        }
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Create { server, key_file, json } => {
            create(&server, key_file.as_deref(), json, context).await
        }
        Command::Rotate { access, json } => {
            let session = Session::open(&access, &context.load()?)?;
            rotate(&session, access.key_file.as_deref(), json).await
        }
        Command::Show { access, json } => {
            let session = Session::open(&access, &context.load()?)?;
            let id = session.ask(session.client.user()).await?;
            match json {
                true => output::print_json(&json!({ "id": id })),
                false => output::print(&format!("{id}\n")),
            }
        }
        Command::Delete { access, yes, json } => {
            let session = Session::open(&access, &context.load()?)?;
            let id = session.ask(session.client.user()).await?;
            if !yes {
                terminal::confirm(&format!("Delete the user {id} for good?")).await?;
            }
            session.ask(session.client.delete_user()).await?;
            match json {
                true => output::print_json(&json!({ "deleted": id })),
                false => output::print(&format!("Deleted the user {id}.\n")),
            }
        }
    }
}

async fn create(
    server: &Server,
    file: Option<&Path>,
    json: bool,
    context: &Context,
) -> anyhow::Result<()> {
    let address = server.address(&context.load()?);
    let client = address.builder().build()?;
    // Where the key cannot be kept, nobody is created.
    let kept = file.map(|path| open(path, true).map(|file| (path, file))).transpose()?;
    let made = address.ask(client.register()).await;
    let user = match (made, &kept) {
        (Ok(user), _) => user,
        (Err(error), kept) => {
            // An empty file would be in the way of the next try.
            kept.iter().for_each(|(path, _)| drop(std::fs::remove_file(path)));
            return Err(error);
        }
    };
    let Some((path, mut file)) = kept else {
        return match json {
            true => output::print_json(&json!({ "id": user.id, "key": user.key })),
            false => output::print(&format!("{}\n", user.key)),
        };
    };
    write(path, &mut file, &user.key)?;
    match json {
        true => output::print_json(&json!({ "id": user.id })),
        false => {
            output::print(&format!("Created {}; its key is in {}.\n", user.id, path.display()))
        }
    }
}

async fn rotate(session: &Session, file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let kept = file.map(|path| open(path, false).map(|file| (path, file))).transpose()?;
    let key = session.ask(session.client.rotate_key()).await?;
    let Some((path, mut file)) = kept else {
        return match json {
            true => output::print_json(&json!({ "key": key })),
            false => output::print(&format!("{key}\n")),
        };
    };
    write(path, &mut file, &key)?;
    match json {
        true => output::print_json(&json!({})),
        false => output::print(&format!("The new key is in {}.\n", path.display())),
    }
}

/// Opens a file for a key: a new one, or one that is there.
fn open(path: &Path, is_new: bool) -> anyhow::Result<File> {
    let opened = OpenOptions::new().write(true).create_new(is_new).mode(0o600).open(path);
    opened.with_context(|| format!("opening {} for the key", path.display()))
}

/// Writes a key over what the file has. Where that fails, it is printed: nobody else knows it.
fn write(path: &Path, file: &mut File, key: &str) -> anyhow::Result<()> {
    let written = file
        .rewind()
        .and_then(|()| file.set_len(0))
        .and_then(|()| writeln!(file, "{key}"))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        output::print(&format!("{key}\n"))?;
    }
    written.with_context(|| format!("writing the key, which is printed now, to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_its_owners_alone_and_never_another_file() {
        let path = std::env::temp_dir().join(format!("platziverse-new-key-{}", std::process::id()));
        write(&path, &mut open(&path, true).unwrap(), "pk_longer").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(open(&path, true).is_err());
        write(&path, &mut open(&path, false).unwrap(), "pk_2").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "pk_2\n");
        std::fs::remove_file(&path).unwrap();
        assert!(open(&path, false).is_err());
    }
}

//! What the rows of a fault's own agents say while it holds.

use std::time::Duration;

use crate::stage::Stage;

/// Waits until `count` agents whose uuid is like `like` are connected.
pub(super) async fn are_present(
    stage: &mut Stage,
    like: &str,
    count: usize,
    within: Duration,
) -> Result<(), String> {
    stage
        .until(&format!("{count} agents like {like} are connected"), within, async |stage| {
            match present(stage, like).await? {
                seen if seen == count => Ok(()),
                seen => Err(format!("{seen} are")),
            }
        })
        .await
}

/// How many agents whose uuid is like `like` are connected.
pub(super) async fn present(stage: &Stage, like: &str) -> Result<usize, String> {
    let question = format!("SELECT count(*) FROM agents WHERE connected AND uuid LIKE '{like}'");
    let rows = stage.world.database().try_sql(&question).await?;
    let count = rows.first().and_then(|row| row.first().cloned().flatten());
    count.and_then(|count| count.parse().ok()).ok_or_else(|| "no count".to_owned())
}

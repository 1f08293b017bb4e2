//! Generated files.
use crate::workspace::Workspace;
use anyhow::Result;
pub(crate) fn command(_: &Workspace, _: &[String], _: bool, _: bool) -> Result<()> {
    Ok(())
}

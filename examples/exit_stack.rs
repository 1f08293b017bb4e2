//! Build a package from any number of parts: what was set up is taken down again, last first, unless all went well.
//!
//! ```console
//! cargo run --example exit_stack
//! cargo run --example exit_stack -- cover text index --broken text
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use context_managers::{ExitStack, Owner};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::fs;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// Build a package three times: it fails at a part, it succeeds, and its caller gives up. The files are real, the clock is
/// virtual.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 the second and third attempt left nothing behind, 1 they did, 2 bad arguments."
)]
struct Args {
    /// The parts of the package; each is a file
    #[arg(default_values = ["cover", "text", "index"], value_parser = name)]
    parts: Vec<String>,
    /// The part that fails in the first attempt
    #[arg(long, default_value = "index")]
    broken: String,
    /// Milliseconds after which the caller of the third attempt gives up
    #[arg(long, default_value = "25", value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    patience: u32,
    #[command(flatten)]
    picture: PictureArgs,
}

fn name(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.chars().all(|it| it.is_alphanumeric() || it == '-');
    if plain { Ok(text.into()) } else { Err("a part is named with letters, digits and `-`".into()) }
}

const MS: Duration = Duration::from_millis(1);

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let place = tempfile::tempdir().context("no room for files")?;
    let (result, picture) = record("exit_stack", run(&args, place.path())).await;
    result?;
    args.picture.show(&picture).context("cannot write the picture")?;
    let left = ["second", "third"].iter().any(|attempt| place.path().join(attempt).exists());
    Ok(ExitCode::from(u8::from(left)))
}

async fn run(args: &Args, place: &Path) -> anyhow::Result<()> {
    let owner = Owner::new(Handle::current());
    let broken = Some(args.broken.as_str());
    let hour = Duration::from_secs(3600);
    for (attempt, broken, patience) in
        [("first", broken, hour), ("second", None, hour), ("third", None, args.patience * MS)]
    {
        let folder = place.join(attempt);
        let build = build(&owner, &folder, &args.parts, broken).try_lane(format!("{attempt} build"));
        match timeout(patience, build).await {
            Err(_) => println!("{attempt}: given up, the owner takes it down"),
            Ok(Err(error)) => println!("{attempt}: {error:#}"),
            Ok(Ok(package)) => {
                println!("{attempt}: built, {} cleanups for later", package.len());
                package.close().lane("take it down").await?;
                println!("{attempt}: taken down");
            }
        }
    }
    let report = owner.finish().await;
    println!("the owner took down {}, failures: {}", report.finished, report.failures.len());
    Ok(())
}

/// Returns the cleanups of what was built. When it fails, they have run.
async fn build(
    owner: &Owner,
    folder: &Path,
    parts: &[String],
    broken: Option<&str>,
) -> anyhow::Result<ExitStack> {
    let mut stack = ExitStack::new(owner);
    let Err(error) = set_up(&mut stack, folder, parts, broken).await else {
        return Ok(stack.pop_all());
    };
    match stack.close().await {
        Ok(()) => Err(error),
        Err(unclean) => bail!("{error:#}; then {unclean}"),
    }
}

async fn set_up(
    stack: &mut ExitStack,
    folder: &Path,
    parts: &[String],
    broken: Option<&str>,
) -> anyhow::Result<()> {
    fs::create_dir(folder).await.context("cannot create the folder")?;
    stack.push("folder", cleanup("folder", remove_folder(folder.into())));
    for part in parts {
        waiting("io", sleep(10 * MS)).lane(format!("build {part}")).await;
        if broken == Some(part) {
            // Half a file that no cleanup knows of.
            fs::write(folder.join("half"), part).await?;
            bail!("{part} cannot be built");
        }
        let file = folder.join(part);
        fs::write(&file, part).await.with_context(|| format!("cannot write {part}"))?;
        stack.push(part.as_str(), cleanup(part, remove_file(file)));
    }
    Ok(())
}

/// A lane that begins when the cleanup runs.
fn cleanup(
    name: &str,
    work: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
    let name = name.to_owned();
    async move { work.try_lane(format!("remove {name}")).await }
}

async fn remove_file(file: PathBuf) -> std::io::Result<()> {
    waiting("io", sleep(10 * MS)).await;
    fs::remove_file(file).await
}

async fn remove_folder(folder: PathBuf) -> std::io::Result<()> {
    waiting("io", sleep(10 * MS)).await;
    fs::remove_dir(folder).await
}

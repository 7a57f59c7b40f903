//! What a container gets of its machine: limits by `docker update`, and how often it has met them.
//!
//! Decides what the figures are, and how limits are taken back: to what the container had when the run began.
//! Docker keeps them over restarts, so they must be. What was met is read in the control group of the
//! container's process, of version 1 or 2, where this machine sees it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Resource;
use super::docker::{self, CALL_TIMEOUT, Container, DockerError, Limits};
use crate::faults::processes::{GroupOf, PERIOD_US};

/// Bytes that are no limit: as many pages as the kernel counts to. Docker does not take a limit of memory back.
const MEMORY_UNLIMITED: i64 = i64::MAX - 4095;
/// Between two attempts at a container that Docker is just starting again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Holds a container, whose process is `pid`, to `amount` of a resource. Says what it has now.
pub(super) async fn hold(
    container: &Container,
    pid: u32,
    resource: Resource,
    amount: u64,
) -> Result<String, DockerError> {
    match resource {
        Resource::Cpu => {
            let quota = (PERIOD_US * amount / 100).to_string();
            update(&container.id, &cpu(&PERIOD_US.to_string(), &quota)).await?;
            Ok(format!("{amount} % of a core"))
        }
        Resource::Memory => {
            let has = taken(&GroupOf::process(pid, "memory")).ok_or_else(|| DockerError::Answer {
                call: "look at memory".to_owned(),
                why: "its control group is not seen here".to_owned(),
            })?;
            let limit = has + amount;
            update(&container.id, &memory(&limit.to_string(), &limit.to_string())).await?;
            Ok(format!(
                "no more than {} MiB, of which it has taken {}",
                limit >> 20,
                has >> 20
            ))
        }
    }
}

/// Gives a container back what it could use before.
pub(super) async fn let_go(id: &str, before: Limits, resource: Resource) -> Result<(), DockerError> {
    let line = match resource {
        // A period that was never set is no period.
        Resource::Cpu if before.cpu_quota > 0 => cpu(
            &before.cpu_period.max(1_000).to_string(),
            &before.cpu_quota.to_string(),
        ),
        Resource::Cpu => cpu(&PERIOD_US.to_string(), "-1"),
        Resource::Memory => {
            let bytes = |told: i64| if told > 0 { told } else { MEMORY_UNLIMITED };
            let (limit, with_swap) = (bytes(before.memory), bytes(before.memory_swap));
            memory(&limit.to_string(), &with_swap.max(limit).to_string())
        }
    };
    let deadline = Instant::now() + CALL_TIMEOUT;
    loop {
        match update(id, &line).await {
            Err(error) if is_starting(&error) && Instant::now() < deadline => sleep(RESTART_PAUSE).await,
            done => return done,
        }
    }
}

/// How often a process's control group was held to a limit, where that is seen.
pub(super) fn times_met(pid: u32, resource: Resource) -> Option<u64> {
    match resource {
        Resource::Cpu => GroupOf::process(pid, "cpu").number("cpu.stat", "nr_throttled "),
        Resource::Memory => {
            let group = GroupOf::process(pid, "memory");
            let old = group.number("memory.failcnt", "");
            old.or_else(|| group.number("memory.events", "max "))
        }
    }
}

/// Bytes that a control group cannot give back: all that it has but for copies of what is on disk.
fn taken(group: &GroupOf) -> Option<u64> {
    let (all, copies) = match group.number("memory.usage_in_bytes", "") {
        Some(all) => (all, group.number("memory.stat", "cache ")?),
        None => (
            group.number("memory.current", "")?,
            group.number("memory.stat", "file ")?,
        ),
    };
    Some(all.saturating_sub(copies))
}

fn cpu(period: &str, quota: &str) -> [String; 4] {
    ["--cpu-period", period, "--cpu-quota", quota].map(str::to_owned)
}

fn memory(limit: &str, with_swap: &str) -> [String; 4] {
    ["--memory", limit, "--memory-swap", with_swap].map(str::to_owned)
}

async fn update(id: &str, what: &[String]) -> Result<(), DockerError> {
    let what = what.iter().map(String::as_str);
    let line: Vec<&str> = ["docker", "update"].into_iter().chain(what).chain([id]).collect();
    docker::call(&line, CALL_TIMEOUT).await.map(drop)
}

/// Whether a call was refused since Docker is starting the container again, which ended over a limit.
fn is_starting(error: &DockerError) -> bool {
    matches!(error, DockerError::Failed { output, .. } if output.contains("is restarting"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_docker_starts_again_is_asked_once_more_and_others_are_not() {
        let failed = |output: &str| DockerError::Failed {
            call: "docker update".into(),
            output: output.into(),
        };
        assert!(is_starting(&failed(
            "Error response from daemon: Cannot update container a: Container a is restarting, wait until the \
             container is running"
        )));
        assert!(!is_starting(&failed("Error: No such container: a")));
    }

    #[test]
    fn memory_that_is_taken_is_all_but_copies_of_files_in_either_version_of_groups() {
        let folder = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        let group = GroupOf::folder(folder.path());
        assert_eq!(taken(&group), None);
        put("memory.current", "900\n");
        put("memory.stat", "anon 100\nfile 300\nfile_mapped 50\ncache 200\n");
        assert_eq!(taken(&group), Some(600));
        put("memory.usage_in_bytes", "800\n");
        assert_eq!(taken(&group), Some(600));
        put("memory.usage_in_bytes", "100\n");
        assert_eq!(taken(&group), Some(0), "read at two moments");
    }
}

//! Waiting for something to become true: the only way in which a test waits.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Generous, since a busy machine is no defect; a test
/// that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Asks `probe` until it has an answer, and returns it.
///
/// # Panics
/// When there is none before `deadline`; `what` is what was waited for.
pub async fn eventually<T, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(
            started.elapsed() < deadline,
            "after {deadline:?} still not: {what}"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_returns_the_first_answer() {
        let mut looks = 0;
        let answer = eventually("three looks", PATIENCE, || {
            looks += 1;
            let seen = looks;
            async move { (seen == 3).then_some(seen) }
        });
        assert_eq!(answer.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "still not: the impossible")]
    async fn it_does_not_wait_for_ever() {
        eventually("the impossible", Duration::ZERO, || async { None::<()> }).await;
    }
}

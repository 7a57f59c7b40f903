//! Waiting for something to become true: the only way in which a test waits.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Generous, since a busy machine is no defect; a test
/// that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a look found: the answer, or what was seen in its place.
pub trait Look {
    /// The answer.
    type Answer;

    /// Takes it apart.
    fn answer(self) -> Result<Self::Answer, String>;
}

impl<T> Look for Option<T> {
    type Answer = T;

    fn answer(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Look for Result<T, E> {
    type Answer = T;

    fn answer(self) -> Result<T, String> {
        self.map_err(|seen| seen.to_string())
    }
}

/// Asks `probe` until it has an answer, and returns it.
///
/// # Panics
/// When there is none before `deadline`; `what` is what was waited for.
pub async fn eventually<L: Look, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> L::Answer
where
    F: Future<Output = L>,
{
    let started = Instant::now();
    loop {
        let seen = match probe().await.answer() {
            Ok(answer) => return answer,
            Err(seen) => seen,
        };
        assert!(
            started.elapsed() < deadline,
            "after {deadline:?} still not: {what}; last seen: {seen}"
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
    #[should_panic(expected = "still not: the impossible; last seen: the usual")]
    async fn it_does_not_wait_for_ever() {
        eventually("the impossible", Duration::ZERO, || async {
            Err::<(), _>("the usual")
        })
        .await;
    }
}

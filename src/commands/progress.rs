//! What people see while they wait: nothing for two seconds, then a bar or a spinner on standard
//! error, if that is a terminal.

use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Waiting that needs no explanation.
const QUIET: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);
const BAR: &str = "{msg}  [{bar:30}] {pos}/{len}  {eta} left";
const SPINNER: &str = "{spinner} {msg}  {elapsed}";

/// Waits for `work`, and after a while says what is waited for.
pub(crate) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    during(&hidden(ProgressBar::new_spinner(), SPINNER, what), work).await
}

/// A bar over `total` steps, to be shown by [`during`].
pub(crate) fn bar(what: &str, total: u64) -> ProgressBar {
    hidden(ProgressBar::new(total), BAR, what)
}

/// Waits for `work`, which moves `bar`, and after a while shows it.
pub(crate) async fn during<T>(bar: &ProgressBar, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        answer = &mut work => return answer,
        () = tokio::time::sleep(QUIET) => {}
    }
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.enable_steady_tick(TICK);
    let answer = work.await;
    bar.finish_and_clear();
    answer
}

fn hidden(bar: ProgressBar, template: &str, what: &str) -> ProgressBar {
    bar.set_draw_target(ProgressDrawTarget::hidden());
    // A template that cannot be read would leave indicatif's own, which is as good.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

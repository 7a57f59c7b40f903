//! W8: a service makes, changes and deletes configurations for a few devices of its own and moves these from lot to lot, all
//! of it through one gateway after the other; then it waits until the twins have followed.
//!
//! It changes nothing whose outcome it does not know: what was not answered is looked at and asked for again, under the
//! ETag that it had, so that an attempt which comes late changes nothing any more. A configuration that may have been made
//! twice is never deleted, since the second attempt could bring it back. Whether the twins are as they should be, the
//! checker says ([`crate::invariants::configurations`]), here as in the judgement.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Bench;
use super::survey::{Counts, Rule, Survey, Twin};
use crate::invariants::configurations::wrong;
use crate::stage;

/// Pause before something that was not answered is asked again, and between two looks at what twins say.
const PAUSE: Duration = Duration::from_millis(300);
/// Configurations at a time.
const RULES_MAX: usize = 5;
/// Changes before the twins are waited for.
const CHANGES_MAX: u32 = 3;
/// Lots that devices are in.
const LOTS: [&str; 3] = ["a", "b", "c"];
/// How long twins may take to follow when nothing is disturbed any more: a gateway that died is followed by another within
/// twenty seconds, which looks every two.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Makes the devices, and then one round of changes after the other until it is told to stop: `period` after the twins have
/// followed.
pub async fn run(bench: Bench, devices: usize, period: Duration) {
    let mut desk = Desk {
        random: StdRng::seed_from_u64(bench.seed ^ 0xC0_4F16),
        bench,
        node: 0,
        lots: BTreeMap::new(),
        rules: Vec::new(),
        made_count: 0,
        stopped_at: None,
    };
    for number in 0..devices {
        let device = format!("configured-{number}");
        let lot = desk.draw_lot().to_owned();
        let key = stage::draw_key(&mut desk.random);
        if !desk.bench.make_device(&device, &key).await {
            return;
        }
        desk.move_device(device, lot).await;
    }
    loop {
        for _ in 0..desk.random.random_range(1..=CHANGES_MAX) {
            desk.change().await;
        }
        desk.settle().await;
        if !desk.bench.wait_until(Instant::now() + period).await {
            return;
        }
    }
}

/// A configuration that is there.
struct Live {
    rule: Rule,
    etag: String,
    /// Whether an attempt to make it may come yet.
    may_come_again: bool,
}

/// The service.
struct Desk {
    bench: Bench,
    random: StdRng,
    /// The node that is asked next.
    node: usize,
    /// The devices, and the lot of each.
    lots: BTreeMap<String, String>,
    rules: Vec<Live>,
    made_count: u32,
    /// When it noticed that nothing new is to begin.
    stopped_at: Option<Instant>,
}

impl Desk {
    /// One attempt, at the next node.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let node = self.bench.turn(&mut self.node);
        let path = format!("{path}?api-version=2021-04-12");
        let condition = etag.map(|etag| format!("\"{etag}\""));
        let asked = (method, path.as_str());
        self.bench.ask_json(node, asked, body, condition.as_deref()).await
    }

    fn draw_lot(&mut self) -> &'static str {
        LOTS[self.random.random_range(0..LOTS.len())]
    }

    /// One change, to its end. It is not left half-way when it is time to stop: then everything answers.
    async fn change(&mut self) {
        let count = self.rules.len();
        match self.random.random_range(0..10) {
            0..3 if count < RULES_MAX => self.make().await,
            3..5 if count > 0 => {
                let place = self.random.random_range(0..count);
                if !self.rules[place].may_come_again {
                    let live = self.rules.swap_remove(place);
                    self.delete(live).await;
                }
            }
            5..8 if count > 0 => {
                let place = self.random.random_range(0..count);
                let live = self.rules.swap_remove(place);
                let live = self.alter(live).await;
                self.rules.push(live);
            }
            _ => {
                let devices: Vec<String> = self.lots.keys().cloned().collect();
                if let Some(device) = devices.get(self.random.random_range(0..devices.len().max(1))) {
                    let lot = self.draw_lot().to_owned();
                    self.move_device(device.clone(), lot).await;
                }
            }
        }
    }

    /// A priority that no other configuration has.
    fn draw_priority(&mut self) -> u32 {
        loop {
            let priority = self.random.random_range(1..1000);
            if self.rules.iter().all(|live| live.rule.priority != priority) {
                return priority;
            }
        }
    }

    fn draw_target(&mut self) -> Option<String> {
        let is_for_all = self.random.random_range(0..3) == 0;
        (!is_for_all).then(|| self.draw_lot().to_owned())
    }

    async fn make(&mut self) {
        self.made_count += 1;
        let rule = Rule {
            id: format!("rule-{}", self.made_count),
            priority: self.draw_priority(),
            lot: self.draw_target(),
            has_extra: self.made_count.is_multiple_of(2),
        };
        let path = format!("/configurations/{}", rule.id);
        let mut body = asked_for(&rule);
        body["content"] = content(&rule);
        body["metrics"] = json!({ "queries": { "own": format!("SELECT deviceId FROM devices WHERE properties.desired.setting = '{}'", rule.id) } });
        let mut may_come_again = false;
        loop {
            match self.ask(Method::PUT, &path, Some(&body), None).await {
                Some((StatusCode::OK | StatusCode::CREATED, _)) => break,
                // By an attempt that had no answer.
                Some((StatusCode::CONFLICT, _)) => break,
                Some((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _)) => {}
                _ => may_come_again = true,
            }
            sleep(PAUSE).await;
        }
        let etag = self.etag_of(&rule.id).await;
        self.rules.push(Live {
            rule,
            etag,
            may_come_again,
        });
    }

    async fn etag_of(&mut self, id: &str) -> String {
        self.look(id).await.map_or_else(String::new, |found| etag(&found))
    }

    /// A configuration that must be there; none if it is not, which the next survey shows.
    async fn look(&mut self, id: &str) -> Option<Value> {
        let path = format!("/configurations/{id}");
        loop {
            match self.ask(Method::GET, &path, None, None).await {
                Some((StatusCode::OK, found)) => return Some(found),
                Some((StatusCode::NOT_FOUND, _)) => return None,
                _ => sleep(PAUSE).await,
            }
        }
    }

    /// Gives it another priority and another target.
    async fn alter(&mut self, mut live: Live) -> Live {
        live.rule.priority = self.draw_priority();
        live.rule.lot = self.draw_target();
        let path = format!("/configurations/{}", live.rule.id);
        let body = asked_for(&live.rule);
        loop {
            let answer = self.ask(Method::PUT, &path, Some(&body), Some(&live.etag)).await;
            if let Some((StatusCode::OK, found)) = answer {
                live.etag = etag(&found);
                return live;
            }
            sleep(PAUSE).await;
            let Some(found) = self.look(&live.rule.id).await else {
                return live;
            };
            live.etag = etag(&found);
            if found["priority"] == body["priority"] && found["targetCondition"] == body["targetCondition"] {
                return live;
            }
        }
    }

    async fn delete(&mut self, mut live: Live) {
        let path = format!("/configurations/{}", live.rule.id);
        loop {
            match self.ask(Method::DELETE, &path, None, Some(&live.etag)).await {
                Some((StatusCode::NO_CONTENT | StatusCode::NOT_FOUND, _)) => return,
                Some((StatusCode::PRECONDITION_FAILED, _)) => live.etag = self.etag_of(&live.rule.id).await,
                _ => {}
            }
            sleep(PAUSE).await;
        }
    }

    async fn move_device(&mut self, device: String, lot: String) {
        let path = format!("/twins/{device}");
        let change = json!({ "tags": { "lot": lot } });
        loop {
            if let Some((StatusCode::OK, twin)) = self.ask(Method::GET, &path, None, None).await {
                if twin["tags"]["lot"] == lot.as_str() {
                    break;
                }
                let etag = etag(&twin);
                let changed = self.ask(Method::PATCH, &path, Some(&change), Some(&etag)).await;
                if matches!(changed, Some((StatusCode::OK, _))) {
                    break;
                }
            }
            sleep(PAUSE).await;
        }
        self.lots.insert(device, lot);
    }

    /// Looks until all is as it should be, or until it should have been for a while; writes down what it saw then.
    async fn settle(&mut self) {
        let changed_us = self.bench.now_us();
        loop {
            if self.stopped_at.is_none() && *self.bench.stop.borrow() {
                self.stopped_at = Some(Instant::now());
            }
            let is_late = self.stopped_at.is_some_and(|at| at.elapsed() > SETTLED_WITHIN);
            if let Some(survey) = self.survey(changed_us).await
                && (is_late || wrong(&survey).is_empty())
            {
                return self.bench.shelf.surveys.note(survey);
            }
            sleep(PAUSE).await;
        }
    }

    /// Everything as it is now; none if something was not answered.
    async fn survey(&mut self, changed_us: u64) -> Option<Survey> {
        let mut twins = Vec::new();
        for (device, lot) in self.lots.clone() {
            let path = format!("/twins/{device}");
            let (StatusCode::OK, twin) = self.ask(Method::GET, &path, None, None).await? else {
                return None;
            };
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let desired = &twin["properties"]["desired"];
            let marks = twin["configurations"].as_object().into_iter().flatten();
            twins.push(Twin {
                device,
                lot,
                shown_lot: text(&twin["tags"]["lot"]),
                setting: text(&desired["setting"]),
                extra: text(&desired["extra"]),
                marks: marks
                    .map(|(id, mark)| (id.clone(), text(&mark["status"])))
                    .collect(),
            });
        }
        let rules: Vec<Rule> = self.rules.iter().map(|live| live.rule.clone()).collect();
        let mut counts = Vec::new();
        for rule in &rules {
            let path = format!("/configurations/{}", rule.id);
            match self.ask(Method::GET, &path, None, None).await? {
                (StatusCode::OK, found) => {
                    let count = |metrics: &str, name: &str| {
                        found[metrics]["results"][name].as_u64().unwrap_or(u64::MAX)
                    };
                    counts.push(Counts {
                        id: rule.id.clone(),
                        targeted: count("systemMetrics", "targetedCount"),
                        applied: count("systemMetrics", "appliedCount"),
                        own: count("metrics", "own"),
                    });
                }
                (StatusCode::NOT_FOUND, _) => {}
                _ => return None,
            }
        }
        let us = self.bench.now_us();
        Some(Survey {
            changed_us,
            us,
            rules,
            twins,
            counts,
        })
    }
}

fn etag(found: &Value) -> String {
    found["etag"].as_str().unwrap_or_default().to_owned()
}

/// What can be asked for again and again of a configuration.
fn asked_for(rule: &Rule) -> Value {
    let target = match &rule.lot {
        Some(lot) => format!("tags.lot = '{lot}'"),
        None => "IS_DEFINED(tags.lot)".to_owned(),
    };
    json!({ "id": rule.id, "priority": rule.priority, "targetCondition": target })
}

/// What it says, for good.
fn content(rule: &Rule) -> Value {
    let mut settings = json!({ "properties.desired.setting": rule.id });
    if rule.has_extra {
        settings["properties.desired.extra"] = json!(rule.id);
    }
    json!({ "deviceContent": settings })
}

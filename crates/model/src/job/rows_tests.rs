//! What jobs do at one device, once each.

use super::*;

fn order(name: &str, generation: u64, until_ms: u64) -> JobOrder {
    JobOrder {
        id: JobId::parse(name).expect("a job id"),
        generation,
        kind: JobKind::Method,
        created_ms: 1,
        until_ms,
    }
}

fn answered(payload: &str) -> Option<RowResult> {
    Some(RowResult::Answered {
        status: 200,
        payload: Some(payload.to_owned()),
    })
}

#[test]
fn the_first_end_is_the_end() {
    let mut rows = JobRows::default();
    let order = order("j", 1, 1000);
    let row = rows.begin(&order, 7, 10).expect("it may begin");
    assert_eq!((row.status, row.runner), (RowStatus::Running, 7));
    let row = rows.begin(&order, 7, 11).expect("it has begun");
    assert_eq!(
        (row.status, row.begun_ms),
        (RowStatus::Running, 10),
        "a repetition"
    );
    assert!(
        rows.end(&order, 8, answered("1"), 12)
            .is_some_and(|row| row.result.is_none()),
        "another's"
    );
    let row = rows.end(&order, 7, answered("1"), 13).expect("it has begun");
    assert_eq!((row.status, row.updated_ms), (RowStatus::Completed, 13));
    let row = rows.end(&order, 7, answered("2"), 14).expect("it has begun");
    assert_eq!((row.result.clone(), row.updated_ms), (answered("1"), 13));
    let row = rows.begin(&order, 8, 15).expect("it is over");
    assert_eq!(row.status, RowStatus::Completed);
}

#[test]
fn what_a_lost_runner_left_is_unknown() {
    let mut rows = JobRows::default();
    let order = order("j", 1, 1000);
    rows.begin(&order, 7, 10).expect("it may begin");
    let row = rows.begin(&order, 8, 20).expect("there is a row");
    assert_eq!(row.status, RowStatus::Failed);
    assert!(matches!(&row.result, Some(RowResult::Failed { text, .. }) if text.contains("unknown")));
    // Whoever was taken for lost changes nothing any more.
    let row = rows.end(&order, 7, answered("1"), 30).expect("there is a row");
    assert_eq!(row.status, RowStatus::Failed);
}

#[test]
fn a_job_of_the_same_name_is_another() {
    let mut rows = JobRows::default();
    rows.begin(&order("j", 1, 1000), 7, 10).expect("it may begin");
    let row = rows.begin(&order("j", 2, 1000), 8, 20).expect("it may begin");
    assert_eq!((row.status, row.generation), (RowStatus::Running, 2));
    assert_eq!(rows.shown().map(|row| row.generation).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn nothing_is_begun_when_time_is_over() {
    let mut rows = JobRows::default();
    assert_eq!(rows.begin(&order("j", 1, 1000), 7, 1000), Err(RowFault::Over));
    assert_eq!(rows, JobRows::default());
}

#[test]
fn rows_stay_while_somebody_may_come_for_them() {
    let mut rows = JobRows::default();
    let job = |n: u64| order(&format!("j{n}"), n, 1000);
    for n in 0..ROWS_MAX as u64 {
        rows.begin(&job(n), 7, n).expect("there is room");
        rows.end(&job(n), 7, answered("1"), n);
    }
    assert_eq!(rows.begin(&job(999), 7, 999), Err(RowFault::Full));
    // None of them is begun again, shown or not.
    for n in 0..ROWS_MAX as u64 {
        let row = rows.begin(&job(n), 8, 999).expect("it has been here");
        assert_eq!(row.status, RowStatus::Completed, "{n}");
    }
    let with_answers = |rows: &JobRows| rows.rows.iter().filter(|row| row.result == answered("1")).count();
    assert_eq!(
        (rows.shown().count(), with_answers(&rows)),
        (ROWS_SHOWN_MAX, ROWS_SHOWN_MAX - 1)
    );
    // Their time is over: the last ones stay to be seen.
    rows.begin(&order("new", 1, 5000), 7, 1000)
        .expect("there is room");
    assert_eq!(rows.rows.len(), ROWS_SHOWN_MAX);
    assert!(rows.shown().next().is_some_and(|row| row.job.as_str() == "new"));
}

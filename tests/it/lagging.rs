//! A list that lags behind what was done: nothing is made twice and nothing given up for that.

use std::sync::Arc;

use serde_json::json;

use super::{
    meddler::{Call, Deed, Done},
    scene::NAME,
    six_operations::{
        Edit, List, Operation, Provision, Remove, RotateClosing, RotateMaking, Stage,
    },
};

const LIST: &str = "private/list_api_keys";

/// For some looks, and for ever if none are named, the list shows what is so now.
fn stale(stage: &Stage, from: usize, looks: Option<usize>) -> Arc<Deed> {
    let then = stage.play.account.keys();
    Arc::new(move |call| {
        let mut answer = call.carry_out()?;
        if call.nth >= from && looks.is_none_or(|looks| call.nth < from + looks) {
            answer["result"] = json!(then);
        }
        call.answer(&answer.to_string())
    })
}

/// The call is carried out and its answer lost.
fn lost(call: &mut Call) -> Done {
    call.carry_out()?;
    call.reset()
}

/// Runs an operation whose answer is lost, and resumes it while the list still shows for two
/// looks what was so before.
fn lags(operation: Operation) {
    let what = format!("{operation:?}");
    let stage = Stage::set(operation);
    let still = stale(&stage, 0, Some(2));
    stage.meddler.strike(LIST, stale(&stage, 0, None));
    stage.meddler.strike(operation.method(), Arc::new(lost));
    let end = stage.run();
    stage.ends(9, &end, &what);
    stage.meddler.calm();

    stage.meddler.strike(LIST, still);
    let resumed = stage.play.run(&["resume"]);
    assert_eq!(resumed.code, Some(0), "{what}: {resumed:#?}");
    stage.meddler.calm();
    stage.stands(&what);
}

#[test]
fn a_key_that_is_not_listed_yet_is_not_made_twice() {
    lags(Provision);
}

#[test]
fn a_successor_that_is_not_listed_yet_is_not_made_twice() {
    lags(RotateMaking);
}

#[test]
fn a_key_that_is_still_listed_can_be_gone() {
    lags(Remove);
}

#[test]
fn a_change_that_is_not_listed_yet_is_one() {
    // Twice it is looked at before the change.
    let stage = Stage::set(Edit);
    stage.meddler.strike(LIST, stale(&stage, 2, Some(2)));
    let end = stage.run();
    stage.ends(0, &end, "for a moment");
    stage.settles(&end, "for a moment");

    let stage = Stage::set(Edit);
    stage.meddler.strike(LIST, stale(&stage, 0, None));
    let end = stage.run();
    stage.ends(11, &end, "for ever");
    stage.settles(&end, "for ever");
}

#[test]
fn a_key_that_was_just_made_can_be_changed() {
    for (operation, code) in [(Edit, 0), (Remove, 0), (RotateMaking, 0), (List, 0)] {
        let what = format!("{operation:?}");
        let stage = Stage::set(operation);
        let mut short = stage.play.account.keys();
        short.retain(|key| key["name"] != NAME);
        let deed = move |call: &mut Call| {
            let mut answer = call.carry_out()?;
            if call.nth < 2 {
                answer["result"] = json!(short);
            }
            call.answer(&answer.to_string())
        };
        stage.meddler.strike(LIST, Arc::new(deed));
        let end = stage.run();
        stage.ends(code, &end, &what);
        stage.settles(&end, &what);
    }
}

#[test]
fn a_rotation_ends_although_its_new_key_is_not_listed_yet() {
    let stage = Stage::set(RotateClosing);
    let still = stale(&stage, 0, Some(2));
    stage
        .meddler
        .strike("private/disable_api_key", Arc::new(lost));
    let end = stage.run();
    stage.ends(9, &end, "closing");
    stage.meddler.calm();
    stage.meddler.strike(LIST, still);
    let resumed = stage.play.run(&["resume"]);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    stage.meddler.calm();
    stage.stands("closing");
}

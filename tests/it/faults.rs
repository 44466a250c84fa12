//! Every way in which the exchange can fail, at every call that a registration makes.
//!
//! After each failure the exchange is well again, at the same address, and `resume` (or the same
//! command) must end with exactly one key that works.

use std::{net::TcpListener, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    meddler::{Call, Meddler},
    scene::{self, Account, ENOUGH_MEMORY, Scene, measure, says_why},
    support::Server,
};

/// The call that fails, of `provision` and of `provision --ip`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    AdminLogin,
    Create,
    CreateWithWhitelist,
    /// The look for a key whose creation was not answered.
    Search,
    Proof,
    ProofWithoutRights,
    Edit,
    ProofWithWhitelist,
}

const PLACES: [Place; 8] = [
    Place::AdminLogin,
    Place::Create,
    Place::CreateWithWhitelist,
    Place::Search,
    Place::Proof,
    Place::ProofWithoutRights,
    Place::Edit,
    Place::ProofWithWhitelist,
];

impl Place {
    const fn whitelisted(self) -> bool {
        matches!(
            self,
            Self::CreateWithWhitelist
                | Self::ProofWithoutRights
                | Self::Edit
                | Self::ProofWithWhitelist
        )
    }

    const fn is_login(self) -> bool {
        matches!(
            self,
            Self::AdminLogin | Self::Proof | Self::ProofWithoutRights | Self::ProofWithWhitelist
        )
    }

    const fn is_create(self) -> bool {
        matches!(self, Self::Create | Self::CreateWithWhitelist)
    }

    /// The faults that make this call fail however often it is tried.
    fn faults(self, kind: &str) -> Vec<String> {
        // A login is tried three times at most.
        let logins = |first: u32| {
            (first..first + 3)
                .map(|nth| format!("auth:{kind}:{nth}"))
                .collect()
        };
        match self {
            Self::AdminLogin => logins(1),
            Self::Create | Self::CreateWithWhitelist => vec![format!("create_api_key:{kind}")],
            Self::Search => vec![
                "create_api_key:drop-after:1".into(),
                format!("list_api_keys:{kind}"),
            ],
            Self::Proof | Self::ProofWithoutRights => logins(2),
            Self::Edit => vec![format!("edit_api_key:{kind}")],
            Self::ProofWithWhitelist => logins(3),
        }
    }
}

/// What a kind of fault is, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sort {
    /// No usable answer; the call was not carried out.
    Lost,
    /// No usable answer; the call was carried out.
    LostAfter,
    /// Error 10028 or 11051.
    Later,
    /// Error 13009.
    Credentials,
    /// An error without a known code.
    Other,
    /// Only a hardware key will do.
    HardwareKey,
    /// Another network.
    Elsewhere,
    /// Our key under another fingerprint.
    Foreign,
    /// Another key in the place of ours, which then cannot be found.
    Hidden,
    /// The label differs, which is said and not failed.
    Label,
    /// More rights than were asked for.
    Broader,
}

/// The exit code by the table of the manual: 5 before anything is under way, 9 from then on,
/// unless the cause has a code of its own.
fn expected(sort: Sort, place: Place) -> i32 {
    let begun = place != Place::AdminLogin;
    let unanswered = if begun { 9 } else { 5 };
    match (sort, place) {
        // The account's list shows the key, so that nothing is lost.
        (Sort::LostAfter, Place::Create | Place::CreateWithWhitelist) => 0,
        // What counts is that the creation was not answered.
        (Sort::Lost | Sort::LostAfter | Sort::Later | Sort::Credentials, Place::Search) => 9,
        (Sort::Other | Sort::HardwareKey | Sort::Elsewhere | Sort::Hidden, Place::Search) => 9,
        (Sort::Lost | Sort::LostAfter, _) => unanswered,
        (Sort::Later, _) => 75,
        // The key has logged in before; its whitelist may leave this host out.
        (Sort::Credentials, Place::ProofWithWhitelist) => 0,
        (Sort::Credentials, _) => 4,
        (Sort::Other, place) if place.is_create() || !begun => 1,
        (Sort::Other, _) => 9,
        (Sort::HardwareKey, place) if place.is_login() => 0,
        (Sort::HardwareKey, _) => 6,
        (Sort::Elsewhere, _) => 11,
        (Sort::Label, _) => 0,
        (Sort::Foreign | Sort::Hidden, place) if place.is_login() => 0,
        (Sort::Foreign | Sort::Hidden | Sort::Broader, _) => 11,
    }
}

/// Runs one registration into a fault, looks at how it ends, and at what is made of it after.
fn strike(kind: &str, sort: Sort, place: Place) {
    let what = format!("{kind} at {place:?}");
    let scene = Scene::in_clear();
    let faults = place.faults(kind);
    let mut args = Vec::new();
    for fault in &faults {
        args.extend(["--fault", fault]);
    }
    let server = Server::start(&scene.home, &args);
    let (address, ip) = (server.address(), place.whitelisted());
    let mut command = scene.provision(&scene.flags(&server), ip);
    command.args(["--timeout", "1"]);
    let end = measure(command);

    let wanted = expected(sort, place);
    assert_eq!(end.run.code, Some(wanted), "{what}: {end:#?}");
    assert!(end.memory < ENOUGH_MEMORY, "{what}: {end:#?}");
    // Every call has a second, four tries at most, and pauses that add up to four seconds.
    assert!(end.took < Duration::from_secs(20), "{what}: {end:#?}");
    let pending = scene.pending().len();
    if wanted == 0 {
        assert_eq!(pending, 0, "{what}");
    } else {
        says_why(&end.run, &what);
        assert_ne!(scene.state().as_deref(), Some("active"), "{what}");
        assert!(wanted != 9 || pending == 1, "{what}: 9 promises a resume");
    }
    let secrets = [
        std::fs::read_to_string(&server.admin_secret_file).unwrap(),
        "B6RsF9rrLY5ezEGBQkyLlV-UC7whyPJ34BMA-kKYpes".into(),
    ];
    for secret in secrets {
        let output = format!("{}{}", end.run.stdout, end.run.stderr);
        assert!(!output.contains(secret.trim()), "{what}: {end:#?}");
    }
    drop(server);

    let server = scene::restart(&scene.home, &address);
    if wanted != 0 && pending == 0 {
        // Then nothing may be there, on either side.
        assert_eq!(scene.public(), None, "{what}");
        assert!(Account::of(&server).asymmetric().is_empty(), "{what}");
    }
    scene.recovers(&server, ip, &scene.flags(&server), &what);
}

macro_rules! everywhere {
    ($($name:ident: $kind:literal = $sort:ident;)*) => { $(
        #[test]
        fn $name() {
            for place in PLACES {
                strike($kind, Sort::$sort, place);
            }
        }
    )* };
}

everywhere! {
    survives_a_connection_closed_before_the_call: "drop-before" = Lost;
    survives_a_connection_closed_after_the_call: "drop-after" = LostAfter;
    survives_half_an_answer: "truncate" = LostAfter;
    survives_status_500_before_the_call: "500" = Lost;
    survives_status_500_after_the_call: "after-500" = LostAfter;
    survives_a_page_of_html: "502" = Lost;
    survives_garbage: "garbage" = LostAfter;
    survives_an_answer_that_comes_too_late: "slow" = LostAfter;
    survives_an_answer_that_drips: "drip" = LostAfter;
    survives_an_answer_without_end: "huge" = LostAfter;
    survives_a_result_and_an_error_in_one: "both" = LostAfter;
    survives_the_answer_to_another_request: "wrong-id" = LostAfter;
    waits_its_turn_under_a_rate_limit: "rate-limit" = Later;
    waits_its_turn_during_maintenance: "maintenance" = Later;
    stops_when_it_is_not_let_in: "unauthorized" = Credentials;
    does_not_repeat_what_a_hostile_error_echoes: "echo" = Other;
    cannot_answer_for_a_hardware_key: "webauthn-only" = HardwareKey;
    notices_another_network: "wrong-testnet" = Elsewhere;
    notices_another_fingerprint: "wrong-fingerprint" = Foreign;
    notices_another_public_key: "wrong-key" = Hidden;
    notices_a_symmetric_key: "hmac-secret" = Hidden;
    notices_more_rights_than_were_asked_for: "wrong-scope" = Broader;
    mentions_another_label: "wrong-name" = Label;
}

#[test]
fn follows_no_redirect() {
    for place in PLACES {
        // The sandbox sends its clients to the port after its own.
        let (port, trap) = loop {
            let first = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = first.local_addr().unwrap().port();
            if let Ok(trap) = TcpListener::bind(("127.0.0.1", port.wrapping_add(1))) {
                break (port, trap);
            }
        };
        trap.set_nonblocking(true).unwrap();
        let scene = Scene::in_clear();
        let faults = place.faults("redirect");
        let mut args = Vec::new();
        for fault in &faults {
            args.extend(["--fault", fault]);
        }
        let server = Server::start_at(&scene.home, &format!("127.0.0.1:{port}"), &args);
        let flags = scene.flags(&server);
        let end = measure(scene.provision(&flags, place.whitelisted()));
        let wanted = expected(Sort::Lost, place);
        assert_eq!(end.run.code, Some(wanted), "{place:?}: {end:#?}");
        says_why(&end.run, &format!("{place:?}"));
        assert!(trap.accept().is_err(), "{place:?}: it went there");
    }
    strike("redirect", Sort::Lost, Place::Edit);
}

#[test]
fn one_failed_login_is_tried_again_and_costs_nothing() {
    for kind in ["drop-before", "drop-after", "truncate", "maintenance"] {
        for nth in 1..=3 {
            let scene = Scene::in_clear();
            let fault = format!("auth:{kind}:{nth}");
            let server = Server::start(&scene.home, &["--fault", &fault]);
            let flags = scene.flags(&server);
            let end = measure(scene.provision(&flags, true));
            assert_eq!(end.run.code, Some(0), "{fault}: {end:#?}");
            scene.stands(&server, true, &flags, &fault);
        }
    }
}

#[test]
fn the_clock_is_asked_once_and_its_failure_hides_nothing() {
    for kind in [
        "drop-before",
        "500",
        "garbage",
        "slow",
        "drip",
        "huge",
        "both",
        "rate-limit",
        "maintenance",
        "unauthorized",
        "echo",
        "clock-skew",
        "wrong-id",
        "wrong-testnet",
        "redirect",
    ] {
        let scene = Scene::in_clear();
        let clock = format!("get_time:{kind}");
        let faults = ["--fault", "auth:unauthorized", "--fault", &clock];
        let server = Server::start(&scene.home, &faults);
        let mut command = scene.provision(&scene.flags(&server), false);
        command.args(["--timeout", "1"]);
        let end = measure(command);
        assert_eq!(end.run.code, Some(4), "{kind}: {end:#?}");
        let error = says_why(&end.run, kind);
        assert_eq!(error["exchange"]["code"], 13009, "{kind}");
        assert!(end.took < Duration::from_secs(12), "{kind}: {end:#?}");
        assert_eq!(scene.public(), None, "{kind}: a key was made for nobody");
        let names_the_clock = error["message"].as_str().unwrap().contains("clock");
        assert_eq!(names_the_clock, kind == "clock-skew", "{kind}: {error}");
    }
}

#[test]
fn a_clock_that_differs_is_named_as_the_cause() {
    let scene = Scene::in_clear();
    let server = Server::start(&scene.home, &["--fault", "*:clock-skew"]);
    let end = measure(scene.provision(&scene.flags(&server), false));
    assert_eq!(end.run.code, Some(4), "{end:#?}");
    let error = says_why(&end.run, "skew");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("behind") && message.contains("clock"),
        "{error}"
    );
}

#[test]
fn a_resume_that_is_refused_forgets_nothing() {
    // The exchange has the key and its answer was lost. Whatever a later attempt is told, the
    // private half must stay where it is, and the journal too.
    let refused = [
        "auth:unauthorized",
        "list_api_keys:unauthorized",
        "list_api_keys:echo",
        "list_api_keys:webauthn-only",
        "list_api_keys:500",
        "list_api_keys:maintenance",
    ];
    for fault in refused {
        let scene = Scene::in_clear();
        let faults = [
            "--fault",
            "create_api_key:drop-after",
            "--fault",
            "list_api_keys:500",
        ];
        let server = Server::start(&scene.home, &faults);
        let (address, flags) = (server.address(), scene.flags(&server));
        let end = measure(scene.provision(&flags, false));
        assert_eq!(end.run.code, Some(9), "{fault}: {end:#?}");
        let ours = scene.public().unwrap();
        drop(server);
        {
            let faults = ["--fault", fault, "--fault", "create_api_key:unauthorized"];
            let server = Server::start_at(&scene.home, &address, &faults);
            let run = scene.resume(&scene.flags(&server));
            assert_ne!(run.code, Some(0), "{fault}: {run:#?}");
            says_why(&run, fault);
        }
        assert_eq!(
            scene.public().as_ref(),
            Some(&ours),
            "{fault}: the key is gone"
        );
        assert_eq!(scene.pending().len(), 1, "{fault}: the journal forgot it");
        let server = scene::restart(&scene.home, &address);
        scene.recovers(&server, false, &scene.flags(&server), fault);
        assert_eq!(scene.public(), Some(ours), "{fault}: another key");
    }
}

#[test]
fn a_resume_with_the_wrong_secret_forgets_nothing() {
    let scene = Scene::new();
    let faults = [
        "--fault",
        "create_api_key:drop-after:1",
        "--fault",
        "list_api_keys:500:1",
    ];
    let server = Server::start(&scene.home, &faults);
    let flags = scene.flags(&server);
    let end = measure(scene.provision(&flags, true));
    assert_eq!(end.run.code, Some(9), "{end:#?}");
    let ours = scene.public().unwrap();
    let wrong = scene.home.secret_file("wrong", "not-the-secret");
    let mut wrong_flags = server.network();
    wrong_flags.extend(["--admin-client-id", &server.admin_client_id]);
    wrong_flags.extend(["--admin-secret-file", wrong.to_str().unwrap()]);
    wrong_flags.extend(scene.passphrase_flags());
    let run = scene.resume(&wrong_flags);
    assert_eq!(run.code, Some(4), "{run:#?}");
    assert_eq!(scene.public().as_ref(), Some(&ours), "the key is gone");
    assert_eq!(scene.pending().len(), 1, "the journal forgot it");
    scene.recovers(&server, true, &flags, "wrong secret");
    assert_eq!(scene.public(), Some(ours));
}

#[test]
fn a_refusal_of_an_unknown_code_is_looked_into_before_it_is_believed() {
    // `echo` is an error that was not applied: after a look nothing stays under way.
    let scene = Scene::in_clear();
    let faults = [
        "--fault",
        "create_api_key:echo:1",
        "--fault",
        "list_api_keys:500:1",
    ];
    let server = Server::start(&scene.home, &faults);
    let flags = scene.flags(&server);
    let end = measure(scene.provision(&flags, false));
    assert_eq!(end.run.code, Some(9), "it could not look: {end:#?}");
    scene.recovers(&server, false, &flags, "unknown code");
}

#[test]
fn a_key_that_was_made_and_refused_in_one_is_looked_for_before_another_is_made() {
    let scene = Scene::in_clear();
    let mut server = Server::start(&scene.home, &[]);
    let meddler = Meddler::before(&mut server);
    let refuses = |call: &mut Call| {
        call.carry_out()?;
        call.refuse(99_999)
    };
    meddler.strike("private/create_api_key", Arc::new(refuses));
    let flags = scene.flags(&server);
    let end = measure(scene.provision(&flags, false));
    assert_eq!(end.run.code, Some(9), "{end:#?}");
    meddler.calm();
    scene.recovers(&server, false, &flags, "made and refused");
}

#[test]
fn a_creation_that_was_put_off_is_not_looked_for() {
    for fault in ["create_api_key:rate-limit", "create_api_key:maintenance"] {
        let scene = Scene::in_clear();
        let server = Server::start(&scene.home, &["--fault", fault]);
        let flags = scene.flags(&server);
        let end = measure(scene.provision(&flags, false));
        assert_eq!(end.run.code, Some(75), "{fault}: {end:#?}");
        assert_eq!(scene.pending()[0]["stage"], "generated", "{fault}");
    }
}

#[test]
fn rights_that_came_with_a_lost_answer_need_no_login_that_they_forbid() {
    let scene = Scene::in_clear();
    let faults = ["--fault", "edit_api_key:drop-after:1"];
    let server = Server::start(&scene.home, &faults);
    let flags = scene.flags(&server);
    let mut provision = scene.provision(&flags, false);
    let end = measure({
        provision.args(["--ip", "10.1.2.3"]);
        provision
    });
    assert_eq!(end.run.code, Some(9), "{end:#?}");
    let run = scene.resume(&flags);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let keys = Account::of(&server).asymmetric();
    assert_eq!(keys.len(), 1, "{keys:#?}");
    assert_eq!(keys[0]["ip_whitelist"], json!(["10.1.2.3"]));
    assert_eq!(scene.pending(), Vec::<Value>::new());
}

#[test]
fn a_challenge_without_a_code_leaves_everything_ready_to_go_on() {
    for fault in ["create_api_key:challenge", "create_api_key:wrong-rp-id"] {
        let scene = Scene::in_clear();
        let seed = scene
            .home
            .secret_file("seed", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP");
        let args = ["--totp-seed-file", seed.to_str().unwrap(), "--fault", fault];
        let server = Server::start(&scene.home, &args);
        let (address, flags) = (server.address(), scene.flags(&server));
        let mut provision = scene.provision(&flags, false);
        // A challenge of another site must not see a code, so none may be asked for.
        let asked = scene.home.path("asked");
        let program = format!("touch {}", asked.display());
        let foreign = fault.ends_with("rp-id");
        if foreign {
            provision.args(["--totp-command", &program]);
        }
        let end = measure(provision);
        let wanted = if foreign { 11 } else { 6 };
        assert_eq!(end.run.code, Some(wanted), "{fault}: {end:#?}");
        says_why(&end.run, fault);
        assert!(!asked.exists(), "{fault}: a code was asked for");
        drop(server);
        // Without a seed it is an exchange that never asks.
        let server = scene::restart(&scene.home, &address);
        assert!(Account::of(&server).asymmetric().is_empty(), "{fault}");
        scene.recovers(&server, false, &scene.flags(&server), fault);
    }
}

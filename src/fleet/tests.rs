#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::{collections::BTreeMap, sync::OnceLock, time::SystemTime};

use getrandom::{SysRng, rand_core::UnwrapErr};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    exchange::{ApiKey, KeyId},
    key::{PrivateKey, PublicKey},
    provision::Survey,
    store::{Generation, Intent, Issued, Moment, Operation, Record, Registration, Stage, Version},
};

fn message(text: &str) -> String {
    Fleet::parse(text).unwrap_err().to_string()
}

#[test]
fn a_file_says_what_each_key_is_to_be_and_defaults_fill_the_rest() {
    let fleet = Fleet::parse(
        r#"
        elsewhere = ["wcVoQGam"]
        [defaults]
        network = "test"
        admin = "boss"
        scope = "@read-only"
        ip = ["203.0.113.9", "203.0.113.7", "203.0.113.9"]
        [keys.b]
        scope = "@trader"
        label = "other"
        ip = []
        features = ["restricted_block_trades"]
        algorithm = "rsa-2048"
        enabled = false
        [keys.a]
        network = "custom"
        endpoint = "https://gateway.example/api/v2"
        "#,
    )
    .unwrap();
    assert_eq!(fleet.elsewhere[0].as_str(), "wcVoQGam");
    let [a, b] = &fleet.keys[..] else {
        panic!("{fleet:?}")
    };
    assert_eq!((a.name.as_str(), a.label.as_str(), a.line), ("a", "a", 15));
    assert!(matches!(&a.site, Site::On(Network::Custom(_))), "{a:?}");
    assert!(a.enabled && a.algorithm.is_none() && a.features.is_empty());
    let ips: Vec<&str> = a.whitelist.iter().map(Whitelisted::as_str).collect();
    assert_eq!(ips, ["203.0.113.7", "203.0.113.9"]);
    assert_eq!(b.site, Site::On(Network::Test));
    assert_eq!(b.admin.as_ref().unwrap().as_str(), "boss");
    assert_eq!(b.scope.to_string(), "account:read trade:read_write");
    assert!(!b.enabled && b.whitelist.is_empty() && b.label.as_str() == "other");
    assert_eq!(b.algorithm, Some(Algorithm::Rsa2048));
}

#[test]
fn every_mistake_has_a_name_and_a_line_and_no_value() {
    for (text, said) in [
        ("", "no key is declared in it"),
        ("[keys]", "no key is declared in it"),
        (
            "[defaults]\nscope = \"@trader\"",
            "no key is declared in it",
        ),
        ("keys = 1", "line 1: keys is not a table"),
        (
            "[keys.a]\nscope = \"@trader\"\ncolour = 1",
            "line 3: there is no field colour in keys.a",
        ),
        ("[keys.a]\n[keyz.b]", "line 2: there is no field keyz"),
        (
            "[defaults]\nlabel = \"x\"\n[keys.a]",
            "line 2: there is no field label in defaults",
        ),
        (
            "[keys.a]\npassphrase = \"hunter2\"",
            "line 2: there is no field passphrase in keys.a: a fleet file holds no secret",
        ),
        (
            "[keys.a]\n\"totp\\u001b seed\" = 1",
            "line 2: there is no field \"totp\\u{1b} seed\" in keys.a: a fleet file holds no secret",
        ),
        ("[keys.a]\n", "line 1: a has no scope"),
        (
            "[keys.a]\nscope = 7",
            "line 2: keys.a.scope is not a text in quotes",
        ),
        (
            "[keys.a]\nscope = \"trade\"",
            "line 2: keys.a.scope: not a scope: \"trade\" is not AREA:LEVEL",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nip = \"203.0.113.7\"",
            "line 3: keys.a.ip is not a list of texts in quotes",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nip = [\n\"203.0.113.7\",\n\"2001:db8::1\"]",
            "line 5: keys.a.ip: it is not an IPv4 address; unchecked_ip = true lets others through",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nfeatures = [\"none\"]",
            "line 3: keys.a.features: no feature is an empty list",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nenabled = \"yes\"",
            "line 3: keys.a.enabled is not true or false",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nlabel = \"-----BEGIN PRIVATE KEY-----\"",
            "line 3: keys.a.label: it is not 1 to 16 letters, digits or underscores",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nalgorithm = \"hunter2\"",
            "line 3: keys.a.algorithm: there are ed25519, rsa-2048, rsa-3072 and rsa-4096",
        ),
        (
            "[keys.\"../prod\"]\nscope = \"@trader\"",
            "line 1: keys: \"../prod\" is no name: 1 to 16 letters, digits or underscores",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\n[keys.a]\nscope = \"@trader\"",
            "line 3: it is not TOML: duplicate key",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nscope = \"@risk\"",
            "line 3: it is not TOML: duplicate key",
        ),
        (
            "[defaults]\nnetwork = \"mainnet\"\n[keys.a]\nscope = \"@trader\"",
            "line 2: defaults.network: there are sandbox, test, prod and custom",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nnetwork = \"test\"\nendpoint = \"https://x.example/\"",
            "line 4: keys.a.network: not a network: an endpoint goes with the custom network only",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nendpoint = \"https://x.example/\"",
            "line 3: keys.a.endpoint: an endpoint goes with network = \"custom\"",
        ),
        // What no key falls back on is read all the same.
        (
            "[defaults]\nip = [\"x y\"]\n[keys.a]\nscope = \"@trader\"\nip = []",
            "line 2: defaults.ip: it is not an IPv4 address; unchecked_ip = true lets others through",
        ),
    ] {
        assert_eq!(message(text), said, "{text}");
    }
    let long = format!("[keys.a]\nscope = \"{}\"", "x".repeat(10_000));
    assert_eq!(
        message(&long),
        "line 2: keys.a.scope: it is longer than 512 bytes"
    );
}

#[test]
fn no_label_is_there_twice_on_one_network() {
    let fleet = Fleet::parse(
        "[keys.a]\nscope = \"@trader\"\n[keys.b]\nscope = \"@trader\"\nlabel = \"a\"\nnetwork = \"test\"",
    )
    .unwrap();
    let settle = |unsaid: Network| {
        let settled = fleet.settle::<Error>(move |key| {
            Ok(match &key.site {
                Site::On(network) => network.clone(),
                _ => unsaid.clone(),
            })
        });
        settled.map(|settled| settled.len())
    };
    assert_eq!(settle(Network::Sandbox).unwrap(), 2);
    assert_eq!(
        settle(Network::Test).unwrap_err().to_string(),
        "line 3: b has the label a on test, which a has already"
    );
}

// The plan, against a modelled account.

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const SCOPES: [&str; 5] = [
    "trade:read",
    "account:read trade:read_write",
    "account:read wallet:read",
    "account:read_write trade:read_write",
    "wallet:read_write",
];
const IPS: [&str; 3] = ["203.0.113.7", "203.0.113.8", "203.0.113.9"];
const FEATURES: [&str; 2] = ["restricted_block_trades", "block_trade_approval"];

fn publics() -> &'static [PublicKey] {
    static PUBLICS: OnceLock<Vec<PublicKey>> = OnceLock::new();
    PUBLICS.get_or_init(|| {
        let make = |_: &&str| {
            let key = PrivateKey::generate(Algorithm::Ed25519, &mut UnwrapErr(SysRng)).unwrap();
            key.public().clone()
        };
        NAMES.iter().map(make).collect()
    })
}

/// What can be set of a key.
#[derive(Clone, Debug)]
struct Settings {
    scope: usize,
    label: usize,
    ips: Vec<&'static str>,
    features: Vec<&'static str>,
    enabled: bool,
}

fn settings() -> impl Strategy<Value = Settings> {
    let ips = proptest::sample::subsequence(IPS.to_vec(), 0..=IPS.len());
    let features = proptest::sample::subsequence(FEATURES.to_vec(), 0..=FEATURES.len());
    (
        0..SCOPES.len(),
        0..NAMES.len(),
        ips,
        features,
        any::<bool>(),
    )
        .prop_map(|(scope, label, ips, features, enabled)| Settings {
            scope,
            label,
            ips,
            features,
            enabled,
        })
}

impl Settings {
    fn scope(&self) -> Scope {
        SCOPES[self.scope].parse().unwrap()
    }

    fn specification(&self, label: &str) -> Specification {
        Specification {
            algorithm: Algorithm::Ed25519,
            label: label.into(),
            scope: self.scope(),
            whitelist: self.ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            features: self.features.iter().map(|f| f.parse().unwrap()).collect(),
        }
    }
}

fn declared(name: &str, settings: &Settings) -> Declared {
    let spec = settings.specification(name);
    let mut declared = Declared {
        name: name.parse().unwrap(),
        line: 1,
        site: Site::Unsaid,
        admin: None,
        label: name.parse().unwrap(),
        scope: spec.scope,
        whitelist: spec.whitelist,
        features: spec.features,
        algorithm: None,
        enabled: settings.enabled,
    };
    declared.whitelist.sort_unstable();
    declared.features.sort_unstable();
    declared
}

/// A key in the modelled account.
#[derive(Clone, Debug)]
struct Remote {
    spec: Specification,
    enabled: bool,
}

/// What is here and what is there, by name.
#[derive(Clone, Debug, Default)]
struct World {
    here: BTreeMap<String, Local>,
    there: BTreeMap<String, Remote>,
}

fn index(name: &str) -> usize {
    NAMES.iter().position(|other| *other == name).unwrap()
}

fn client_id(name: &str) -> ClientId {
    format!("client_{name}").parse().unwrap()
}

impl World {
    fn generate(&mut self, name: &str) {
        let public = publics()[index(name)].clone();
        let record = Record {
            algorithm: public.algorithm(),
            fingerprint: public.fingerprint(),
            created: Moment(SystemTime::UNIX_EPOCH),
            registration: None,
            signer: None,
        };
        let local = Local {
            record: Some(record),
            public: Some(public),
            pending: None,
        };
        self.here.insert(name.into(), local);
    }

    fn register(&mut self, name: &str, spec: &Specification) {
        let remote = Remote {
            spec: spec.clone(),
            enabled: true,
        };
        self.there.insert(name.into(), remote);
        let registration = Registration {
            network: Network::Test,
            client_id: client_id(name),
            key_id: Some(KeyId(1)),
            label: spec.label.clone(),
            scope: spec.scope.clone(),
            whitelist: spec.whitelist.clone(),
            features: spec.features.clone(),
            enabled: true,
            retired: None,
            fingerprint_verified: true,
            proven: None,
        };
        let local = self.here.get_mut(name).unwrap();
        local.record.as_mut().unwrap().registration = Some(registration);
    }

    /// The account's list, with the operator's key in it.
    fn survey(&self) -> Survey {
        let mut keys: Vec<ApiKey> = Vec::new();
        for (name, remote) in &self.there {
            let public = &publics()[index(name)];
            let key = json!({
                "id": 10 + index(name),
                "client_id": client_id(name),
                "client_secret": public.fingerprint().to_string(),
                "public_key": public.to_pem(),
                "name": remote.spec.label,
                "max_scope": remote.spec.scope,
                "enabled": remote.enabled,
                "ip_whitelist": remote.spec.whitelist,
                "enabled_features": remote.spec.features,
            });
            keys.push(serde_json::from_value(key).unwrap());
        }
        let boss = json!({"id": 1, "client_id": "boss", "max_scope": "account:read_write", "enabled": true});
        keys.push(serde_json::from_value(boss).unwrap());
        Survey(keys)
    }

    fn plan<'a>(&self, fleet: &'a [Declared], survey: &'a Survey) -> Vec<Row<'a>> {
        let claimed: Vec<ClientId> = fleet.iter().map(|d| client_id(d.name.as_str())).collect();
        let operator = "boss".parse().unwrap();
        let of = |declared: &'a Declared| {
            let local = self.here.get(declared.name.as_str()).cloned();
            let local = local.unwrap_or_default();
            compare(
                declared,
                &Network::Test,
                &local,
                survey,
                &operator,
                &claimed,
            )
        };
        fleet.iter().map(of).collect()
    }

    /// Does what a step says, as the exchange would.
    fn take(&mut self, declared: &Declared, step: Step) {
        let name = declared.name.as_str();
        let wish = declared.specification(Algorithm::Ed25519);
        match step.action {
            Action::Create => {
                assert!(!self.here.contains_key(name));
                self.generate(name);
                self.register(name, &wish);
            }
            Action::Register => self.register(name, &wish),
            Action::Edit => self.there.get_mut(name).unwrap().spec = wish,
            Action::Enable => self.there.get_mut(name).unwrap().enabled = true,
            Action::Disable => self.there.get_mut(name).unwrap().enabled = false,
        }
    }

    /// What a key can be used for now: from where, and for what; nothing if it may not log in.
    fn rights(&self, name: &str) -> Option<Specification> {
        let remote = self.there.get(name).filter(|remote| remote.enabled)?;
        Some(remote.spec.clone())
    }
}

/// Tells whether a key can be used for more than before, or from more places.
fn is_more(before: Option<&Specification>, after: Option<&Specification>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return after.is_some();
    };
    let fewer_places = before.whitelist.is_empty()
        || (!after.whitelist.is_empty()
            && after
                .whitelist
                .iter()
                .all(|ip| before.whitelist.contains(ip)));
    let restricted = before.features.iter().all(|f| after.features.contains(f));
    !(after.scope.is_within(&before.scope) && fewer_places && restricted)
}

/// How a key begins: not there, made, registered; and with what.
type Beginning = (u8, Settings);

fn world(beginnings: &[Beginning]) -> World {
    let mut world = World::default();
    for (name, (how, settings)) in NAMES.iter().zip(beginnings) {
        if *how > 0 {
            world.generate(name);
        }
        if *how > 1 {
            world.register(name, &settings.specification(NAMES[settings.label]));
            world.there.get_mut(*name).unwrap().enabled = settings.enabled;
        }
    }
    world
}

proptest! {
    #[test]
    fn after_the_plan_nothing_differs_and_no_step_gives_more_before_all_that_takes(
        beginnings in proptest::collection::vec((0..3_u8, settings()), NAMES.len()),
        wishes in proptest::collection::vec(settings(), 1..=NAMES.len()),
    ) {
        let mut world = world(&beginnings);
        let fleet: Vec<Declared> =
            NAMES.iter().zip(&wishes).map(|(name, wish)| declared(name, wish)).collect();
        let survey = world.survey();
        let rows = world.plan(&fleet, &survey);
        // A key that is not declared may have the label of one that is to be made.
        let is_taken = |label: &str| {
            let mut strangers = NAMES.iter().skip(fleet.len()).filter_map(|name| world.there.get(*name));
            strangers.any(|remote| remote.enabled && remote.spec.label == label)
        };
        let blocked: Vec<bool> = rows.iter().map(|row| matches!(row.verdict, Verdict::Blocked(_))).collect();
        for (row, blocked) in rows.iter().zip(&blocked) {
            let by_label = matches!(row.verdict, Verdict::Blocked(Block::Label(_)));
            prop_assert_eq!(by_label, *blocked, "{:?}", row.verdict);
            prop_assert!(!blocked || is_taken(row.declared.label.as_str()), "{:?}", row.verdict);
        }
        let steps = order(&rows);
        prop_assert!(steps.is_sorted_by_key(|(_, step)| step.reach));
        for (row, step) in &steps {
            let name = rows[*row].declared.name.as_str();
            let before = world.rights(name);
            world.take(rows[*row].declared, *step);
            if step.reach <= Reach::Less {
                prop_assert!(!is_more(before.as_ref(), world.rights(name).as_ref()), "{step:?}");
            }
        }
        prop_assert_eq!(
            held(&rows, &survey),
            world.survey().0.len(),
            "as many as were foreseen"
        );
        let survey = world.survey();
        for (row, was_blocked) in world.plan(&fleet, &survey).iter().zip(&blocked) {
            prop_assert!(
                matches!(row.verdict, Verdict::Settled(_)) || *was_blocked,
                "{:?} {:?}", row.verdict, row.differences
            );
            prop_assert!(row.differences.is_empty());
        }
    }
}

fn wish() -> Settings {
    Settings {
        scope: 1,
        label: 0,
        ips: vec![IPS[0]],
        features: Vec::new(),
        enabled: true,
    }
}

fn one<'a>(world: &World, fleet: &'a [Declared], survey: &'a Survey) -> Row<'a> {
    world.plan(fleet, survey).remove(0)
}

/// A registered key that is as it is declared.
fn in_order() -> (World, [Declared; 1]) {
    let fleet = [declared("a", &wish())];
    let mut world = World::default();
    world.generate("a");
    world.register("a", &wish().specification("a"));
    (world, fleet)
}

fn pending(operation: Operation, stage: Stage, spec: Specification) -> Intent {
    Intent {
        version: Version,
        operation,
        name: "a".parse().unwrap(),
        generation: Generation::FIRST,
        place: (&Network::Test).into(),
        spec,
        started: Moment(SystemTime::UNIX_EPOCH),
        fingerprint: None,
        stage,
        issued: Some(Issued {
            client_id: client_id("a"),
            key_id: KeyId(10),
            fingerprint_verified: true,
        }),
        succession: None,
    }
}

#[test]
fn what_cannot_be_settled_by_a_step_is_blocked_with_a_reason() {
    let (world, fleet) = in_order();
    let said = |world: &World, fleet: &[Declared]| {
        let survey = world.survey();
        match one(world, fleet, &survey).verdict {
            Verdict::Blocked(block) => block.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let mut other = fleet.clone();
    other[0].algorithm = Some(Algorithm::Rsa2048);
    assert_eq!(
        said(&world, &other),
        "it is ed25519, and declared as rsa-2048"
    );

    let mut gone = world.clone();
    gone.there.clear();
    assert_eq!(
        said(&gone, &fleet),
        "it is registered as client_a, which the account has not"
    );

    let mut exchanged = world.clone();
    exchanged.here.get_mut("a").unwrap().public = Some(publics()[1].clone());
    assert_eq!(
        said(&exchanged, &fleet),
        "the account has another public key under client_a"
    );

    let mut elsewhere = world.clone();
    let record = elsewhere.here.get_mut("a").unwrap().record.as_mut();
    record.unwrap().registration.as_mut().unwrap().network = Network::Production;
    assert_eq!(said(&elsewhere, &fleet), "it belongs to the prod network");

    let mut renamed = world.clone();
    let record = renamed.here.get_mut("a").unwrap().record.as_mut();
    record.unwrap().registration.as_mut().unwrap().client_id = client_id("z");
    assert_eq!(
        said(&renamed, &fleet),
        "it is recorded as client_z, and the account knows its public key as client_a"
    );

    let mut unbound = world.clone();
    unbound.generate("a");
    assert_eq!(
        said(&unbound, &fleet),
        "the account has its public key as client_a, and nothing is recorded of that here"
    );

    // The keystore was lost: a second key of the same label is not made by itself.
    let mut lost = world.clone();
    lost.here.clear();
    let survey = lost.survey();
    let row = compare(
        &fleet[0],
        &Network::Test,
        &Local::default(),
        &survey,
        &"boss".parse().unwrap(),
        &[],
    );
    let Verdict::Blocked(Block::Label(id)) = row.verdict else {
        panic!("{:?}", row.verdict)
    };
    assert_eq!(id, client_id("a"));
}

#[test]
fn the_operators_own_key_is_not_disabled_or_robbed_of_its_rights() {
    let fleet = [declared("a", &wish())];
    let managing = Settings { scope: 3, ..wish() };
    let mut disabled = [declared("a", &managing)];
    disabled[0].enabled = false;
    let mut world = World::default();
    world.generate("a");
    world.register("a", &managing.specification("a"));
    let survey = world.survey();
    for fleet in [&fleet, &disabled] {
        let row = compare(
            &fleet[0],
            &Network::Test,
            &world.here["a"],
            &survey,
            &client_id("a"),
            &[],
        );
        assert!(
            matches!(row.verdict, Verdict::Blocked(Block::LockOut(_))),
            "{:?}",
            row.verdict
        );
    }
}

#[test]
fn what_was_interrupted_is_gone_on_with_if_it_is_what_is_declared() {
    let (world, fleet) = in_order();
    let wished = wish().specification("a");
    let mut other = wished.clone();
    other.label = "b".into();
    let actions = |intent: &Intent, fleet: &[Declared], registered: bool, enabled: bool| {
        let mut world = world.clone();
        world.there.get_mut("a").unwrap().enabled = enabled;
        if !registered {
            world.here.clear();
            world.there.clear();
        }
        world.here.entry("a".into()).or_default().pending = Some(intent.clone());
        let survey = world.survey();
        let row = one(&world, fleet, &survey);
        // Nothing that is there already takes up more room.
        let makes = usize::from(!registered && !row.steps().is_empty());
        assert_eq!(
            held(std::slice::from_ref(&row), &survey),
            survey.0.len() + makes
        );
        match row.verdict {
            Verdict::Steps(steps) => {
                let words = steps
                    .iter()
                    .map(|s| format!("{} {:?}", s.action.as_str(), s.reach));
                words.collect::<Vec<_>>().join(", ")
            }
            Verdict::Settled(settled) => format!("{settled:?}"),
            Verdict::Blocked(block) => block.to_string(),
        }
    };
    let mut off = fleet.clone();
    off[0].enabled = false;
    let blocked = |what: &str| format!("{what} of it was interrupted or is under way");
    for (operation, stage, spec, fleet, there, enabled, expected) in [
        (
            Operation::Provision,
            Stage::Creating,
            &wished,
            &fleet,
            false,
            true,
            "create Finishes".into(),
        ),
        (
            Operation::Provision,
            Stage::Creating,
            &other,
            &fleet,
            false,
            true,
            blocked("provision"),
        ),
        (
            Operation::Provision,
            Stage::Planned,
            &other,
            &fleet,
            false,
            true,
            "create Finishes".into(),
        ),
        (
            Operation::Provision,
            Stage::Creating,
            &wished,
            &off,
            false,
            true,
            blocked("provision"),
        ),
        (
            Operation::Register,
            Stage::Granting,
            &wished,
            &fleet,
            true,
            true,
            "register Finishes".into(),
        ),
        (
            Operation::Edit,
            Stage::Planned,
            &wished,
            &fleet,
            true,
            true,
            "edit Finishes".into(),
        ),
        (
            Operation::Edit,
            Stage::Planned,
            &wished,
            &off,
            true,
            true,
            "edit Finishes, disable Less".into(),
        ),
        (
            Operation::Edit,
            Stage::Planned,
            &other,
            &fleet,
            true,
            true,
            blocked("edit"),
        ),
        (
            Operation::Enable,
            Stage::Planned,
            &wished,
            &fleet,
            true,
            false,
            "enable Finishes".into(),
        ),
        (
            Operation::Enable,
            Stage::Planned,
            &wished,
            &off,
            true,
            true,
            "disable Less".into(),
        ),
        (
            Operation::Disable,
            Stage::Planned,
            &wished,
            &off,
            true,
            true,
            "disable Finishes".into(),
        ),
        (
            Operation::Disable,
            Stage::Planned,
            &wished,
            &fleet,
            true,
            true,
            blocked("disable"),
        ),
        (
            Operation::Remove,
            Stage::Planned,
            &wished,
            &fleet,
            true,
            true,
            blocked("remove"),
        ),
        (
            Operation::Rotate,
            Stage::Switched,
            &wished,
            &fleet,
            true,
            true,
            "UnderWay(Rotate)".into(),
        ),
        (
            Operation::Rotate,
            Stage::Switched,
            &wished,
            &off,
            true,
            true,
            "disable Less".into(),
        ),
        (
            Operation::Rotate,
            Stage::Switched,
            &wished,
            &fleet,
            true,
            false,
            blocked("rotate"),
        ),
    ] {
        let intent = pending(operation, stage, spec.clone());
        let said = actions(&intent, fleet, there, enabled);
        assert_eq!(said, expected, "{operation:?} {stage:?}");
    }
}

#[test]
fn features_that_the_exchange_does_not_show_are_taken_for_those_that_were_sent() {
    let (mut world, mut fleet) = in_order();
    fleet[0].features = vec![FEATURES[0].parse().unwrap()];
    let record = world.here.get_mut("a").unwrap().record.as_mut().unwrap();
    record.registration.as_mut().unwrap().features = fleet[0].features.clone();
    let mut survey = world.survey();
    let row = one(&world, &fleet, &survey);
    assert_eq!(row.differences[0].field, "features");
    survey.0[0].enabled_features = None;
    let row = one(&world, &fleet, &survey);
    assert!(row.differences.is_empty() && row.steps().is_empty());
    // To take such a restriction away gives rights, shown or not.
    fleet[0].features.clear();
    let row = one(&world, &fleet, &survey);
    assert_eq!(row.steps()[0].reach, Reach::More);
}

#[test]
fn a_key_that_is_not_to_be_enabled_is_not_made() {
    let mut fleet = [declared("a", &wish())];
    fleet[0].enabled = false;
    let world = World::default();
    let survey = world.survey();
    let row = one(&world, &fleet, &survey);
    assert!(matches!(row.verdict, Verdict::Settled(Settled::NotThere)));
}

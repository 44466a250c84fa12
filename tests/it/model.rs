//! Rotations against a model: any sequence of rotations and rollbacks, killed at any call, as
//! often as chance has it.
//!
//! The use cases run in this process on a keystore on disk. The exchange is an account in memory
//! that checks signatures; a kill is a call that never returns, after which the whole operation is
//! dropped where it stands. What the program does around the use cases is written again here, in
//! the same order (`cli/rotation.rs`). `kills.rs` and `sweep.rs` kill the program itself.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use derikey::{
    exchange::{Error, Exchange, Incoming, KeyId, Network, Outgoing, Scope, Transport, Unattended},
    key::{Algorithm, KeyName, Message, PrivateKey, PublicKey, Purpose, Stamp, Timestamp},
    provision::{self, Desk, Operator, Rotated, Work},
    secret::Passphrase,
    signer::{self, LocalSigner, Stamper},
    store::{
        self, Generation, Intent, Issued, Moment, Operation, Record, Specification, Stage, Store,
        Succession,
    },
};
use futures_util::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    round_trips::config,
    support::{Home, data},
};

const SCOPE: &str = "account:read trade:read_write";
const GRACE: u64 = 3600;

/// A call at which the operation dies, and whether the exchange still hears of it.
#[derive(Clone, Copy, Debug)]
struct Kill {
    call: usize,
    heard: bool,
}

/// A key of the account.
#[derive(Clone, Debug)]
struct Entry {
    client_id: String,
    label: String,
    public: String,
    enabled: bool,
    scope: String,
}

/// An account in memory.
#[derive(Default)]
struct Account {
    keys: BTreeMap<u64, Entry>,
    made: u64,
    kill: Option<Kill>,
}

impl Account {
    fn add(&mut self, label: &str, public: &str, scope: &str) -> u64 {
        self.made += 1;
        let entry = Entry {
            client_id: format!("client{}", self.made),
            label: label.into(),
            public: public.into(),
            enabled: true,
            scope: scope.into(),
        };
        self.keys.insert(self.made, entry);
        self.made
    }

    fn shown(&self, id: u64) -> Value {
        let key = &self.keys[&id];
        let public = PublicKey::read(key.public.as_bytes()).unwrap();
        json!({"id": id, "client_id": key.client_id, "name": key.label, "enabled": key.enabled,
            "max_scope": key.scope, "public_key": key.public, "default": false,
            "client_secret": public.fingerprint().to_string(), "enabled_features": [],
            "timestamp": 1_560_238_048_714_u64})
    }

    /// Carries a call out.
    fn answer(&mut self, method: &str, params: &Value) -> Result<Value, i64> {
        let text = |field: &str| params[field].as_str().unwrap_or_default().to_owned();
        let id = params["id"].as_u64().unwrap_or_default();
        match method {
            "public/auth" => return self.log_in(params),
            "public/get_time" => return Ok(json!(1_576_074_319_000_u64)),
            "private/list_api_keys" => {
                let all = self.keys.keys().map(|id| self.shown(*id));
                return Ok(all.collect());
            }
            "private/create_api_key" => {
                if self.keys.len() >= 8 {
                    return Err(11050);
                }
                let made = self.add(&text("name"), &text("public_key"), &text("max_scope"));
                return Ok(self.shown(made));
            }
            _ => {}
        }
        let key = self.keys.get_mut(&id).ok_or(11050)?;
        match method {
            "private/enable_api_key" => key.enabled = true,
            "private/disable_api_key" => key.enabled = false,
            "private/remove_api_key" => {
                self.keys.remove(&id);
                return Ok(json!("ok"));
            }
            _ => panic!("{method}"),
        }
        Ok(self.shown(id))
    }

    /// A login counts only with the signature of a key that is enabled.
    fn log_in(&self, params: &Value) -> Result<Value, i64> {
        let mut all = self.keys.values();
        let key = all.find(|key| key.enabled && params["client_id"] == key.client_id.as_str());
        let key = key.ok_or(13004)?;
        let stamp = Stamp {
            timestamp: Timestamp(params["timestamp"].as_u64().unwrap()),
            nonce: params["nonce"].as_str().unwrap().parse().unwrap(),
        };
        let data = params["data"].as_str().unwrap().to_owned();
        let message = Message::new(&stamp, &Purpose::Login { data }).unwrap();
        let signature = params["signature"].as_str().unwrap().parse().unwrap();
        let public = PublicKey::read(key.public.as_bytes()).unwrap();
        public.verify(&message, &signature).map_err(|_| 13004)?;
        Ok(
            json!({"access_token": "1.token", "refresh_token": "1.refresh", "expires_in": 900,
            "scope": key.scope, "token_type": "bearer"}),
        )
    }
}

/// The wire to the account. A call at which it is cut never ends.
#[derive(Default)]
struct Wire(Mutex<Account>);

impl Transport for Wire {
    async fn post(&self, request: Outgoing) -> Result<Incoming, Error> {
        let request: Value = serde_json::from_slice(&request.body).unwrap();
        let answer = {
            let mut account = self.0.lock().unwrap();
            let dies = match &mut account.kill {
                Some(Kill { call: 0, heard }) => Some(*heard),
                Some(kill) => {
                    kill.call -= 1;
                    None
                }
                None => None,
            };
            if dies == Some(false) {
                None
            } else {
                let method = request["method"].as_str().unwrap();
                let answer = account.answer(method, &request["params"]);
                dies.is_none().then_some(answer)
            }
        };
        let Some(answer) = answer else {
            return std::future::pending().await;
        };
        let body = match answer {
            Ok(result) => json!({"jsonrpc": "2.0", "id": request["id"], "result": result}),
            Err(code) => json!({"jsonrpc": "2.0", "id": request["id"],
                "error": {"code": code, "message": "refused"}}),
        };
        Ok(Incoming {
            status: 200,
            body: Zeroizing::new(body.to_string().into_bytes()),
        })
    }

    async fn pause(&self, _: Duration) {}
}

thread_local! {
    static SECONDS: Cell<u64> = const { Cell::new(0) };
}

/// A clock that stands still until a test moves it.
fn now() -> Moment {
    let since = Duration::from_secs(1_800_000_000 + SECONDS.get());
    Moment(SystemTime::UNIX_EPOCH + since)
}

#[derive(Debug)]
struct Frozen;

impl Stamper for Frozen {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        Ok(Stamp {
            timestamp: Timestamp(1_576_074_319_000),
            nonce: "1iqt2wls".parse().unwrap(),
        })
    }
}

/// How a run of a command ended.
#[derive(Debug)]
enum Ended {
    Killed,
    Done,
    Waiting,
    /// The hook said no, now or before, and all is as it was.
    TakenBack,
    /// There was nothing to go back to.
    Nothing,
}

/// A keystore, its account, and what the model says of them.
struct World {
    _home: Home,
    store: Store,
    exchange: Exchange<Wire>,
    admin: LocalSigner<Frozen>,
    name: KeyName,
    /// Fingerprints, as the model has them: the key in use, and the one to go back to.
    current: String,
    earlier: Option<String>,
    /// Whether the hook of this command has said no; asked again, it would say yes.
    refused: Cell<bool>,
}

impl World {
    fn new() -> Self {
        let home = Home::new();
        let store = Store::open(&home.store()).unwrap();
        let pem = std::fs::read(data("keys/ed25519.rfc8032.pem")).unwrap();
        let admin = LocalSigner::new(PrivateKey::read(&pem, None).unwrap(), Frozen);
        let exchange = Exchange::new(Wire::default(), Network::Test);
        let name: KeyName = "bot".parse().unwrap();
        let (key, mut record) = fresh();
        {
            let mut account = exchange.transport().0.lock().unwrap();
            account.add(
                "admin",
                &admin.key().public().to_pem(),
                "account:read_write",
            );
            let id = account.add("bot", &key.public().to_pem(), SCOPE);
            record.registration = Some(store::Registration {
                network: Network::Test,
                client_id: account.keys[&id].client_id.parse().unwrap(),
                key_id: Some(KeyId(id)),
                label: "bot".into(),
                scope: SCOPE.parse().unwrap(),
                whitelist: Vec::new(),
                features: Vec::new(),
                enabled: true,
                retired: None,
                fingerprint_verified: true,
                proven: Some(now()),
            });
        }
        let pem = key.to_plain_pem().unwrap();
        store.create(&name, &pem, key.public(), &record).unwrap();
        Self {
            _home: home,
            store,
            exchange,
            admin,
            name,
            current: key.public().fingerprint().to_string(),
            earlier: None,
            refused: Cell::new(false),
        }
    }

    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        self.exchange.transport().0.lock().unwrap()
    }

    fn succession(&self, grace: u64, remove_old: bool) -> (Succession, Specification) {
        let from = self.store.current(&self.name).unwrap();
        let record = self.store.record(&self.name).unwrap();
        let known = record.registration.unwrap();
        let succession = Succession {
            from,
            client_id: known.client_id,
            key_id: known.key_id.unwrap(),
            hook: Vec::new(),
            hook_timeout: None,
            grace,
            until: None,
            remove_old,
            taken_back: false,
            puts_off: None,
        };
        let spec = Specification {
            algorithm: record.algorithm,
            label: known.label,
            scope: known.scope,
            whitelist: known.whitelist,
            features: known.features,
        };
        (succession, spec)
    }

    fn intend(
        &self,
        operation: Operation,
        generation: Generation,
        (succession, spec): (Succession, Specification),
    ) -> Intent {
        let network = &Network::Test;
        let intent = provision::intend(operation, &self.name, generation, network, spec, now());
        Intent {
            succession: Some(succession),
            ..intent
        }
    }

    fn rotation(&self, grace: u64, remove_old: bool) -> Intent {
        let generations = self.store.generations(&self.name).unwrap();
        let next = generations.into_iter().max().unwrap().next();
        self.intend(Operation::Rotate, next, self.succession(grace, remove_old))
    }

    /// The way back, if there is one.
    fn way_back(&self) -> Option<Intent> {
        let current = self.store.current(&self.name).unwrap();
        let generations = self.store.generations(&self.name).unwrap();
        let earlier = generations.into_iter().filter(|g| *g != current);
        let retired = earlier.filter_map(|generation| {
            let record = self.store.record_of(&self.name, generation).unwrap();
            let known = record
                .registration
                .filter(|known| known.retired.is_some())?;
            Some((known.retired, generation, known))
        });
        let (_, generation, known) =
            retired.max_by_key(|(at, generation, _)| (*at, *generation))?;
        let (mut succession, spec) = self.succession(0, false);
        succession.puts_off = self.store.intent(&self.name).unwrap().map(Box::new);
        let mut intent = self.intend(Operation::Rollback, generation, (succession, spec));
        intent.issued = Some(Issued {
            client_id: known.client_id,
            key_id: known.key_id.unwrap(),
            fingerprint_verified: true,
        });
        Some(intent)
    }

    /// Carries an operation on from wherever it stands, and may die on the way.
    fn carry(&self, intent: Intent, hook_refuses: bool, kill: Option<Kill>) -> Ended {
        let past_the_hook = intent.stage >= Stage::Switched;
        self.account().kill = kill;
        let carried = self.carry_out(intent, hook_refuses).now_or_never();
        self.account().kill = None;
        let ended = match carried {
            None => Ended::Killed,
            Some(Ok(Rotated::Done(_))) => Ended::Done,
            Some(Ok(Rotated::Waiting(..))) => Ended::Waiting,
            Some(Ok(Rotated::TakenBack)) => Ended::TakenBack,
            Some(Err(derikey::Error::Hook { .. })) => Ended::TakenBack,
            Some(Err(error)) => panic!("{error:?}"),
        };
        self.a_working_key_exists();
        // A no is final, whatever came in between.
        let settled = past_the_hook || matches!(ended, Ended::Killed | Ended::TakenBack);
        assert!(settled || !self.refused.get(), "{ended:?}");
        ended
    }

    /// As `carry_out` of `cli/rotation.rs`.
    async fn carry_out(
        &self,
        mut intent: Intent,
        hook_refuses: bool,
    ) -> Result<Rotated, derikey::Error> {
        let (store, name) = (&self.store, &self.name);
        let mut second = Unattended;
        let operator = Operator::Key {
            client_id: "client1".parse().unwrap(),
            signer: &self.admin,
        };
        let signer = std::cell::OnceCell::new();
        let mut work = Work {
            store,
            desk: Desk::new(&self.exchange, operator, &mut second),
            tell: Box::new(|_| {}),
            now,
            seen: BTreeMap::new(),
        };
        let there = store.generations(name)?.contains(&intent.generation);
        if !there {
            let refused = intent.succession.as_ref().is_some_and(|s| s.taken_back);
            if refused {
                work.give_up(&intent).await?;
                return Ok(Rotated::TakenBack);
            }
            intent.stage = Stage::Planned;
            intent.fingerprint = None;
            let full = work.survey().await?.0.len() >= 8;
            if full {
                let from = intent.succession.as_ref().unwrap().from;
                work.clear_superseded(name, &[from]).await?;
            }
            store.announce(&intent)?;
        }
        if intent.operation == Operation::Rollback {
            store.announce(&intent)?;
        }
        let key = if there {
            let unlock = || -> Result<Passphrase, store::Error> { unreachable!("it is in clear") };
            store.load_of(name, intent.generation, unlock)?
        } else {
            let (key, record) = fresh();
            let pem = key.to_plain_pem().unwrap();
            store.add_generation(name, intent.generation, &pem, key.public(), &record)?;
            key
        };
        if intent.stage < Stage::Generated {
            intent.fingerprint = Some(key.public().fingerprint());
            intent.stage = Stage::Generated;
            store.announce(&intent)?;
        }
        let signer = signer.get_or_init(|| LocalSigner::new(key, Frozen));
        let mut hook = |_: &Intent, _: &Issued| {
            if hook_refuses && !self.refused.replace(true) {
                return Err("no".into());
            }
            Ok(())
        };
        work.rotate(intent, signer, &mut hook).await
    }

    /// The key that a bot finds under `current` logs in, whatever has happened.
    #[track_caller]
    fn a_working_key_exists(&self) {
        let unlock = || -> Result<Passphrase, store::Error> { unreachable!("it is in clear") };
        let key = self.store.load(&self.name, unlock).unwrap();
        let record = self.store.record(&self.name).unwrap();
        let client_id = record.registration.unwrap().client_id;
        let signer = LocalSigner::new(key, Frozen);
        let scope: Scope = SCOPE.parse().unwrap();
        let proven = provision::prove(&self.exchange, &client_id, &signer, &scope);
        let proven = proven.now_or_never().unwrap();
        assert!(proven.is_ok(), "{proven:?}");
    }

    fn fingerprint_of(&self, generation: Generation) -> String {
        let record = self.store.record_of(&self.name, generation).unwrap();
        record.fingerprint.to_string()
    }

    /// Nothing is under way, and store, account and model agree.
    #[track_caller]
    fn agrees(&self) {
        assert!(self.store.journal().unwrap().is_empty());
        let current = self.store.current(&self.name).unwrap();
        assert_eq!(self.fingerprint_of(current), self.current);
        let mut kept: Vec<String> = [Some(&self.current), self.earlier.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        kept.sort();
        let generations = self.store.generations(&self.name).unwrap();
        let mut here: Vec<String> = generations
            .into_iter()
            .map(|generation| self.fingerprint_of(generation))
            .collect();
        here.sort();
        assert_eq!(here, kept, "in the keystore");
        let print = |key: &Entry| {
            let public = PublicKey::read(key.public.as_bytes()).unwrap();
            public.fingerprint().to_string()
        };
        let account = self.account();
        let ours: Vec<&Entry> = account.keys.values().filter(|k| k.label == "bot").collect();
        let mut there: Vec<String> = ours.iter().map(|key| print(key)).collect();
        there.sort();
        assert_eq!(there, kept, "at the exchange");
        let enabled = ours.iter().filter(|key| key.enabled);
        let enabled: Vec<String> = enabled.map(|key| print(key)).collect();
        assert_eq!(enabled, std::slice::from_ref(&self.current), "enabled");
    }

    /// Resumes until nothing is under way, or a grace has to be waited for; the last time unharmed.
    fn resume(&self, hook_refuses: bool, kills: &[Kill]) -> Ended {
        let kills = kills.iter().copied().map(Some).chain([None]);
        let mut ended = Ended::Nothing;
        for kill in kills {
            let Some(intent) = self.store.intent(&self.name).unwrap() else {
                break;
            };
            ended = self.carry(intent, hook_refuses, kill);
            if !matches!(ended, Ended::Killed) {
                break;
            }
        }
        ended
    }

    /// Runs one command, through all its deaths, to its end; then the model does the same.
    fn run(&mut self, step: &Step) {
        let (first, rest) = match step.kills.split_first() {
            Some((first, rest)) => (Some(*first), rest),
            None => (None, &[][..]),
        };
        let rotates = matches!(step.command, Command::Rotate { .. });
        let intent = match step.command {
            Command::Rotate { remove_old, grace } => {
                let grace = if grace { GRACE } else { 0 };
                Some(self.rotation(grace, remove_old))
            }
            Command::Rollback => self.way_back(),
        };
        let Some(intent) = intent else {
            assert!(!rotates && self.earlier.is_none());
            return;
        };
        let generation = intent.generation;
        self.refused.set(false);
        let mut ended = self.carry(intent, step.hook_refuses, first);
        if matches!(ended, Ended::Killed) {
            ended = self.resume(step.hook_refuses, rest);
        }
        match (&ended, &step.command) {
            // It died before it was written down: it never began.
            (Ended::Nothing, _) => {}
            (Ended::TakenBack, _) => assert!(self.refused.get()),
            (Ended::Done, Command::Rotate { remove_old, .. }) => {
                self.switched_to(generation, *remove_old);
            }
            (Ended::Waiting, Command::Rotate { remove_old, .. }) => {
                self.wait_out(generation, *remove_old, step);
            }
            (Ended::Done, Command::Rollback) => self.switched_to(generation, false),
            _ => panic!("{ended:?}"),
        }
        self.agrees();
    }

    fn switched_to(&mut self, generation: Generation, remove_old: bool) {
        let new = self.fingerprint_of(generation);
        let old = std::mem::replace(&mut self.current, new);
        self.earlier = (!remove_old).then_some(old);
    }

    /// A grace runs: both keys work. It ends by itself, or by a way back that may be refused.
    fn wait_out(&mut self, generation: Generation, remove_old: bool, step: &Step) {
        let both = self.account();
        let enabled = both.keys.values().filter(|k| k.label == "bot" && k.enabled);
        assert_eq!(enabled.count(), 2);
        drop(both);
        let before = self.current.clone();
        if let Some(refused) = step.back_in_grace {
            let back = self.way_back().unwrap();
            assert_eq!(self.fingerprint_of(back.generation), before);
            let ended = match self.carry(back, refused, step.kills.last().copied()) {
                Ended::Killed => {
                    let pending = self.store.intent(&self.name).unwrap().unwrap();
                    if pending.operation == Operation::Rollback {
                        self.resume(refused, &step.kills)
                    } else {
                        Ended::TakenBack
                    }
                }
                ended => ended,
            };
            match ended {
                // In use again is what was; what it would have made way for is the earlier one.
                Ended::Done => {
                    self.earlier = Some(self.fingerprint_of(generation));
                    return;
                }
                Ended::TakenBack | Ended::Waiting => {}
                _ => panic!("{ended:?}"),
            }
        }
        SECONDS.set(SECONDS.get() + GRACE + 1);
        self.refused.set(false);
        let ended = self.resume(false, &step.kills);
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        self.switched_to(generation, remove_old);
    }
}

fn fresh() -> (PrivateKey, Record) {
    let mut chance = rand_core::UnwrapErr(getrandom::SysRng);
    let key = PrivateKey::generate(Algorithm::Ed25519, &mut chance).unwrap();
    let record = Record {
        algorithm: Algorithm::Ed25519,
        fingerprint: key.public().fingerprint(),
        created: now(),
        registration: None,
        signer: None,
    };
    (key, record)
}

#[derive(Clone, Debug)]
enum Command {
    Rotate { remove_old: bool, grace: bool },
    Rollback,
}

#[derive(Clone, Debug)]
struct Step {
    command: Command,
    hook_refuses: bool,
    /// Whether a way back is tried while a grace runs, and whether its hook refuses.
    back_in_grace: Option<bool>,
    /// One for each time that it is run; the last time nothing happens.
    kills: Vec<Kill>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rotate = (any::<bool>(), any::<bool>())
        .prop_map(|(remove_old, grace)| Command::Rotate { remove_old, grace });
    let command = prop_oneof![3 => rotate, 2 => Just(Command::Rollback)];
    let kill = (0..9_usize, any::<bool>()).prop_map(|(call, heard)| Kill { call, heard });
    let step = (
        command,
        prop::bool::weighted(0.2),
        any::<Option<bool>>(),
        prop::collection::vec(kill, 0..4),
    );
    let step = step.prop_map(|(command, hook_refuses, back_in_grace, kills)| Step {
        command,
        hook_refuses,
        back_in_grace,
        kills,
    });
    prop::collection::vec(step, 1..6)
}

proptest! {
    #![proptest_config(config(20))]

    #[test]
    fn rotations_killed_anywhere_end_as_the_model_says(steps in steps()) {
        let mut world = World::new();
        world.agrees();
        for step in &steps {
            world.run(step);
            SECONDS.set(SECONDS.get() + 1);
        }
    }
}

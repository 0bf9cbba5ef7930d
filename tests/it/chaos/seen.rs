//! What people saw in the end, held against what they said.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::channels::{Site, is_given_up, micros};
use super::senders::{KINDS, Sender};
use super::weather::Shown;

/// The web page shows so many exchanges.
const PAGE_SHOWS: usize = 60;
/// What a person is told whose turn is given up.
const SORRY: &str = "Something went wrong";

/// Whose message a text is about, and which; a text is about one.
fn about(text: &str) -> Option<(String, usize)> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let named: HashSet<(String, usize)> = words
        .filter_map(|word| {
            let (name, n) = word.split_once('x')?;
            let kind = name.get(..name.len().checked_sub(1)?)?;
            let is_one = KINDS.contains(&kind);
            Some((name.to_owned(), n.parse().ok()?)).filter(|_| is_one)
        })
        .collect();
    assert!(named.len() <= 1, "{named:?} in one: {text}");
    named.into_iter().next()
}

fn text_of(run: &Value) -> String {
    let parts = run["input"][0]["content"].as_array().into_iter().flatten();
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n")
}

/// Whether all of an answer is there; what is shown while it is written ends otherwise.
fn is_whole(shown: &Shown) -> bool {
    shown.text.contains("whole") && !shown.text.trim_end().ends_with('…')
}

/// How many messages these are to people: those of one key are one.
fn times(shown: &[Shown]) -> usize {
    let keys: HashSet<&String> = shown.iter().filter_map(|one| one.key.as_ref()).collect();
    keys.len() + shown.iter().filter(|one| one.key.is_none()).count()
}

/// What people saw, in numbers.
#[derive(Debug, Default)]
pub struct Seen {
    pub sent: usize,
    pub unknown: usize,
    /// Of unknown outcome, which came there all the same.
    pub unknown_came: usize,
    /// Sent again, and known by its name as the same.
    pub folded: usize,
    /// Words that were shown while they were written, and never became the answer.
    pub left: usize,
    /// Turns that an apology is the answer of, as their node was killed each time that they were tried.
    pub given_up: usize,
    pub fires_given_up: usize,
    /// What is not as it has to be.
    pub faults: Vec<String>,
}

impl Seen {
    fn hold(&mut self, is_so: bool, fault: impl FnOnce() -> String) {
        if !is_so {
            self.faults.push(fault());
        }
    }

    /// Checks that no message of a person has two turns, that they are in order and never two at once,
    /// and answers them.
    fn check_turns<'a>(
        &mut self,
        (kind, name): (&str, &str),
        taken: usize,
        runs: &'a [Value],
    ) -> Vec<(usize, &'a Value)> {
        let mut lane: Vec<(usize, &Value)> = Vec::new();
        for run in runs.iter().filter(|run| run["channel"] == kind) {
            match about(&text_of(run)) {
                Some((whose, n)) if whose == name => lane.push((n, run)),
                Some(_) => {}
                None => self.faults.push(format!("a turn of nobody: {run}")),
            }
        }
        let numbers: Vec<usize> = lane.iter().map(|(n, _)| *n).collect();
        let is_sound = numbers.is_sorted_by(|one, next| one < next)
            && numbers.last().is_none_or(|last| *last < taken);
        self.hold(is_sound, || {
            format!("the turns of {name} are {numbers:?}, of {taken}")
        });
        let mut ended = 0;
        for (_, run) in &lane {
            let is_over = run["status"] == "completed" || is_given_up(&run["error"]);
            self.hold(is_over, || format!("it failed: {run}"));
            let begun = micros(&run["created_at"]);
            self.hold(ended <= begun, || format!("two at once: {run}"));
            ended = micros(&run["updated_at"]);
        }
        lane
    }

    /// Checks that a message was answered once, and after what was said before it.
    fn check_answer(
        &mut self,
        what: &str,
        delivery: &Value,
        shown: Vec<Shown>,
        last: &mut Option<usize>,
    ) {
        let (whole, parts): (Vec<Shown>, Vec<Shown>) = shown.into_iter().partition(is_whole);
        self.left += parts.len();
        let times = times(&whole);
        self.folded += whole.len() - times;
        match (delivery["status"].as_str(), times) {
            (Some("sent"), 1) => self.sent += 1,
            (Some("unknown"), 0 | 1) => {
                let is_told = times == 1 && delivery["channel"] == "whatsapp";
                self.hold(!is_told, || {
                    format!("{what} was said to be sent: {delivery}")
                });
                self.unknown += 1;
                self.unknown_came += times;
            }
            _ => self.faults.push(format!(
                "{what} came {times} times: {delivery}, {whole:?}, {parts:?}"
            )),
        }
        if let Some(first) = whole.iter().map(|one| one.order).min() {
            self.hold(*last < Some(first), || {
                format!("{what} came before what was said before it: {delivery}")
            });
            *last = Some(first);
        }
    }

    /// Checks that turns which became no run are told, and that nobody is told more often that something
    /// went wrong than it did. `missing`: by channel; `apologies`: of runs and turns.
    async fn check_given_up(
        &mut self,
        site: &Site,
        missing: &BTreeMap<&str, usize>,
        apologies: &[&Value],
        shown: &[Shown],
    ) {
        let failed = site.all("/v1/events?type=turn.failed").await;
        for event in &failed {
            self.hold(is_given_up(&event["data"]), || {
                format!("it failed: {event}")
            });
        }
        let of = |kind: &str| {
            let of_kind = |one: &&Value| one["data"]["channel"] == kind;
            failed.iter().filter(of_kind).count()
        };
        self.fires_given_up = of("schedule");
        for (kind, missing) in missing {
            self.hold(of(kind) == *missing, || {
                format!(
                    "{missing} turns of {kind} became no run, and {} are told",
                    of(kind)
                )
            });
        }
        let on_platforms = apologies.iter().filter(|one| one["channel"] != "web");
        let on_platforms: Vec<&&Value> = on_platforms.collect();
        let is_sent = |one: &&&&Value| one["status"] == "sent";
        let sent = on_platforms.iter().filter(is_sent).count();
        let came = times(shown);
        self.hold((sent..=on_platforms.len()).contains(&came), || {
            format!("{came} apologies came: {apologies:?}")
        });
        self.given_up = apologies.len();
    }
}

/// Checks that each message has one turn and one answer, in order.
pub async fn check(site: &Site, senders: &[(Arc<Sender>, usize)], rest: &[Vec<Value>; 3]) -> Seen {
    let [arrivals, runs, deliveries] = rest;
    let mut seen = Seen::default();
    let mut delivered: HashMap<&str, Vec<&Value>> = HashMap::new();
    let mut apologies: Vec<&Value> = Vec::new();
    for one in deliveries {
        match one["run_id"].as_str() {
            Some(run) => delivered.entry(run).or_default().push(one),
            None => apologies.push(one),
        }
    }
    let mut shown: BTreeMap<(String, usize), Vec<Shown>> = BTreeMap::new();
    let mut sorry = Vec::new();
    for (name, one) in site.weather.shown() {
        match about(&one.text) {
            Some(about) => shown.entry(about).or_default().push(one),
            None if one.text.contains(SORRY) => sorry.push(one),
            None => seen.faults.push(format!("{name} answers nobody: {one:?}")),
        }
    }
    let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
    for (sender, taken) in senders {
        let (kind, name, mut last) = (sender.kind, sender.name(), None);
        let lane = seen.check_turns((kind, &name), *taken, runs);
        *missing.entry(kind).or_default() += taken.saturating_sub(lane.len());
        for (n, run) in &lane {
            let what = format!("{name}x{n}");
            let id = run["id"].as_str().expect("an id");
            let all = shown.remove(&(name.clone(), *n)).unwrap_or_default();
            match delivered.get(id).map_or(&[][..], Vec::as_slice) {
                [delivery] if run["status"] == "failed" => {
                    apologies.push(delivery);
                    let is_answered = all.iter().any(is_whole);
                    seen.hold(!is_answered, || format!("{what} is answered: {run}"));
                }
                // The page reads what is said itself.
                [delivery] if kind == "web" => {
                    seen.hold(delivery["status"] == "sent", || delivery.to_string());
                    seen.sent += 1;
                }
                [delivery] => seen.check_answer(&what, delivery, all, &mut last),
                others => seen
                    .faults
                    .push(format!("{what} is not answered once: {others:?}")),
            }
        }
        if kind == "web" {
            let page = sender.page_shows(site).await;
            let messages = page["messages"].as_array().expect("messages");
            let said = messages.iter().filter(|one| one["role"] == "assistant");
            let said: Vec<Option<usize>> = said
                .map(|one| about(&one["parts"].to_string()).map(|(_, n)| n))
                .collect();
            let newest = &lane[lane.len().saturating_sub(PAGE_SHOWS)..];
            let newest: Vec<Option<usize>> = newest
                .iter()
                .map(|(n, run)| Some(*n).filter(|_| run["status"] == "completed"))
                .collect();
            seen.hold(said == newest, || format!("{name}'s page shows {said:?}"));
        }
    }
    for kind in KINDS {
        let is_status = |one: &Value| {
            one["type"]
                .as_str()
                .is_some_and(|t| t.starts_with("status"))
        };
        let recorded = arrivals
            .iter()
            .filter(|one| one["source"] == kind && !is_status(one))
            .count();
        let all = senders.iter().filter(|(sender, _)| sender.kind == kind);
        let all: usize = all.map(|(_, taken)| taken).sum();
        seen.hold(recorded == all, || {
            format!("{recorded} arrivals of {kind} are recorded, {all} were taken")
        });
    }
    seen.hold(shown.is_empty(), || {
        format!("what nobody said is answered: {shown:?}")
    });
    seen.check_given_up(site, &missing, &apologies, &sorry)
        .await;
    let taken: usize = senders.iter().map(|(_, taken)| taken).sum();
    let given_up = seen.given_up;
    seen.hold(given_up <= 2 + taken / 100, || {
        format!("{given_up} turns of {taken} are given up: that is no chance")
    });
    seen
}

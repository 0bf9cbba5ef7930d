//! Prometheus metrics. Lives here: [`Metrics`], one registry for a gateway. Imports nothing of
//! ours. Handles for hot labels are looked up once a request, not once a frame.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

/// Most combinations of labels that callers make up (providers and models of their own) of one
/// metric; what comes later is counted under [`OTHERS`].
const MOST_MADE_UP: usize = 2_000;
const OTHERS: &str = "others";

/// Counters whose first labels are callers' own words, so that nobody fills this node's memory with
/// names.
#[derive(Clone)]
pub struct Named {
    vec: IntCounterVec,
    /// Labels at the front that callers make up.
    made_up: usize,
    seen: Arc<RwLock<HashSet<String>>>,
}

impl Named {
    fn new(vec: IntCounterVec, made_up: usize) -> Self {
        Self {
            vec,
            made_up,
            seen: Arc::default(),
        }
    }

    /// The counter of these labels, or of all others.
    pub fn with_label_values(&self, values: &[&str]) -> IntCounter {
        let name = values.join("\n");
        if !self.seen.read().contains(&name) {
            let mut seen = self.seen.write();
            if seen.len() >= MOST_MADE_UP {
                drop(seen);
                let mut others = values.to_vec();
                others[..self.made_up].fill(OTHERS);
                return self.vec.with_label_values(&others);
            }
            seen.insert(name);
        }
        self.vec.with_label_values(values)
    }
}

/// All metrics of a gateway.
#[derive(Clone)]
pub struct Metrics {
    pub registry: Registry,
    /// By route and status.
    pub requests: IntCounterVec,
    /// Event streams being written to clients.
    pub streams_open: IntGauge,
    /// Seconds from the request's header to the first byte of the answer, by route.
    pub time_to_first_byte: HistogramVec,
    /// Frames written to clients, by wire.
    pub frames: IntCounterVec,
    /// Tokens, by provider, model and kind.
    pub tokens: Named,
    /// What calls cost, in billionths of the currency, by provider and model.
    pub cost: Named,
    /// The same of virtual keys, by key.
    pub key_cost: Named,
    /// Calls with virtual keys, by key.
    pub key_calls: Named,
    /// Their tokens, by key and kind.
    pub key_tokens: Named,
    /// Failed provider calls, by provider and kind.
    pub provider_errors: Named,
    /// Provider calls given up because the client had gone.
    pub cancelled_calls: IntCounter,
    /// Look-ups answered from memory, by cache.
    pub cache_hits: IntCounterVec,
    /// Look-ups that asked the store, by cache.
    pub cache_misses: IntCounterVec,
    /// Seconds of one commit of the journal, with its retries.
    pub journal_commit: Histogram,
    /// Entries that those commits held.
    pub journal_entries: IntCounter,
    /// Pieces of work that nodes share, by kind and what became of them.
    pub work: IntCounterVec,
    /// Seconds from a turn's arrival in its lane to the begin of its run, by channel.
    pub lane_lag: HistogramVec,
    /// Turns that became no run, by channel.
    pub lane_failures: IntCounterVec,
    /// What platforms sent, by channel and whether it was new.
    pub channel_arrivals: IntCounterVec,
    /// Attempts to send a message, by channel and outcome.
    pub channel_deliveries: IntCounterVec,
    /// Fires of schedules, by what became of them.
    pub schedule_fires: IntCounterVec,
    /// Seconds from when a schedule said to when it fired.
    pub schedule_lateness: Histogram,
    /// Verifications of tokens that were answered from the cache.
    pub token_cache_hits: IntCounter,
    /// Verifications that checked a signature.
    pub token_cache_misses: IntCounter,
    /// Pieces that other nodes were not told.
    pub bus_lost: IntCounter,
    /// Seconds that what is ready waits for a worker.
    pub worker_lag: Gauge,
    /// Model calls and runs that were refused because the workers were behind.
    pub overload_refused: IntCounter,
    /// Bytes of request bodies that this node holds.
    pub body_bytes: IntGauge,
    /// Request bodies that were refused because this node held too many bytes of others.
    pub bodies_refused: IntCounter,
}

/// The one way by which metrics are made: whatever is made is registered.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = made.expect("a valid metric");
        let registered = self.0.register(Box::new(made.clone()));
        registered.expect("a new metric");
        made
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(Histogram::with_opts(options))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], label: &str) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(options, &[label]))
    }
}

/// Seconds of what is waited for.
const WAITS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0,
];
/// Seconds of an answer's beginning.
const ANSWERS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Seconds of a commit.
const COMMITS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0,
];

impl Metrics {
    /// A new registry with all metrics.
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        Self {
            requests: make.counters(
                "smithgate_requests_total",
                "Requests by route and status",
                &["route", "status"],
            ),
            streams_open: make.gauge("smithgate_streams_open", "Event streams being written"),
            time_to_first_byte: make.histograms(
                "smithgate_time_to_first_byte_seconds",
                "From the request's header to the answer's first byte",
                &ANSWERS,
                "route",
            ),
            frames: make.counters("smithgate_frames_total", "Frames written", &["wire"]),
            tokens: Named::new(
                make.counters(
                    "smithgate_tokens_total",
                    "Tokens by provider, model and kind",
                    &["provider", "model", "kind"],
                ),
                2,
            ),
            cost: Named::new(
                make.counters(
                    "smithgate_cost_nanos_total",
                    "What model calls cost, in billionths of the currency",
                    &["provider", "model"],
                ),
                2,
            ),
            key_cost: Named::new(
                make.counters(
                    "smithgate_key_cost_nanos_total",
                    "What calls with virtual keys cost, in billionths of the currency",
                    &["key"],
                ),
                1,
            ),
            key_calls: Named::new(
                make.counters(
                    "smithgate_key_calls_total",
                    "Model calls with virtual keys",
                    &["key"],
                ),
                1,
            ),
            key_tokens: Named::new(
                make.counters(
                    "smithgate_key_tokens_total",
                    "Tokens of virtual keys by kind",
                    &["key", "kind"],
                ),
                1,
            ),
            provider_errors: Named::new(
                make.counters(
                    "smithgate_provider_errors_total",
                    "Failed provider calls",
                    &["provider", "kind"],
                ),
                1,
            ),
            cancelled_calls: make.counter(
                "smithgate_provider_calls_cancelled_total",
                "Provider calls given up because the client had gone",
            ),
            cache_hits: make.counters(
                "smithgate_cache_hits_total",
                "Look-ups from memory",
                &["cache"],
            ),
            cache_misses: make.counters(
                "smithgate_cache_misses_total",
                "Look-ups that asked the store",
                &["cache"],
            ),
            journal_commit: make.histogram(
                "smithgate_journal_commit_seconds",
                "One commit of what runs write, with its retries",
                &COMMITS,
            ),
            journal_entries: make.counter(
                "smithgate_journal_entries_total",
                "Entries written by commits of the journal",
            ),
            work: make.counters(
                "smithgate_work_total",
                "Pieces of shared work by kind and what became of them",
                &["work", "what"],
            ),
            lane_lag: make.histograms(
                "smithgate_lane_lag_seconds",
                "From a turn's arrival in its lane to the begin of its run",
                &WAITS,
                "channel",
            ),
            lane_failures: make.counters(
                "smithgate_lane_failures_total",
                "Queued turns that became no run",
                &["channel"],
            ),
            channel_arrivals: make.counters(
                "smithgate_channel_arrivals_total",
                "What platforms sent",
                &["channel", "outcome"],
            ),
            channel_deliveries: make.counters(
                "smithgate_channel_deliveries_total",
                "Attempts to send a message",
                &["channel", "outcome"],
            ),
            schedule_fires: make.counters(
                "smithgate_schedule_fires_total",
                "Fires of schedules by what became of them",
                &["outcome"],
            ),
            schedule_lateness: make.histogram(
                "smithgate_schedule_lateness_seconds",
                "From when a schedule said to when it fired",
                &WAITS,
            ),
            token_cache_hits: make.counter(
                "smithgate_token_cache_hits_total",
                "Token checks from cache",
            ),
            token_cache_misses: make.counter(
                "smithgate_token_cache_misses_total",
                "Token checks by signature",
            ),
            bus_lost: make.counter(
                "smithgate_bus_lost_total",
                "What other nodes were not told, as Redis did not take it",
            ),
            worker_lag: make.keep(Gauge::new(
                "smithgate_worker_lag_seconds",
                "How long what is ready waits for a worker",
            )),
            overload_refused: make.counter(
                "smithgate_overload_refused_total",
                "Model calls and runs that were refused because the workers were behind",
            ),
            body_bytes: make.gauge(
                "smithgate_body_bytes_in_flight",
                "Bytes of request bodies that this node holds",
            ),
            bodies_refused: make.counter(
                "smithgate_bodies_refused_total",
                "Request bodies that were refused because this node held too many bytes of others",
            ),
            registry,
        }
    }

    /// The exposition text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Counts what a call cost, in nanos; `key` is empty without a virtual one.
    pub fn count_cost(&self, provider: &str, model: &str, key: &str, nanos: u64) {
        if nanos == 0 {
            return;
        }
        let cost = self.cost.with_label_values(&[provider, model]);
        cost.inc_by(nanos);
        if !key.is_empty() {
            self.key_cost.with_label_values(&[key]).inc_by(nanos);
        }
    }

    /// Counts a call with a virtual key.
    pub fn count_key(&self, key: &str, usage: &crate::frame::Usage) {
        self.key_calls.with_label_values(&[key]).inc();
        for (kind, count) in [("input", usage.input), ("output", usage.output)] {
            if count > 0 {
                let tokens = self.key_tokens.with_label_values(&[key, kind]);
                tokens.inc_by(count);
            }
        }
    }

    /// Counts the tokens of one model call.
    pub fn count_tokens(&self, provider: &str, model: &str, usage: &crate::frame::Usage) {
        for (kind, count) in [
            ("input", usage.input),
            ("output", usage.output),
            ("cache_read", usage.cache_read),
            ("cache_write", usage.cache_write),
            ("reasoning", usage.reasoning),
        ] {
            if count > 0 {
                self.tokens
                    .with_label_values(&[provider, model, kind])
                    .inc_by(count);
            }
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_do_not_fill_the_memory_with_names() {
        let metrics = Metrics::new();
        let usage = crate::frame::Usage {
            input: 1,
            ..Default::default()
        };
        for n in 0..MOST_MADE_UP + 500 {
            metrics.count_tokens("p", &format!("m{n}"), &usage);
        }
        let text = metrics.render().expect("rendered");
        let lines = text
            .lines()
            .filter(|l| l.starts_with("smithgate_tokens_total{"));
        assert_eq!(lines.count(), MOST_MADE_UP + 1);
        assert!(
            text.contains("model=\"others\",provider=\"others\"} 500"),
            "{text}"
        );
        metrics.count_tokens("p", "m1", &usage);
        assert_eq!(
            metrics
                .tokens
                .with_label_values(&["p", "m1", "input"])
                .get(),
            2
        );
    }
}

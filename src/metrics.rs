//! Prometheus metrics. Lives here: [`Metrics`], one registry for a gateway. Imports nothing of
//! ours. Handles for hot labels are looked up once a request, not once a frame.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
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
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric");
    registry
        .register(Box::new(vec.clone()))
        .expect("a new metric");
    vec
}

impl Metrics {
    /// A new registry with all metrics.
    pub fn new() -> Self {
        let registry = Registry::new();
        let streams_open = IntGauge::new("smithgate_streams_open", "Event streams being written")
            .expect("a valid metric");
        let cancelled_calls = IntCounter::new(
            "smithgate_provider_calls_cancelled_total",
            "Provider calls given up because the client had gone",
        )
        .expect("a valid metric");
        let time_to_first_byte = HistogramVec::new(
            HistogramOpts::new(
                "smithgate_time_to_first_byte_seconds",
                "From the request's header to the answer's first byte",
            )
            .buckets(vec![
                0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                10.0, 30.0,
            ]),
            &["route"],
        )
        .expect("a valid metric");
        let journal_commit = Histogram::with_opts(
            HistogramOpts::new(
                "smithgate_journal_commit_seconds",
                "One commit of what runs write, with its retries",
            )
            .buckets(vec![
                0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0,
            ]),
        )
        .expect("a valid metric");
        let journal_entries = IntCounter::new(
            "smithgate_journal_entries_total",
            "Entries written by commits of the journal",
        )
        .expect("a valid metric");
        const WAITS: [f64; 12] = [
            0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0,
        ];
        let lane_lag = HistogramVec::new(
            HistogramOpts::new(
                "smithgate_lane_lag_seconds",
                "From a turn's arrival in its lane to the begin of its run",
            )
            .buckets(WAITS.to_vec()),
            &["channel"],
        )
        .expect("a valid metric");
        let schedule_lateness = Histogram::with_opts(
            HistogramOpts::new(
                "smithgate_schedule_lateness_seconds",
                "From when a schedule said to when it fired",
            )
            .buckets(WAITS.to_vec()),
        )
        .expect("a valid metric");
        for metric in [
            Box::new(streams_open.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(cancelled_calls.clone()),
            Box::new(time_to_first_byte.clone()),
            Box::new(journal_commit.clone()),
            Box::new(journal_entries.clone()),
            Box::new(lane_lag.clone()),
            Box::new(schedule_lateness.clone()),
        ] {
            registry.register(metric).expect("a new metric");
        }
        let make =
            |name: &str, help: &str, labels: &[&str]| counters(&registry, name, help, labels);
        Self {
            requests: make(
                "smithgate_requests_total",
                "Requests by route and status",
                &["route", "status"],
            ),
            streams_open,
            time_to_first_byte,
            frames: make("smithgate_frames_total", "Frames written", &["wire"]),
            tokens: Named::new(
                make(
                    "smithgate_tokens_total",
                    "Tokens by provider, model and kind",
                    &["provider", "model", "kind"],
                ),
                2,
            ),
            provider_errors: Named::new(
                make(
                    "smithgate_provider_errors_total",
                    "Failed provider calls",
                    &["provider", "kind"],
                ),
                1,
            ),
            cancelled_calls,
            cache_hits: make(
                "smithgate_cache_hits_total",
                "Look-ups from memory",
                &["cache"],
            ),
            cache_misses: make(
                "smithgate_cache_misses_total",
                "Look-ups that asked the store",
                &["cache"],
            ),
            journal_commit,
            journal_entries,
            work: make(
                "smithgate_work_total",
                "Pieces of shared work by kind and what became of them",
                &["work", "what"],
            ),
            lane_lag,
            lane_failures: make(
                "smithgate_lane_failures_total",
                "Queued turns that became no run",
                &["channel"],
            ),
            channel_arrivals: make(
                "smithgate_channel_arrivals_total",
                "What platforms sent",
                &["channel", "outcome"],
            ),
            channel_deliveries: make(
                "smithgate_channel_deliveries_total",
                "Attempts to send a message",
                &["channel", "outcome"],
            ),
            schedule_fires: make(
                "smithgate_schedule_fires_total",
                "Fires of schedules by what became of them",
                &["outcome"],
            ),
            schedule_lateness,
            registry,
        }
    }

    /// The exposition text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
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

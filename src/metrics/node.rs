//! The node as a whole: its version and name, refusals of all kinds, memory, configuration, log lines, and who follows it.

use crate::budget::{Holding, MemoryBudget};
use crate::metrics::maker::{Made, Maker};
use crate::model::clock::unix_ms;
use crate::model::refusal::Refusal;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Results of reading a configuration.
const RELOADS: [&str; 3] = ["applied", "unchanged", "refused"];

/// Metrics of the node.
pub struct NodeMetrics {
    info: IntGaugeVec,
    refusals: Vec<IntCounter>,
    memory: Vec<IntGauge>,
    memory_limit: IntGauge,
    config_reloads: IntCounterVec,
    config_since: Gauge,
    config_needs_restart: IntGauge,
    log_lines_dropped: IntCounter,
    traces: IntGauge,
    trace_skipped: IntCounter,
}

impl NodeMetrics {
    pub(super) fn new(make: &Maker<'_>, version: &str) -> Made<Self> {
        make.gauges("roomcast_build_info", "The running version.", &["version"])?.with_label_values(&[version]).set(1);
        let memory = make.gauges("roomcast_memory_bytes", "Memory held for clients, by kind.", &["kind"])?;
        Ok(Self {
            info: make.gauges("roomcast_node_info", "The name of this node in the cluster.", &["node"])?,
            refusals: make.counter_of_each(
                "roomcast_refusals_total",
                "Refusals of all kinds, by reason.",
                "reason",
                Refusal::ALL.iter().map(|reason| reason.label()),
            )?,
            memory: Holding::ALL.iter().map(|kind| memory.with_label_values(&[kind.label()])).collect(),
            memory_limit: make.gauge("roomcast_memory_limit_bytes", "`limits.memory`.")?,
            config_reloads: make.counters_of(
                "roomcast_config_reloads_total",
                "Configurations read, at the start and again, by result.",
                "result",
                &RELOADS,
            )?,
            config_since: make.float(
                "roomcast_config_last_reload_success_timestamp_seconds",
                "When the configuration was last read without a mistake.",
            )?,
            config_needs_restart: make
                .gauge("roomcast_config_needs_restart", "Keys that were changed and need a restart of this node.")?,
            log_lines_dropped: make
                .counter("roomcast_log_lines_dropped_total", "Log lines dropped because stderr did not accept them.")?,
            traces: make.gauge("roomcast_traces", "Who follows live what happens on this node.")?,
            trace_skipped: make.counter(
                "roomcast_trace_skipped_total",
                "Happenings that those who follow did not get: beyond their pace, or they read too slowly.",
            )?,
        })
    }

    /// The name of this node. Called once.
    pub fn is_named(&self, node: &str) {
        self.info.with_label_values(&[node]).set(1);
    }

    /// Counts a refusal; [`crate::refusals::Refusals::note`] also writes it into the log.
    pub fn refusal(&self, reason: Refusal) {
        self.refusals[reason as usize].inc();
    }

    /// Takes over what the budget has counted.
    pub fn note_memory(&self, budget: &MemoryBudget) {
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.memory_limit.set(bytes(budget.limit()));
        Holding::ALL.iter().zip(&self.memory).for_each(|(kind, gauge)| gauge.set(bytes(budget.held(*kind))));
    }

    /// Counts a configuration that was read: `applied`, `unchanged` or `refused`.
    pub fn config_reload(&self, result: &'static str) {
        self.config_reloads.with_label_values(&[result]).inc();
    }

    /// A configuration without mistakes was read just now; so many of its changed keys need a restart.
    pub fn config_in_force(&self, needs_restart: usize) {
        self.config_since.set(unix_ms() as f64 / 1e3);
        self.config_needs_restart.set(i64::try_from(needs_restart).unwrap_or(i64::MAX));
    }

    /// Takes over how many log lines were dropped since the start.
    pub fn note_log_lines_dropped(&self, total: u64) {
        self.log_lines_dropped.inc_by(total.saturating_sub(self.log_lines_dropped.get()));
    }

    /// Takes over how many follow this node, and how many happenings they did not get since the start.
    pub fn note_traces(&self, open: usize, skipped: u64) {
        self.traces.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.trace_skipped.inc_by(skipped.saturating_sub(self.trace_skipped.get()));
    }
}

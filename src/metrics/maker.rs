//! Makes metrics and registers them in one step.
//!
//! Series of label values that are known beforehand exist from the start, at 0: one that appears with its first event has no
//! increase that an alert could see.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Makes metrics of one registry.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

pub(super) type Made<T> = Result<T, prometheus::Error>;

impl Maker<'_> {
    fn keep<T: prometheus::core::Collector + Clone + 'static>(&self, metric: T) -> Made<T> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
    pub(super) fn gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.keep(IntGauge::new(name, help)?)
    }
    pub(super) fn float(&self, name: &str, help: &str) -> Made<Gauge> {
        self.keep(Gauge::new(name, help)?)
    }
    pub(super) fn floats(&self, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
        self.keep(GaugeVec::new(Opts::new(name, help), labels)?)
    }
    pub(super) fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.keep(IntCounter::new(name, help)?)
    }
    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }
    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }
    pub(super) fn histogram(&self, name: &str, help: &str) -> Made<Histogram> {
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets()))?)
    }
    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Made<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets()), labels)?)
    }

    /// Counters by one label, with the series of these values.
    pub(super) fn counters_of(&self, name: &str, help: &str, label: &str, values: &[&str]) -> Made<IntCounterVec> {
        let counters = self.counters(name, help, &[label])?;
        values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
        Ok(counters)
    }
    /// A counter for each of these values of a label, in their order: it is found by its index.
    pub(super) fn counter_of_each(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Made<Vec<IntCounter>> {
        let counters = self.counters(name, help, &[label])?;
        Ok(values.into_iter().map(|value| counters.with_label_values(&[value])).collect())
    }
}

/// Seconds, from 100 µs to 10 s.
fn buckets() -> Vec<f64> {
    vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]
}

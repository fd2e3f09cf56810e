//! The metrics as plain values, for whoever sends them in another format than Prometheus' text.

use prometheus::Registry;
use prometheus::proto::{Metric, MetricFamily, MetricType};

/// A metric with all of its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, as in `/metrics`.
    pub name: String,
    /// What it says.
    pub help: String,
    /// How its values are to be read.
    pub kind: MetricKind,
    /// Its series.
    pub points: Vec<Point>,
}

/// How values are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Names and values of its labels.
    pub labels: Vec<(String, String)>,
    /// Its value now.
    pub value: PointValue,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// How many values there were.
        count: u64,
        /// Their sum.
        sum: f64,
        /// The upper ends of all buckets but the last.
        bounds: Vec<f64>,
        /// How many values are in each bucket; one more than `bounds`.
        counts: Vec<u64>,
    },
}

pub(super) fn families(registry: &Registry) -> Vec<Family> {
    registry.gather().iter().filter_map(family).collect()
}

fn family(family: &MetricFamily) -> Option<Family> {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => MetricKind::Counter,
        MetricType::GAUGE => MetricKind::Gauge,
        MetricType::HISTOGRAM => MetricKind::Histogram,
        _ => return None,
    };
    let points = family.get_metric().iter().map(|metric| point(kind, metric)).collect();
    Some(Family { name: family.name().to_owned(), help: family.help().to_owned(), kind, points })
}

fn point(kind: MetricKind, metric: &Metric) -> Point {
    let labels = metric.get_label().iter().map(|label| (label.name().to_owned(), label.value().to_owned()));
    let value = match kind {
        MetricKind::Counter => PointValue::Number(metric.get_counter().get_value()),
        MetricKind::Gauge => PointValue::Number(metric.get_gauge().get_value()),
        MetricKind::Histogram => {
            let histogram = metric.get_histogram();
            let (count, mut below) = (histogram.get_sample_count(), 0);
            // Prometheus counts in each bucket what is in the ones before it too.
            let (mut bounds, mut counts) = (Vec::new(), Vec::new());
            for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
                bounds.push(bucket.upper_bound());
                counts.push(bucket.cumulative_count().saturating_sub(below));
                below = bucket.cumulative_count();
            }
            counts.push(count.saturating_sub(below));
            PointValue::Histogram { count, sum: histogram.get_sample_sum(), bounds, counts }
        }
    };
    Point { labels: labels.collect(), value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn buckets_are_counted_apart() {
        let metrics = Metrics::new("1.2.3").unwrap();
        [0.0002, 0.0003, 100.0].into_iter().for_each(|seconds| metrics.events.publish_to_write.observe(seconds));
        metrics.sessions.presence_repairs.inc();
        let families = metrics.families();
        let named = |name: &str| families.iter().find(|family| family.name == name).unwrap();
        let PointValue::Histogram { count, bounds, counts, .. } =
            &named("roomcast_publish_to_write_seconds").points[0].value
        else {
            panic!("not a histogram")
        };
        assert_eq!((*count, counts.len(), &counts[..3]), (3, bounds.len() + 1, &[0, 1, 1][..]));
        assert_eq!((counts.iter().sum::<u64>(), counts.last()), (3, Some(&1)));
        let repairs = named("roomcast_presence_repairs_total");
        assert_eq!((repairs.kind, &repairs.points[0].value), (MetricKind::Counter, &PointValue::Number(1.0)));
        let build = named("roomcast_build_info");
        assert_eq!(build.points[0].labels, [("version".to_owned(), "1.2.3".to_owned())]);
    }
}

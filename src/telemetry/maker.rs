//! Makes metrics and registers them: names, labels and buckets as all of them have them.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Why none of this can fail.
pub(super) const KEEP: &str = "metric names and label values are constants, each registered once";

/// Makes metrics and registers them.
pub(super) struct Maker {
    pub(super) registry: Registry,
}

impl Maker {
    fn name(name: &str) -> String {
        format!("tilecatcher_{name}")
    }

    fn add<T: Collector + Clone + 'static>(&self, metric: prometheus::Result<T>) -> T {
        let metric = metric.expect(KEEP);
        self.registry.register(Box::new(metric.clone())).expect(KEEP);
        metric
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(Self::name(name), help))
    }

    pub(super) fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.counters_by(name, help, &[label])
    }

    pub(super) fn counters_by(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(Self::name(name), help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(Self::name(name), help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.gauges_by(name, help, &[label])
    }

    pub(super) fn gauges_by(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(Self::name(name), help), labels))
    }

    pub(super) fn gauge_f(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(Self::name(name), help))
    }

    pub(super) fn gauges_f(&self, name: &str, help: &str, label: &str) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(Self::name(name), help), &[label]))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(Self::name(name), help).buckets(buckets)))
    }

    /// Of times: buckets from 50 us to 26 s, each bound twice the one before.
    pub(super) fn times(&self, name: &str, help: &str) -> Histogram {
        self.histogram(name, help, prometheus::exponential_buckets(50e-6, 2.0, 20).expect(KEEP))
    }
}

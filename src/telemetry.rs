//! What the operator says of itself: logs, metrics, health, and traces where they are built in.
//!
//! Names of objects are in logs and traces, where each line stands for itself, and never in the labels of a metric, where
//! each name would cost memory for ever.

pub mod health;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod requests;
#[cfg(feature = "otel")]
pub mod traces;

/// What the parts of the operator tell about themselves. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// For Prometheus.
    pub metrics: metrics::Metrics,
    /// For the kubelet's probes.
    pub health: health::Health,
}

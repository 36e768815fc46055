//! `grpc.health.v1.Health`, answered from the gateway's own readiness: there is no second state to keep in step.
//!
//! Reads readiness, hands back statuses: of the server (service name empty or `inference.GRPCInferenceService`)
//! and of each model (its name). Knows nothing of why something is not ready.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::describe;
use crate::state::{Phase, Shared};

/// How often a watched status is looked at: soon enough for a load balancer, nothing for a CPU.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Health {
    pub(super) shared: Arc<Shared>,
}

fn look(shared: &Shared, service: &str) -> ServingStatus {
    let serving = |serving| if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    match service {
        "" | "inference.GRPCInferenceService" => serving(shared.is_ready()),
        model if shared.registry.models().iter().any(|known| known.name() == model) => {
            serving(describe::ready(shared, model, None).is_ok())
        }
        _ => ServingStatus::ServiceUnknown,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match look(&self.shared, &service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "unknown service '{service}'; give a model's name, or nothing for the whole server"
            ))),
            status => Ok(Response::new(response(status))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch {
            shared: self.shared.clone(),
            service: request.into_inner().service,
            last: None,
            ticks,
            phase: self.shared.phase.subscribe(),
        };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

struct Watch {
    shared: Arc<Shared>,
    service: String,
    last: Option<ServingStatus>,
    ticks: tokio::time::Interval,
    phase: tokio::sync::watch::Receiver<Phase>,
}

impl Watch {
    /// The next status that differs from the last; the end once the server drains and has said so.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Watch)> {
        loop {
            // Before looking: what comes after is then seen by the look.
            let draining = self.shared.is_draining();
            let status = look(&self.shared, &self.service);
            if self.last != Some(status) {
                self.last = Some(status);
                return Some((Ok(response(status)), self));
            }
            if draining {
                return None;
            }
            tokio::select! {
                _tick = self.ticks.tick() => {}
                _ = self.phase.wait_for(|phase| *phase >= Phase::Draining) => {}
            }
        }
    }
}

//! `grpc.health.v1.Health`, answered from the gateway's own readiness, without a state of its own.
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
use crate::lifecycle::{Lifecycle, reached};
use crate::server_state::ServerState;

/// How often a watched status is checked: soon enough for a load balancer, negligible for a CPU.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Health {
    pub(super) server: Arc<ServerState>,
}

fn status_of(server: &ServerState, service: &str) -> ServingStatus {
    let serving = |serving| if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    match service {
        "" | "inference.GRPCInferenceService" => serving(server.is_ready()),
        model if server.registry.models().iter().any(|known| known.name() == model) => {
            serving(describe::ready(server, model, None).is_ok())
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
        match status_of(&self.server, &service) {
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
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch {
            server: self.server.clone(),
            service: request.into_inner().service,
            last: None,
            ticks,
            lifecycle: self.server.lifecycle.subscribe(),
        };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

struct Watch {
    server: Arc<ServerState>,
    service: String,
    last: Option<ServingStatus>,
    ticks: tokio::time::Interval,
    lifecycle: tokio::sync::watch::Receiver<Lifecycle>,
}

impl Watch {
    /// The next status that differs from the last; the end once the server drains and that was sent.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Watch)> {
        loop {
            // Before the check, which then sees what comes after.
            let draining = self.server.is_draining();
            let status = status_of(&self.server, &self.service);
            if self.last != Some(status) {
                self.last = Some(status);
                return Some((Ok(response(status)), self));
            }
            if draining {
                return None;
            }
            tokio::select! {
                _tick = self.ticks.tick() => {}
                () = reached(&mut self.lifecycle, Lifecycle::Draining) => {}
            }
        }
    }
}

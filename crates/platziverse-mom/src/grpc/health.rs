//! Services about the services: whether they serve, and what they look like.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use platziverse_rpc::FILE_DESCRIPTOR_SET;
use platziverse_service::{Drain, Readiness, Service};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{self, HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::v1alpha::{
    ServerReflection as AlphaReflection, ServerReflectionServer as AlphaReflectionServer,
};
use tonic_reflection::server::{Builder, Error};

/// How often it is looked whether the services serve, for those who watch.
const EVERY: Duration = Duration::from_secs(1);

/// `grpc.health.v1.Health`: the services of a port serve when the process is ready.
#[derive(Clone, Debug)]
pub(super) struct Health {
    services: &'static [&'static str],
    readiness: Readiness,
    drain: Drain,
}

impl Health {
    pub(super) fn new(services: &'static [&'static str], service: &Service) -> Self {
        Self { services, readiness: service.readiness.clone(), drain: service.drain.clone() }
    }

    fn status(&self, service: &str) -> ServingStatus {
        if !service.is_empty() && !self.services.contains(&service) {
            return ServingStatus::ServiceUnknown;
        }
        match self.readiness.is_ready() && !self.drain.is_requested() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        }
    }
}

pub(super) fn server(health: Health) -> HealthServer<Health> {
    HealthServer::new(health)
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match self.status(service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found(format!("there is no service {service:?} here")))
            }
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let watching = (self.clone(), service, None);
        let changes = stream::unfold(watching, async |(health, service, known)| {
            loop {
                let status = health.status(&service);
                if known != Some(status) {
                    return Some((Ok(response(status)), (health, service, Some(status))));
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

type Described<V1, Alpha> = (ServerReflectionServer<V1>, AlphaReflectionServer<Alpha>);

/// `grpc.reflection` of these services, in the version of today and in the one before, which many
/// tools ask for.
pub(super) fn reflection(
    services: &[&str],
) -> Result<Described<impl ServerReflection, impl AlphaReflection>, Error> {
    Ok((builder(services).build_v1()?, builder(services).build_v1alpha()?))
}

fn builder(services: &[&str]) -> Builder<'static> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .with_service_name(health_server::SERVICE_NAME);
    services.iter().fold(builder, |builder, service| builder.with_service_name(*service))
}

#[cfg(test)]
mod tests {
    use platziverse_rpc::mom::mom_server::SERVICE_NAME;

    use super::*;

    #[test]
    fn services_are_described() {
        for services in [&[SERVICE_NAME][..], &crate::older::SERVICES] {
            assert!(reflection(services).is_ok(), "{services:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_serves_when_the_process_is_ready() {
        let readiness = Readiness::default();
        let latch = readiness.latch("rabbitmq");
        let drain = Drain::default();
        let health = Health { services: &["a.B"], readiness, drain: drain.clone() };
        assert_eq!(health.status("a.C"), ServingStatus::ServiceUnknown);
        let request = Request::new(HealthCheckRequest { service: "a.B".to_owned() });
        let watched = health_server::Health::watch(&health, request).await.unwrap();
        let mut watched = watched.into_inner();
        let mut next = async || watched.next().await.unwrap().unwrap().status();
        assert_eq!(next().await, ServingStatus::NotServing);
        latch.ready();
        assert_eq!(next().await, ServingStatus::Serving);
        assert_eq!(health.status(""), ServingStatus::Serving);
        drain.request();
        assert_eq!(next().await, ServingStatus::NotServing);
    }
}

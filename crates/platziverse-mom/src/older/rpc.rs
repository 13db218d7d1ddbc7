//! The older wire over gRPC. A call that failed says so by its code; its status is OK.

use platziverse_rpc::chasqui::queue_service_server::{self, QueueService, QueueServiceServer};
use platziverse_rpc::chasqui::topic_service_server::{self, TopicService, TopicServiceServer};
use platziverse_rpc::chasqui::user_service_server::{self, UserService, UserServiceServer};
use platziverse_rpc::chasqui::{
    CodeResponse, ListResponse, MessageResponse, Null, PublishQueueRequest, PublishTopicRequest,
    QueueRequest, TopicRequest, UserResponse,
};
use platziverse_service::listener::Peer;
use tonic::service::{Routes, RoutesBuilder};
use tonic::{Request, Response, Status};

use crate::core::{Code, Core, ObjectKind};
use crate::grpc::message_bytes_max;
use crate::older::number::{DONE, number};
use crate::older::verbs::Verbs;

/// The names of the services.
pub(crate) const SERVICES: [&str; 3] = [
    user_service_server::SERVICE_NAME,
    topic_service_server::SERVICE_NAME,
    queue_service_server::SERVICE_NAME,
];

/// What is larger is refused by a status, as gRPC does unless it is told otherwise; what is smaller,
/// by a code.
const REQUEST_BYTES: usize = 4 * 1_048_576;

type Answer<T> = Result<Response<T>, Status>;

/// The services.
pub(crate) fn services(core: &Core) -> RoutesBuilder {
    let verbs = Verbs::new(core);
    let most = message_bytes_max(core.settings()).max(REQUEST_BYTES);
    let mut routes = Routes::builder();
    routes
        .add_service(UserServiceServer::new(verbs.clone()))
        .add_service(TopicServiceServer::new(verbs.clone()).max_decoding_message_size(most))
        .add_service(QueueServiceServer::new(verbs).max_decoding_message_size(most));
    routes
}

#[tonic::async_trait]
impl UserService for Verbs {
    async fn create(&self, request: Request<Null>) -> Answer<UserResponse> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let (code, key) = numbered(self.create_user(peer).await);
        Ok(Response::new(UserResponse { key, code }))
    }
}

/// Topics and queues have the same calls under other names.
macro_rules! shelf {
    ($service:ident of $kind:expr, $request:ident with $name:ident, $publish_request:ident:
     $list:ident, $subscribe:ident, $publish:ident, $consume:ident) => {
        #[tonic::async_trait]
        impl $service for Verbs {
            async fn create(&self, request: Request<$request>) -> Answer<CodeResponse> {
                let $request { key, $name: name } = request.into_inner();
                coded(Verbs::create(self, &key, $kind, name.as_deref()).await)
            }

            async fn delete(&self, request: Request<$request>) -> Answer<CodeResponse> {
                let $request { key, $name: name } = request.into_inner();
                coded(Verbs::delete(self, &key, $kind, name.as_deref()).await)
            }

            async fn $list(&self, request: Request<$request>) -> Answer<ListResponse> {
                let (code, names) = numbered(self.list(&request.get_ref().key, $kind).await);
                Ok(Response::new(ListResponse { code, names }))
            }

            async fn $subscribe(&self, request: Request<$request>) -> Answer<CodeResponse> {
                let $request { key, $name: name } = request.into_inner();
                coded(self.subscribe(&key, $kind, name.as_deref()).await)
            }

            async fn $publish(&self, request: Request<$publish_request>) -> Answer<CodeResponse> {
                // The message's bytes take their room until RabbitMQ has them.
                let (_, _extensions, request) = request.into_parts();
                let $publish_request { key, $name: name, message } = request;
                coded(self.publish(&key, $kind, name.as_deref(), Some(message)).await)
            }

            async fn $consume(&self, request: Request<$request>) -> Answer<MessageResponse> {
                let $request { key, $name: name } = request.into_inner();
                let (code, message) = numbered(self.consume(&key, $kind, name.as_deref()).await);
                Ok(Response::new(MessageResponse { code, message }))
            }
        }
    };
}

shelf!(TopicService of ObjectKind::Topic, TopicRequest with topic_name, PublishTopicRequest:
    list_topics, subscribe_topic, publish_topic, consume_topic);
shelf!(QueueService of ObjectKind::Queue, QueueRequest with queue_name, PublishQueueRequest:
    list_queues, subscribe_queue, publish_queue, consume_queue);

fn coded(result: Result<(), Code>) -> Answer<CodeResponse> {
    let (code, ()) = numbered(result);
    Ok(Response::new(CodeResponse { code }))
}

/// The number of what came out, and the answer, which is empty after a failure.
fn numbered<T: Default>(result: Result<T, Code>) -> (i32, T) {
    match result {
        Ok(answer) => (DONE, answer),
        Err(code) => (number(code), T::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_no_package() {
        assert_eq!(SERVICES, ["UserService", "TopicService", "QueueService"]);
    }

    #[test]
    fn failures_have_an_empty_answer() {
        assert_eq!(numbered(Ok("x".to_owned())), (200, "x".to_owned()));
        assert_eq!(numbered::<String>(Err(Code::Empty)), (400, String::new()));
    }
}

//! A server that answers what a test wants.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures_util::future::{Ready, ready};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use platziverse_rpc::mom::{DeleteRequest, DeleteResponse, PublishRequest, PublishResponse};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// What is answered to the first `DeleteRequest`, the second, and so on.
pub(crate) type Deleting = fn(usize) -> Result<DeleteResponse, Status>;
/// What is answered when so many have been asked to be published, in all streams.
pub(crate) type Publishing = fn(usize) -> Vec<PublishResponse>;

#[derive(Clone)]
pub(crate) struct Fake {
    deleting: Deleting,
    publishing: Publishing,
    deletes: Arc<Mutex<usize>>,
    published: Arc<Mutex<Vec<u64>>>,
}

impl Fake {
    pub(crate) fn new(deleting: Deleting, publishing: Publishing) -> Self {
        Self { deleting, publishing, deletes: Arc::default(), published: Arc::default() }
    }

    /// The sequence numbers of all that were asked to be published.
    pub(crate) fn published(&self) -> Vec<u64> {
        self.published.lock().unwrap().clone()
    }

    /// Serves while a test runs, which is given its URL.
    pub(crate) async fn beside<T>(&self, test: impl AsyncFnOnce(String) -> T) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = TcpIncoming::from(listener);
        tokio::select! {
            ended = Server::builder().add_service(self.clone()).serve_with_incoming(incoming) => {
                panic!("the server has ended: {ended:?}")
            }
            done = test(url) => done,
        }
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "mom.v1.Mom";
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fake = self.clone();
        async move {
            Ok(match request.uri().path() {
                "/mom.v1.Mom/Delete" => {
                    Grpc::new(ProstCodec::default()).unary(Deletes(fake), request).await
                }
                "/mom.v1.Mom/PublishStream" => {
                    Grpc::new(ProstCodec::default()).streaming(Publishes(fake), request).await
                }
                other => Status::unimplemented(other).into_http(),
            })
        }
        .boxed()
    }
}

struct Deletes(Fake);

impl UnaryService<DeleteRequest> for Deletes {
    type Response = DeleteResponse;
    type Future = Ready<Result<Response<DeleteResponse>, Status>>;

    fn call(&mut self, _request: Request<DeleteRequest>) -> Self::Future {
        let mut deletes = self.0.deletes.lock().unwrap();
        *deletes += 1;
        ready((self.0.deleting)(*deletes).map(Response::new))
    }
}

struct Publishes(Fake);

impl StreamingService<PublishRequest> for Publishes {
    type Response = PublishResponse;
    type ResponseStream = BoxStream<'static, Result<PublishResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<PublishRequest>>) -> Self::Future {
        let fake = self.0.clone();
        let answers = request.into_inner().flat_map(move |request| {
            let mut published = fake.published.lock().unwrap();
            published.push(request.unwrap().sequence);
            stream::iter((fake.publishing)(published.len()).into_iter().map(Ok))
        });
        ready(Ok(Response::new(answers.boxed())))
    }
}

//! Many messages, one after the other, without waiting for each.

use std::collections::VecDeque;

use futures_util::stream::{BoxStream, Fuse};
use futures_util::{Stream, StreamExt as _, stream};
use platziverse_rpc::mom;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Streaming;

use crate::attempts::Attempts;
use crate::destination::Destination;
use crate::error::{Code, Error};
use crate::message::{NewMessage, Published};

/// How many messages may be on their way.
const WINDOW: usize = 1_000;
/// How many bytes of bodies may be on their way, besides the last message's.
const WINDOW_BYTES: usize = 16 << 20;

impl Destination {
    /// Publishes messages as they come, up to 1,000 of them at a time, and yields what became of
    /// each, in their order. One that is refused does not end it.
    ///
    /// When its connection is lost, those without an answer are published again over the next, and so
    /// may arrive twice unless they have idempotency keys. One that the server cannot take now is
    /// published again, too, and no other one with it. Dropped, those on their way may be published or
    /// not.
    pub fn publish_all<S>(
        &self,
        messages: S,
    ) -> impl Stream<Item = Result<Published, Error>> + Send + use<S>
    where
        S: Stream<Item: Into<NewMessage>> + Send + 'static,
    {
        let publishing = Publishing {
            destination: self.clone(),
            messages: messages.map(Into::into).boxed().fuse(),
            window: VecDeque::new(),
            bytes: 0,
            first: 0,
            unsent: 0,
            unanswered: 0,
            trouble: None,
            link: None,
            attempts: self.client().attempts(),
            progress: Instant::now(),
        };
        stream::unfold(publishing, async |mut publishing| {
            publishing.next().await.map(|result| (result, publishing))
        })
    }
}

struct Publishing {
    destination: Destination,
    messages: Fuse<BoxStream<'static, NewMessage>>,
    /// Those that have not been told of; the front one has the sequence number `first`.
    window: VecDeque<Slot>,
    bytes: usize,
    first: u64,
    /// The place in the window of the first that has not been sent over the link.
    unsent: usize,
    /// How many have been sent over the link and not answered.
    unanswered: usize,
    /// Why one of them is to be published again, once the others are answered.
    trouble: Option<Error>,
    link: Option<Link>,
    attempts: Attempts,
    /// When something was last answered, or was sent while all was answered.
    progress: Instant,
}

struct Slot {
    request: mom::PublishRequest,
    result: Option<Result<Published, Error>>,
}

/// A stream with a server.
struct Link {
    requests: mpsc::Sender<mom::PublishRequest>,
    answers: Streaming<mom::PublishResponse>,
    server: usize,
}

/// What has happened.
enum Event {
    Message(Option<NewMessage>),
    Answer(Result<Option<mom::PublishResponse>, tonic::Status>),
    Silence,
}

impl Publishing {
    /// What became of the next message; none after the last.
    async fn next(&mut self) -> Option<Result<Published, Error>> {
        loop {
            if let Some(result) = self.front() {
                return Some(result);
            }
            if self.window.is_empty() {
                match self.messages.next().await {
                    Some(message) => self.push(message),
                    None => return None,
                }
            }
            if let Err(error) = self.step().await {
                self.failed(error).await;
            }
        }
    }

    /// What became of the message at the front, if that is known.
    fn front(&mut self) -> Option<Result<Published, Error>> {
        let result = self.window.front_mut()?.result.take()?;
        if let Some(slot) = self.window.pop_front() {
            self.bytes -= slot.request.body.len();
        }
        self.first += 1;
        self.unsent = self.unsent.saturating_sub(1);
        Some(result)
    }

    fn push(&mut self, message: NewMessage) {
        let sequence = self.first + self.window.len() as u64;
        let request = self.destination.publish_request(message, sequence);
        self.bytes += request.body.len();
        self.window.push_back(Slot { request, result: None });
    }

    /// Sends what there is to send, and waits for one thing to happen.
    async fn step(&mut self) -> Result<(), Error> {
        if self.link.is_none() {
            self.link = Some(Link::open(&self.destination).await?);
            (self.unsent, self.unanswered) = (0, 0);
        }
        self.send()?;
        let Some(link) = &mut self.link else { return Ok(()) };
        let has_room =
            self.trouble.is_none() && self.window.len() < WINDOW && self.bytes < WINDOW_BYTES;
        let patience = self.progress + self.destination.client().request_timeout();
        let event = tokio::select! {
            biased;
            answer = link.answers.message() => Event::Answer(answer),
            message = self.messages.next(), if has_room && !self.messages.is_done() => {
                Event::Message(message)
            }
            () = sleep_until(patience) => Event::Silence,
        };
        match event {
            Event::Message(message) => {
                message.into_iter().for_each(|message| self.push(message));
                Ok(())
            }
            Event::Answer(Ok(Some(answer))) => {
                self.answered(answer);
                Ok(())
            }
            Event::Answer(Ok(None)) => {
                Err(Error::Unreached("the server has ended the stream".to_owned()))
            }
            Event::Answer(Err(status)) => Err(Error::of_status(&status)),
            Event::Silence => Err(self.destination.client().too_slow()),
        }
    }

    /// Sends what has not been sent, unless the link is to be given up.
    fn send(&mut self) -> Result<(), Error> {
        if let Some(error) = self.trouble.take_if(|_| self.unanswered == 0) {
            return Err(error);
        }
        let Some(link) = self.link.as_ref().filter(|_| self.trouble.is_none()) else {
            return Ok(());
        };
        while let Some(slot) = self.window.get(self.unsent) {
            if slot.result.is_none() {
                // There is room for the whole window.
                let sent = link.requests.try_send(slot.request.clone());
                sent.map_err(|_| Error::Unreached("the stream has ended".to_owned()))?;
                if self.unanswered == 0 {
                    self.progress = Instant::now();
                }
                self.unanswered += 1;
            }
            self.unsent += 1;
        }
        Ok(())
    }

    fn answered(&mut self, answer: mom::PublishResponse) {
        self.progress = Instant::now();
        let place = answer.sequence.checked_sub(self.first).map(|place| place as usize);
        let Some(slot) = place.and_then(|place| self.window.get_mut(place)) else {
            // Of one that has been told of.
            return;
        };
        let result = match &answer.problem {
            None => Ok(Published::of(&answer)),
            Some(problem) => Err(Error::Refused {
                code: Code::from(problem.code.clone()),
                detail: problem.detail.clone(),
                retry_after: None,
            }),
        };
        self.unanswered = self.unanswered.saturating_sub(1);
        match result {
            Err(error) if error.retry().is_some() => self.trouble = Some(error),
            result => {
                slot.result = Some(result);
                self.attempts.succeeded();
            }
        }
    }

    /// Waits before the next attempt; if there is to be none, all that is on its way has failed.
    async fn failed(&mut self, error: Error) {
        let server = self.link.take().map(|link| link.server);
        self.trouble = None;
        if error.code() == Some(&Code::TooLarge) {
            return self.too_large(error);
        }
        match self.attempts.failed(error) {
            Ok(wait) => {
                if let Some(server) = server {
                    self.destination.client().leave(server);
                }
                sleep(wait).await;
            }
            Err(error) => {
                for slot in &mut self.window {
                    slot.result.get_or_insert_with(|| Err(error.clone()));
                }
            }
        }
    }

    /// A message so large that the server has not read it to the end has ended the stream: the
    /// largest of those without an answer. The others are published again.
    fn too_large(&mut self, error: Error) {
        let size = |slot: &&mut Slot| {
            let headers = slot.request.headers.iter();
            slot.request.body.len()
                + headers.map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let unanswered = self.window.iter_mut().filter(|slot| slot.result.is_none());
        if let Some(largest) = unanswered.max_by_key(size) {
            largest.result = Some(Err(error));
        }
    }
}

impl Link {
    async fn open(destination: &Destination) -> Result<Self, Error> {
        let client = destination.client();
        let (sender, requests) = mpsc::channel(WINDOW);
        let requests = stream::unfold(requests, async |mut requests| {
            requests.recv().await.map(|request| (request, requests))
        });
        let (server, mut stub) = client.server();
        let opening = stub.publish_stream(client.request(requests));
        let error = match timeout(client.request_timeout(), opening).await {
            Ok(Ok(answer)) => {
                return Ok(Self { requests: sender, answers: answer.into_inner(), server });
            }
            Ok(Err(status)) => Error::of_status(&status),
            Err(_) => client.too_slow(),
        };
        if error.retry().is_some() {
            client.leave(server);
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use platziverse_rpc::mom::{Problem, PublishResponse};
    use tonic::Status;

    use super::*;
    use crate::Client;
    use crate::fake::Fake;

    fn done(sequence: u64) -> PublishResponse {
        PublishResponse { sequence, ..PublishResponse::default() }
    }

    fn unavailable(sequence: u64) -> PublishResponse {
        let problem = Problem { code: "unavailable".to_owned(), detail: "away".to_owned() };
        PublishResponse { problem: Some(problem), ..done(sequence) }
    }

    fn messages(count: usize) -> impl Stream<Item = String> + Send + 'static {
        stream::iter((0..count).map(|n| n.to_string()))
    }

    #[tokio::test]
    async fn only_what_cannot_be_taken_now_is_published_again() {
        let deleting = |_| Err(Status::unimplemented("delete"));
        let fake = Fake::new(deleting, |asked| match asked {
            1 => vec![unavailable(0)],
            // Those behind it, which it has taken meanwhile, are answered later.
            10 => (1..10).map(done).collect(),
            11.. => vec![done(0)],
            _ => Vec::new(),
        });
        let results: Vec<_> = fake
            .beside(async |url| {
                let queue = Client::builder(url).build().unwrap().queue("q");
                queue.publish_all(messages(10)).collect().await
            })
            .await;
        assert_eq!(results.len(), 10);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(fake.published(), (0..10).chain([0]).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn silence_is_noticed_although_more_is_sent() {
        let fake = Fake::new(|_| Err(Status::unimplemented("delete")), |_| Vec::new());
        let patience = Duration::from_millis(300);
        let endless = stream::unfold(0, async |n| {
            sleep(Duration::from_millis(50)).await;
            Some((n.to_string(), n + 1))
        });
        let first = fake.beside(async |url| {
            let builder = Client::builder(url).request_timeout(patience).retry_for(Duration::ZERO);
            let results = builder.build().unwrap().queue("q").publish_all(endless);
            std::pin::pin!(results).next().await
        });
        let first = timeout(Duration::from_secs(20), first).await.expect("it is told of");
        assert!(matches!(first, Some(Err(Error::Unreached(_)))), "{first:?}");
    }
}

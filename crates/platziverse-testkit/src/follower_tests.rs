//! Followers and clients, at an aggregator that is not one.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;

/// One connection of a follower.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    path: String,
    waiting: Vec<Value>,
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Peer {
    #[expect(clippy::result_large_err, reason = "so tungstenite wants it")]
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut path = String::new();
        let callback = |request: &Request, mut response: Response| {
            path = request.uri().to_string();
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let socket = accept_hdr_async(stream, callback).await.unwrap();
        Self { socket, path, waiting: Vec::new() }
    }

    async fn say(&mut self, packet: Value) {
        self.socket.send(Message::text(packet.to_string())).await.unwrap();
    }

    async fn welcome(&mut self, resumed: bool, token: &str, missed: Value) {
        self.say(json!({
            "packet_action": "welcome", "resumed": resumed, "resume_token": token, "missed": missed,
        }))
        .await;
    }

    async fn message(&mut self, offset: u64) {
        self.say(json!({
            "packet_action": "message", "source": "OUT_CHAT", "offset": offset, "message": offset,
        }))
        .await;
    }

    /// The next packet of that action; others wait for their turn.
    async fn hear(&mut self, action: &str) -> Value {
        let is_it = |packet: &Value| packet["packet_action"] == action;
        if let Some(at) = self.waiting.iter().position(is_it) {
            return self.waiting.remove(at);
        }
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let text = frame.expect("a packet").unwrap().unwrap().into_text().unwrap();
            let packet: Value = serde_json::from_str(&text).unwrap();
            if is_it(&packet) {
                return packet;
            }
            self.waiting.push(packet);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_comes_back_with_what_it_has() {
    let ((one, first), (other, second)) = (listener().await, listener().await);
    let script = async {
        let mut peer = Peer::accept(&one).await;
        assert_eq!(peer.path, "/ws?client=ana");
        peer.welcome(false, "t1", json!({})).await;
        let consume = peer.hear("consume").await;
        assert_eq!(consume["channel"], json!({"chat": true}));
        peer.say(json!({"packet_action": "receipt", "id": consume["id"], "resume_token": "t2"}))
            .await;
        for offset in [5, 6, 7] {
            peer.message(offset).await;
        }
        let mut ack = peer.hear("ack").await;
        while ack["offsets"]["OUT_CHAT"] != 7 {
            ack = peer.hear("ack").await;
        }
        peer.say(json!({"packet_action": "receipt", "id": ack["id"], "resume_token": "t3"})).await;
        peer.hear("request").await;
        assert_eq!(peer.hear("publish").await["id"], "p");
        assert_eq!(peer.waiting, Vec::<Value>::new(), "each packet is sent once");
        let reason = "{\"reconnect_after_ms\": 1}".into();
        peer.socket
            .send(Message::Close(Some(CloseFrame { code: ENDS.into(), reason })))
            .await
            .unwrap();

        let mut peer = Peer::accept(&other).await;
        assert_eq!(peer.path, "/ws?client=ana&resume=t3&offsets=OUT_CHAT:7");
        peer.welcome(true, "t4", json!({"OUT_CHAT": {"from": 8, "to": 10}})).await;
        peer.message(6).await;
        peer.message(10).await;
        let again = peer.hear("request").await;
        assert_eq!((&again["id"], &again["message"]), (&json!("q"), &json!(1)));
        assert!(again["deadline_ms"].as_u64().is_some_and(|left| left < 60_000), "{again}");
        drop(peer);

        let mut peer = Peer::accept(&one).await;
        assert_eq!(peer.path, "/ws?client=ana&resume=t4&offsets=OUT_CHAT:10");
        peer.welcome(false, "t5", json!({})).await;
        let consume = peer.hear("consume").await;
        peer.hear("request").await;
        peer.say(json!({"packet_action": "receipt", "id": "p"})).await;
        for _ in 0..2 {
            peer.say(json!({"packet_action": "reply", "id": "q", "message": 2})).await;
        }
        peer.say(json!({"packet_action": "receipt", "id": consume["id"]})).await;
        peer
    };
    let following = async {
        let options = FollowerOptions::new("ana", &["chat"]);
        let follower = Follower::start(&[first, second], options).await;
        follower.hears("OUT_CHAT", 3).await;
        follower.request("q", "chat", json!(1), PATIENCE);
        follower.send("p", json!({"packet_action": "publish", "message": 3}));
        follower
    };
    let (mut peer, follower) = tokio::join!(script, following);
    follower.connects(3).await;
    assert_eq!(follower.outcome("q").await["message"], 2);
    assert_eq!(follower.outcomes("q").len(), 1);
    let offsets: Vec<_> = follower.messages().iter().map(|followed| followed.offset).collect();
    assert_eq!(offsets, [5, 6, 7, 10]);
    assert_eq!((follower.repeats(), follower.welcomes()), (2, (3, 1)));
    let gaps: Vec<_> = follower.gaps().into_iter().map(|gap| gap.source).collect();
    assert_eq!(gaps, ["OUT_CHAT", ""]);
    let codes: Vec<_> = follower.closes().iter().map(|closed| closed.code).collect();
    assert_eq!(codes, [ENDS, 1006]);

    follower.lose_connection();
    let gone = peer.socket.next().await;
    assert!(!matches!(gone, Some(Ok(Message::Close(_)))), "it says nothing: {gone:?}");
}

#[tokio::test]
async fn a_client_is_told_why_it_is_refused() {
    let (listener, address) = listener().await;
    let refusing = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 2_000];
        let length = stream.read(&mut request).await.unwrap();
        let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno";
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).to_lowercase()
    };
    let options = WsOptions::new(address)
        .token("t")
        .browser_token("b")
        .origin("https://example.com")
        .offsets([("OUT_CHAT", 3), ("OUT_VOICE", 4)]);
    let (request, refused) = tokio::join!(refusing, WsClient::try_connect(options));
    let refused = refused.unwrap_err();
    assert_eq!((refused.status, refused.text.as_str()), (401, "no"));
    for line in [
        "get /ws?offsets=out_chat:3,out_voice:4 http/1.1",
        "authorization: bearer t",
        "origin: https://example.com",
        "sec-websocket-protocol: platziverse.v1, bearer.b",
    ] {
        assert!(request.contains(line), "{line} is not in\n{request}");
    }
}

//! The TCP proxy does what its toxics say, to real sockets.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use platziverse_testkit::{PATIENCE, Proxy, Toxic, check, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

/// More than the kernel holds for the sockets on both sides of the proxy.
const HELD_MAX: usize = 64 << 20;

/// How a connection is ended.
type End = fn(&Proxy);

/// A client and the server's side of its connection, with the proxy between.
struct Pair {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn pair() -> Pair {
    let (listener, address) = listener().await;
    let proxy = Proxy::start(address).await;
    let client = TcpStream::connect(proxy.address()).await.expect("the proxy accepts");
    let (server, _) = soon("accepted", listener.accept()).await.expect("accepted");
    Pair { proxy, listener, client, server }
}

async fn assert_passes(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).await.expect("sent");
    assert_arrives(to, bytes).await;
}

async fn assert_arrives(to: &mut TcpStream, bytes: &[u8]) {
    let mut seen = vec![0; bytes.len()];
    soon("the bytes arrive", to.read_exact(&mut seen)).await.expect("received");
    assert_eq!(seen, bytes);
}

async fn assert_silent(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(SILENCE, stream.read(&mut byte)).await;
    assert!(read.is_err(), "something came: {read:?}");
}

async fn assert_ended(stream: &mut TcpStream, wanted: Result<usize, ErrorKind>) {
    let read = soon("the end", stream.read(&mut [0; 16])).await;
    assert_eq!(read.map_err(|error| error.kind()), wanted);
}

async fn assert_connections(proxy: &Proxy, wanted: usize) {
    eventually(&format!("{wanted} connections"), PATIENCE, || async {
        let seen = proxy.connections();
        check(seen == wanted, || format!("there are {seen}"))
    })
    .await;
}

#[tokio::test]
async fn without_a_toxic_bytes_and_ends_pass() {
    let Pair { proxy, mut client, mut server, .. } = pair().await;
    assert_passes(&mut client, &mut server, b"there").await;
    let large: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let (from, to) = (server.write_all(&large), assert_arrives(&mut client, &large));
    let (sent, ()) = tokio::join!(from, to);
    sent.expect("sent");
    assert_connections(&proxy, 1).await;

    client.shutdown().await.expect("a half close");
    assert_ended(&mut server, Ok(0)).await;
    assert_passes(&mut server, &mut client, b"the other half still is open").await;
    drop(server);
    assert_ended(&mut client, Ok(0)).await;
    assert_connections(&proxy, 0).await;
}

#[tokio::test]
async fn latency_delays_each_byte_and_not_each_chunk_in_turn() {
    let Pair { proxy, mut client, mut server, .. } = pair().await;
    proxy.set(Toxic::Latency(Duration::from_millis(200)));
    let began = Instant::now();
    assert_passes(&mut client, &mut server, b"there").await;
    assert_passes(&mut server, &mut client, b"and back").await;
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());

    let began = Instant::now();
    for _ in 0..20 {
        client.write_all(b"chunk").await.expect("sent");
        sleep(Duration::from_millis(5)).await;
    }
    assert_arrives(&mut server, &b"chunk".repeat(20)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "not 20 times 200 ms: {:?}", began.elapsed());
}

#[tokio::test]
async fn bandwidth_is_limited_and_what_is_held_is_bounded() {
    let Pair { proxy, mut client, mut server, .. } = pair().await;
    proxy.set(Toxic::Bandwidth(100_000));
    let began = Instant::now();
    assert_passes(&mut client, &mut server, &[b'x'; 60_000]).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(3), "{took:?}");

    // The sender is held up once the buffers of the proxy and of all sockets are full.
    proxy.set(Toxic::Bandwidth(1));
    let (chunk, mut taken) = (vec![b'x'; 1 << 20], 0);
    while let Ok(written) = timeout(SILENCE, client.write(&chunk)).await {
        taken += written.expect("sent");
        assert!(taken < HELD_MAX, "{taken} bytes are taken and none is passed on");
    }
    proxy.set(Toxic::None);
    assert_arrives(&mut server, &vec![b'x'; taken]).await;
}

#[tokio::test]
async fn a_cut_ends_both_sides_in_good_order() {
    let Pair { proxy, listener, mut client, mut server } = pair().await;
    assert_passes(&mut client, &mut server, b"x").await;
    proxy.cut();
    assert_ended(&mut client, Ok(0)).await;
    assert_ended(&mut server, Ok(0)).await;
    assert_connections(&proxy, 0).await;
    // Later connections are not meant.
    let mut client = TcpStream::connect(proxy.address()).await.expect("accepted");
    let (mut server, _) = soon("accepted", listener.accept()).await.expect("accepted");
    assert_passes(&mut client, &mut server, b"x").await;
}

#[tokio::test]
async fn a_reset_is_one_for_both_sides() {
    let Pair { proxy, mut client, mut server, .. } = pair().await;
    assert_passes(&mut client, &mut server, b"x").await;
    proxy.reset();
    for stream in [&mut client, &mut server] {
        assert_ended(stream, Err(ErrorKind::ConnectionReset)).await;
    }
    assert_connections(&proxy, 0).await;
}

#[tokio::test]
async fn half_open_moves_nothing_and_keeps_everything() {
    let Pair { proxy, listener, mut client, mut server } = pair().await;
    proxy.set(Toxic::HalfOpen);
    client.write_all(b"later").await.expect("taken");
    server.write_all(b"later, too").await.expect("taken");
    assert_silent(&mut server).await;
    assert_silent(&mut client).await;
    let mut newer = TcpStream::connect(proxy.address()).await.expect("accepted");
    newer.write_all(b"newer").await.expect("taken");
    assert!(timeout(SILENCE, listener.accept()).await.is_err(), "it is not passed on");
    assert_connections(&proxy, 2).await;

    proxy.set(Toxic::None);
    assert_arrives(&mut server, b"later").await;
    assert_arrives(&mut client, b"later, too").await;
    let (mut server, _) = soon("accepted", listener.accept()).await.expect("accepted");
    assert_arrives(&mut server, b"newer").await;
}

#[tokio::test]
async fn a_connection_that_is_held_can_be_cut_and_reset() {
    let ends: [(End, _); 2] =
        [(Proxy::cut, Ok(0)), (Proxy::reset, Err(ErrorKind::ConnectionReset))];
    for (end, wanted) in ends {
        let Pair { proxy, mut client, mut server, .. } = pair().await;
        proxy.set(Toxic::HalfOpen);
        let mut newer = TcpStream::connect(proxy.address()).await.expect("accepted");
        assert_connections(&proxy, 2).await;
        end(&proxy);
        for stream in [&mut client, &mut server, &mut newer] {
            assert_ended(stream, wanted).await;
        }
    }
}

/// Which of two things a connection sees first is chance.
const TIMES: usize = 50;

// On one thread, the connection sees both at once.
#[tokio::test]
async fn what_was_held_is_lost_with_its_connection() {
    let reset_and_heal = |proxy: &Proxy| {
        proxy.reset();
        proxy.set(Toxic::None);
    };
    let refuse = |proxy: &Proxy| proxy.set(Toxic::Refuse);
    let ends: [(Toxic, End, _); 3] = [
        (Toxic::Mute, reset_and_heal, Err(ErrorKind::ConnectionReset)),
        (Toxic::HalfOpen, reset_and_heal, Err(ErrorKind::ConnectionReset)),
        (Toxic::HalfOpen, refuse, Ok(0)),
    ];
    for (toxic, end, wanted) in ends.repeat(TIMES) {
        let Pair { proxy, mut client, mut server, .. } = pair().await;
        assert_passes(&mut client, &mut server, b"x").await;
        // The proxy has read them: they could leave at once.
        proxy.set(Toxic::Latency(PATIENCE));
        client.write_all(b"held").await.expect("taken");
        sleep(Duration::from_millis(5)).await;
        proxy.set(toxic);
        end(&proxy);
        assert_ended(&mut server, wanted).await;
    }
}

#[tokio::test]
async fn a_mute_client_still_hears() {
    let Pair { proxy, mut client, mut server, .. } = pair().await;
    proxy.set(Toxic::Mute);
    client.write_all(b"unheard").await.expect("taken");
    assert_silent(&mut server).await;
    assert_passes(&mut server, &mut client, b"heard").await;
}

#[tokio::test]
async fn refusing_cuts_and_resets() {
    let Pair { proxy, listener, mut client, mut server } = pair().await;
    assert_passes(&mut client, &mut server, b"x").await;
    proxy.set(Toxic::Refuse);
    assert_ended(&mut client, Ok(0)).await;
    assert_ended(&mut server, Ok(0)).await;
    // The reset may come before the connecting has returned, or after.
    if let Ok(mut newer) = TcpStream::connect(proxy.address()).await {
        assert_ended(&mut newer, Err(ErrorKind::ConnectionReset)).await;
    }
    assert!(timeout(SILENCE, listener.accept()).await.is_err());
}

#[tokio::test]
async fn the_target_can_be_another_one_or_none() {
    let Pair { proxy, mut client, mut server, listener: first } = pair().await;
    let (second, address) = listener().await;
    proxy.retarget(address);
    let mut newer = TcpStream::connect(proxy.address()).await.expect("accepted");
    let (mut other, _) = soon("accepted", second.accept()).await.expect("accepted");
    assert_passes(&mut newer, &mut other, b"to the second").await;
    assert_passes(&mut client, &mut server, b"to the first").await;

    drop((first, second));
    let mut refused = TcpStream::connect(proxy.address()).await.expect("accepted");
    assert_ended(&mut refused, Err(ErrorKind::ConnectionReset)).await;

    drop(proxy);
    assert_ended(&mut client, Ok(0)).await;
}

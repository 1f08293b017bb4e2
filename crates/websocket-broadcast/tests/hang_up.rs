//! `hang_up` is dropped at every suspension point; and what a conformance suite would send, as bytes, gets the right code.

use std::time::Duration;

use futures::StreamExt;
use support::sweep::{Ended, Scene, sweep};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use websocket_broadcast::{close_code, hang_up, hang_up_stream};

const LIMIT: Duration = Duration::from_secs(5);

/// A frame as a client sends it, with a mask of zeros. `head` is the first byte: FIN, reserved bits, opcode.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

async fn server<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default().max_message_size(Some(1000)).max_frame_size(Some(1000));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

/// The loop of a server: it echoes texts, and ends with the code for the error.
async fn serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: S) {
    use futures::SinkExt;
    let mut socket = server(stream).await;
    let code = loop {
        match socket.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                socket.send(message).await.expect("the client reads")
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => break close_code(&error),
            None => break None,
        }
    };
    if let Some(code) = code {
        hang_up(socket, code, "", LIMIT).await;
    }
}

/// The frames that the server sent, each as its first byte and what it holds; of a close frame the code.
fn frames(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while let [head, length, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(usize::from(*length));
        frames.push(match (head, payload) {
            (0x88, [high, low, ..]) => (0x88, u16::from_be_bytes([*high, *low]).to_string()),
            _ => (*head, String::from_utf8_lossy(payload).into_owned()),
        });
        bytes = rest;
    }
    frames
}

/// What comes back for these bytes: in one piece, and byte by byte.
async fn answer(bytes: &[u8]) -> Vec<(u8, String)> {
    let mut answers = Vec::new();
    for piece in [bytes.len(), 1] {
        let (mut theirs, ours) = duplex(4096);
        let client = async {
            for piece in bytes.chunks(piece) {
                // An error: the server has heard enough.
                let _ = theirs.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            theirs.shutdown().await.expect("a pipe in memory");
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.expect("a pipe in memory");
            frames(&answer)
        };
        answers.push(tokio::join!(client, serve(ours)).0);
    }
    assert_eq!(answers[0], answers[1]);
    answers.swap_remove(0)
}

/// The table on the page of the book.
#[tokio::test(start_paused = true)]
async fn errors_every_case_of_the_page_gets_its_code() {
    let long = vec![b'a'; 126];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("reserved bit", frame(0xc1, b"a"), "1002"),
        ("reserved data opcode", frame(0x83, b""), "1002"),
        ("reserved control opcode", frame(0x8b, b""), "1002"),
        ("not masked", vec![0x81, 1, b'a'], "1002"),
        ("ping of 126 bytes", frame(0x89, &long), "1002"),
        ("ping in fragments", frame(0x09, b"a"), "1002"),
        ("continuation of nothing", frame(0x80, b"a"), "1002"),
        ("new message within another", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), "1002"),
        ("text that is not UTF-8", frame(0x81, &[0xff]), "1007"),
        ("half a character at the end", frame(0x81, &"é".as_bytes()[..1]), "1007"),
        ("not UTF-8, in fragments", [frame(0x01, b"a"), frame(0x80, &[0xff])].concat(), "1007"),
        ("message of 1001 bytes", frame(0x82, &[0; 1001]), "1009"),
        ("1001 bytes in fragments", [frame(0x02, &[0; 1000]), frame(0x80, &[0])].concat(), "1009"),
        ("close with one byte", frame(0x88, &[3]), "1002"),
        ("close, reason not UTF-8", close(1000, &[0xff]), "1007"),
        ("close 1005", close(1005, b""), "1002"),
        ("close 999", close(999, b""), "1002"),
        ("close 1016", close(1016, b""), "1002"),
        ("close 1000", close(1000, b"bye"), "1000"),
        ("close 4999", close(4999, b""), "4999"),
        ("close without a code", frame(0x88, b""), ""),
    ];
    for (name, bytes, code) in cases {
        assert_eq!((name, answer(&bytes).await), (name, vec![(0x88, code.to_string())]));
    }
}

#[tokio::test(start_paused = true)]
async fn order_good_frames_are_taken_in_every_shape() {
    let text = |text: &str| (0x81, text.to_string());
    let pong = |text: &str| (0x8a, text.to_string());
    let fragments =
        [frame(0x01, b"h"), frame(0x89, b"1"), frame(0x00, b"\xc3"), frame(0x80, b"\xa9")].concat();
    assert_eq!(answer(&fragments).await, [pong("1"), text("hé")]);
    assert_eq!(answer(&frame(0x81, b"")).await, [text("")]);
    assert_eq!(answer(&frame(0x8a, b"nobody asked")).await, []);
    let empty = [frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")].concat();
    assert_eq!(answer(&empty).await, [text("")]);
    assert_eq!(answer(&frame(0x89, &[b'a'; 125])).await, [pong(&"a".repeat(125))]);
}

/// A client in the middle of 8 MB that nobody wants still reads why: over TCP, where a reset could overtake it.
#[tokio::test]
async fn errors_the_code_arrives_although_the_client_goes_on_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let client = async {
        let mut head = vec![0x82, 0x80 | 127];
        head.extend(8_000_000_u64.to_be_bytes());
        head.extend([0; 4]);
        client.write_all(&head).await.unwrap();
        client.write_all(&vec![0; 8_000_000]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        frames(&answer)
    };
    let (seen, ()) = tokio::join!(client, serve(stream));
    assert_eq!(seen, [(0x88, "1009".to_string())]);
}

fn scene(room: usize) -> Scene<bool> {
    let (mut theirs, ours) = duplex(room);
    let call = async move {
        let socket: WebSocketStream<DuplexStream> = server(ours).await;
        hang_up(socket, CloseCode::Restart, "a reason that is longer than the room", LIMIT).await
    };
    let client = async move {
        theirs.write_all(b"what nobody reads").await.ok();
        tokio::time::sleep(Duration::from_millis(3)).await;
        theirs.read_to_end(&mut Vec::new()).await.ok();
    };
    Scene::new(call).alongside(client).check(|ended| {
        if let Ended::Returned(left) = ended {
            assert!(left);
        }
    })
}

#[test]
fn cancellation_at_every_point() {
    sweep(|_| scene(8));
    sweep(|_| scene(4096));
}

#[test]
fn cancellation_of_the_raw_stream_at_every_point() {
    sweep(|_| {
        let (mut theirs, mut ours) = duplex(4);
        let client = async move {
            theirs.write_all(b"what nobody reads").await.ok();
            theirs.read_to_end(&mut Vec::new()).await.ok();
        };
        Scene::new(async move { hang_up_stream(&mut ours).await }).alongside(client)
    });
}

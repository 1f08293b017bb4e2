//! The websocket-broadcast family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "websocket-broadcast/hub.rs"]
mod hub;
#[path = "websocket-broadcast/sockets.rs"]
mod sockets;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("websocket-broadcast", &["futures", "tokio", "tokio-tungstenite"]);
    hub::tables(&mut bench);
    sockets::tables(&mut bench);
    bench.finish();
}

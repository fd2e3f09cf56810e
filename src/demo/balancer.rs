//! What stands before the demo's nodes: each new connection goes to the node that has the fewest, byte for byte.

use crate::demo::node_process::NodeProcess;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once. Above it new ones wait in the kernel.
const MAX_CONNECTIONS: usize = 512;

/// After a connection that cannot be accepted.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Accepts connections for ever.
pub(super) async fn balance(listener: TcpListener, nodes: Arc<[Arc<NodeProcess>]>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            // Out of files, most likely. Others close some.
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        };
        let nodes = Arc::clone(&nodes);
        tokio::spawn(async move {
            carry(client, &nodes).await;
            drop(place);
        });
    }
}

/// A connection that no node takes is closed, and the client tries again.
async fn carry(mut client: TcpStream, nodes: &[Arc<NodeProcess>]) {
    let _ = client.set_nodelay(true);
    let mut ready: Vec<_> = nodes.iter().filter_map(|node| Some((node, node.address()?))).collect();
    ready.sort_by_key(|(node, _)| node.connections().load(Ordering::Relaxed));
    for (node, address) in ready {
        let Ok(mut upstream) = TcpStream::connect(address).await else { continue };
        let _ = upstream.set_nodelay(true);
        node.connections().fetch_add(1, Ordering::Relaxed);
        let _ = copy_bidirectional(&mut client, &mut upstream).await;
        node.connections().fetch_sub(1, Ordering::Relaxed);
        return;
    }
}

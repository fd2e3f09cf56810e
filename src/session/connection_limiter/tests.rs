use super::*;
use crate::session::accepted::AcceptedSocket;
use std::sync::atomic::AtomicUsize;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const BOUNDS: Bounds = Bounds { clients: 100, per_address: 0, unproven: 100, knows_addresses: true, sockets: 100 };

fn client(limiter: &Arc<ConnectionLimiter>, address: IpAddr, ended: &Arc<AtomicUsize>) -> Result<Permit, LimitError> {
    let mut permit = limiter.take(address, ClientKind::Http)?;
    let ended = ended.clone();
    permit.await_proof(move || {
        ended.fetch_add(1, Ordering::Relaxed);
    });
    Ok(permit)
}

fn accept(limiter: &Arc<ConnectionLimiter>, address: IpAddr) -> Result<Arc<AcceptedSocket>, LimitError> {
    AcceptedSocket::new(limiter, Owner::client(address))
}

async fn is_evicted(socket: &AcceptedSocket) -> bool {
    tokio::time::timeout(std::time::Duration::ZERO, socket.cut().wait()).await == Ok(true)
}

#[test]
fn proven_clients_are_refused_over_the_limits_and_places_come_back() {
    let limiter = ConnectionLimiter::new(Bounds { clients: 3, per_address: 2, ..BOUNDS });
    let take = |address| limiter.take(address, ClientKind::WebSocket);
    let (first, second) = (take(A).unwrap(), take(A).unwrap());
    assert_eq!(take(A).err(), Some(LimitError::Address));
    let third = take(B).unwrap();
    assert_eq!(take(B).err(), Some(LimitError::Node));
    drop(first);
    assert_eq!(limiter.taken(), 2);
    drop((second, third, take(A).unwrap()));
    assert_eq!(limiter.taken(), 0);
    assert!(limiter.tables.lock().by_address.is_empty());
}

#[test]
fn unproven_clients_make_room_and_proven_ones_do_not() {
    let ended = Arc::default();
    let limiter = ConnectionLimiter::new(Bounds { clients: 3, ..BOUNDS });
    let mut clients: Vec<_> = (0..3).map(|_| client(&limiter, A, &ended).unwrap()).collect();
    clients[0].prove();
    let newcomer = client(&limiter, B, &ended).unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 1, "the oldest unproven one");
    clients.iter_mut().for_each(Permit::prove);
    drop(newcomer);
    assert_eq!(limiter.take(B, ClientKind::Http).err(), Some(LimitError::Node));
    assert_eq!(ended.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_flood_of_one_address_ends_only_its_own_sockets() {
    let limiter = ConnectionLimiter::new(Bounds { unproven: 4, ..BOUNDS });
    let bystander = accept(&limiter, B).unwrap();
    let flood: Vec<_> = (0..10).map(|_| accept(&limiter, A).unwrap()).collect();
    assert!(!is_evicted(&bystander).await);
    for (index, socket) in flood.iter().enumerate() {
        assert_eq!(is_evicted(socket).await, index < 7, "{index}");
    }
    drop((bystander, flood));
    assert_eq!(limiter.open.load(Ordering::Relaxed), 0);
    assert!(limiter.tables.lock().sockets.is_empty());
}

#[tokio::test]
async fn idle_sockets_of_an_address_make_room_for_its_own_newcomers() {
    let limiter = ConnectionLimiter::new(Bounds { per_address: 3, ..BOUNDS });
    let idle: Vec<_> = (0..4).map(|_| accept(&limiter, A).unwrap()).collect();
    assert!(is_evicted(&idle[0]).await && !is_evicted(&idle[1]).await);
    idle.iter().for_each(|socket| socket.prove());
    assert_eq!(accept(&limiter, A).err(), Some(LimitError::Address));
    assert!(accept(&limiter, B).is_ok());
}

#[tokio::test]
async fn a_socket_is_safe_while_it_carries_a_request_of_a_proven_client() {
    let limiter = ConnectionLimiter::new(Bounds { unproven: 1, ..BOUNDS });
    let socket = accept(&limiter, A).unwrap();
    socket.carry();
    let other = accept(&limiter, A).unwrap();
    assert!(!is_evicted(&socket).await && !is_evicted(&other).await);
    socket.rest();
    assert!(is_evicted(&other).await);
    drop(accept(&limiter, A).unwrap());
    assert!(is_evicted(&socket).await);
}

#[tokio::test]
async fn without_files_the_oldest_unproven_socket_ends_and_websockets_count() {
    let limiter = ConnectionLimiter::new(Bounds { sockets: 2, ..BOUNDS });
    let (first, second) = (accept(&limiter, A).unwrap(), accept(&limiter, A).unwrap());
    let file = first.upgrade();
    drop(first);
    let third = accept(&limiter, A).unwrap();
    assert!(is_evicted(&second).await && limiter.is_over());
    drop(second);
    assert!(!limiter.is_over());
    third.prove();
    assert_eq!(accept(&limiter, A).err(), Some(LimitError::Node));
    drop(file);
    assert!(accept(&limiter, A).is_ok());
}

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn accept_proxy(limiter: &Arc<ConnectionLimiter>) -> Arc<AcceptedSocket> {
    AcceptedSocket::new(limiter, Owner::proxy(PROXY)).unwrap()
}

#[tokio::test]
async fn a_flood_through_a_proxy_ends_only_sockets_of_its_own_client() {
    let limiter = ConnectionLimiter::new(Bounds { unproven: 5, ..BOUNDS });
    let (idle, bystander) = (accept_proxy(&limiter), accept_proxy(&limiter));
    bystander.charge_client(B).unwrap();
    let mut flood = Vec::new();
    for _ in 0..10 {
        let socket = accept_proxy(&limiter);
        socket.charge_client(A).unwrap();
        flood.push(socket);
    }
    assert!(!is_evicted(&idle).await && !is_evicted(&bystander).await);
    for (index, socket) in flood.iter().enumerate() {
        assert_eq!(is_evicted(socket).await, index < 7, "{index}");
    }
    drop((idle, bystander, flood));
    assert!(limiter.tables.lock().sockets.is_empty());
}

#[tokio::test]
async fn connections_per_ip_counts_the_clients_of_a_proxy_and_not_the_proxy() {
    let limiter = ConnectionLimiter::new(Bounds { per_address: 2, ..BOUNDS });
    let sockets: Vec<_> = (0..10).map(|_| accept_proxy(&limiter)).collect();
    sockets.iter().for_each(|socket| socket.prove());
    assert_eq!(sockets[0].charge_client(A), Ok(()));
    assert_eq!(sockets[0].charge_client(A), Ok(()), "the next request of the same client");
    assert_eq!(sockets[1].charge_client(A), Ok(()));
    assert_eq!(sockets[2].charge_client(A), Err(LimitError::Address));
    assert_eq!(sockets[2].charge_client(B), Ok(()));
    sockets[0].leave_client();
    assert_eq!(sockets[3].charge_client(A), Ok(()), "a socket that waits for requests is the proxy's");
    let file = sockets[1].upgrade();
    assert_eq!(sockets[4].charge_client(A), Ok(()), "a WebSocket counts as a client");
    drop((sockets, file));
    assert!(limiter.tables.lock().by_address.is_empty());
    assert_eq!(limiter.open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_request_on_an_old_socket_of_a_proxy_is_as_young_as_it_is() {
    let limiter = ConnectionLimiter::new(Bounds { unproven: 2, ..BOUNDS });
    let (old, direct) = (accept_proxy(&limiter), accept(&limiter, A).unwrap());
    old.charge_client(B).unwrap();
    let newcomer = accept(&limiter, PROXY).unwrap();
    assert!(is_evicted(&direct).await && !is_evicted(&old).await && !is_evicted(&newcomer).await);
    old.carry();
    old.leave_client();
    assert_eq!(limiter.tables.lock().sockets.len(), 1, "what is proven does not come back by that");
}

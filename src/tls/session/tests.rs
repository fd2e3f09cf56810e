//! Against rustls' own client, whose bytes come whole, in pieces, and broken.

use super::*;
use crate::tls::config::TlsConfig;
use crate::tls::key_pair::KeyPair;
use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{Read as _, Write as _};

fn server() -> TlsSession {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/p256");
    let file = |name: &str| Some(format!("{keys}.{name}.pem").into());
    let pair = KeyPair::read(&TlsConfig { cert_file: file("certificate"), key_file: file("private") });
    TlsSession::new(pair.unwrap().unwrap().config).unwrap()
}

fn client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConnection {
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/p256.certificate.pem");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(config.into(), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// What the client has to say now.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The client reads, and checks what TLS says about it.
fn hear(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let state = client.process_new_packets().unwrap();
        let before = text.len();
        text.resize(before + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut text[before..]).unwrap();
    }
    text
}

/// The server reads these bytes, at most `step` at once; the text.
fn take(server: &mut TlsSession, bytes: &[u8], step: usize, room: usize) -> io::Result<Vec<u8>> {
    let (mut scratch, mut left, mut text) = (vec![0; SCRATCH], bytes, Vec::new());
    loop {
        let mut out = vec![0; room];
        let read = server.read(&mut out, &mut scratch, |buffer| {
            let count = left.len().min(step).min(buffer.len());
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            buffer[..count].copy_from_slice(&left[..count]);
            left = &left[count..];
            Ok(count)
        });
        match read {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(&out[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && left.is_empty() => return Ok(text),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn flushed(server: &mut TlsSession) -> Vec<u8> {
    let mut sent = Vec::new();
    server
        .flush(|bytes| {
            sent.extend_from_slice(bytes);
            Ok(bytes.len())
        })
        .unwrap();
    sent
}

/// Both shake hands; the server gets the client's bytes in steps.
fn connected(version: &'static rustls::SupportedProtocolVersion, step: usize) -> (TlsSession, ClientConnection) {
    let (mut server, mut client) = (server(), client(&[version]));
    while server.is_handshaking() || client.is_handshaking() {
        assert_eq!(take(&mut server, &said(&mut client), step, 64).unwrap(), b"");
        hear(&mut client, &flushed(&mut server));
    }
    hear(&mut client, &flushed(&mut server));
    (server, client)
}

#[test]
fn text_goes_both_ways_and_nothing_is_held_afterwards() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (step, room) in [(1, 64), (100, 1), (1_000, 4_096), (usize::MAX, SCRATCH)] {
            let (mut server, mut client) = connected(version, step);
            let text: Vec<u8> = (0..40_000_u32).map(|number| number.to_le_bytes()[0]).collect();
            client.writer().write_all(&text).unwrap();
            assert!(take(&mut server, &said(&mut client), step, room).unwrap() == text, "{version:?} {step} {room}");

            let (mut wire, mut scratch, mut rest, mut waited) = (Vec::new(), vec![0; SCRATCH], &text[..], false);
            while !rest.is_empty() {
                // A socket that takes a little more each time.
                let written = server.write(rest, &mut scratch, |bytes| {
                    let count = bytes.len().min(9_000);
                    wire.extend_from_slice(&bytes[..count]);
                    Ok(count)
                });
                rest = &rest[written.unwrap()..];
                waited |= server.has_unsent();
            }
            assert!(waited);
            wire.extend(flushed(&mut server));
            assert!(hear(&mut client, &wire) == text);
            let held = [&server.incoming, &server.plain.0, &server.outgoing.0].map(Vec::capacity);
            assert_eq!(held, [0, 0, 0]);
        }
    }
}

#[test]
fn what_the_socket_does_not_take_waits_and_blocks_the_next_text() {
    let (mut server, mut client) = connected(&rustls::version::TLS13, 100);
    let (mut wire, mut scratch, mut room) = (Vec::new(), vec![0; SCRATCH], 10);
    let mut socket = |bytes: &[u8]| {
        let count = bytes.len().min(room);
        room -= count;
        wire.extend_from_slice(&bytes[..count]);
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    };
    assert_eq!(server.write(b"one", &mut scratch, &mut socket).unwrap(), 3);
    assert_eq!(server.write(b"two", &mut scratch, &mut socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(server.has_unsent());
    wire.extend(flushed(&mut server));
    assert_eq!(hear(&mut client, &wire), b"one");
}

#[test]
fn text_is_written_while_a_record_is_on_its_way() {
    let (mut server, mut client) = connected(&rustls::version::TLS13, usize::MAX);
    client.refresh_traffic_keys().unwrap();
    client.writer().write_all(b"text").unwrap();
    let (bytes, mut scratch, mut heard) = (said(&mut client), vec![0; SCRATCH], Vec::new());
    let mut wire = Vec::new();
    for byte in &bytes {
        heard.extend(take(&mut server, &[*byte], 1, 64).unwrap());
        assert_eq!(
            server
                .write(b".", &mut scratch, |bytes| {
                    wire.extend_from_slice(bytes);
                    Ok(bytes.len())
                })
                .unwrap(),
            1
        );
    }
    assert_eq!(heard, b"text");
    assert_eq!(hear(&mut client, &wire), vec![b'.'; bytes.len()]);
}

#[test]
fn both_sides_hear_that_the_other_has_ended() {
    let (mut server, mut client) = connected(&rustls::version::TLS13, usize::MAX);
    client.writer().write_all(b"bye").unwrap();
    client.send_close_notify();
    assert_eq!(take(&mut server, &said(&mut client), usize::MAX, 64).unwrap(), b"bye");
    assert!(server.is_readable());
    let (mut wire, mut scratch) = (Vec::new(), vec![0; SCRATCH]);
    server.close(&mut scratch, |bytes| {
        wire.extend_from_slice(bytes);
        Ok(bytes.len())
    });
    client.read_tls(&mut &wire[..]).unwrap();
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn a_client_that_breaks_the_protocol_gets_an_alert() {
    let mut server = server();
    let mut hello = said(&mut client(&[&rustls::version::TLS13]));
    hello[5] = 0x7f;
    assert_eq!(take(&mut server, &hello, 50, 64).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(flushed(&mut server)[0], 21, "an alert");
    assert!(server.is_readable());
}

#[test]
fn a_record_or_a_hello_without_end_is_not_kept() {
    let (mut server, mut hello) = (server(), vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff]);
    hello.resize(5 + 0x4000, 0);
    let piece = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    hello.extend(piece.repeat(4));
    assert!(take(&mut server, &hello, usize::MAX, 64).is_err());
    assert!(server.incoming.len() <= MAX_HELD);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A panic would end the node.
    #[test]
    fn no_bytes_panic(
        step in 1..3_000_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        junk in proptest::collection::vec(any::<u8>(), 0..200),
        shaken in any::<bool>(),
    ) {
        let (mut server, mut client) = match shaken {
            true => connected(&rustls::version::TLS13, step),
            false => (server(), client(&[&rustls::version::TLS12, &rustls::version::TLS13])),
        };
        if shaken {
            client.writer().write_all(&[7; 300]).unwrap();
            client.refresh_traffic_keys().unwrap();
            client.writer().write_all(&[8; 300]).unwrap();
        }
        let mut bytes = said(&mut client);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        bytes.extend(junk);
        let _ = take(&mut server, &bytes, step, 64);
        let mut scratch = vec![0; SCRATCH];
        let _ = server.write(b"text", &mut scratch, |bytes| Ok(bytes.len()));
        server.close(&mut scratch, |bytes| Ok(bytes.len()));
        server.close(&mut scratch, |bytes| Ok(bytes.len()));
        let _ = server.write(b"text", &mut scratch, |bytes| Ok(bytes.len()));
        let _ = take(&mut server, &bytes, step, 64);
    }
}

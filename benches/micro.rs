//! Single functions on one thread: rooms, the recovery window, the codecs, and the log's entries. `cargo bench --bench micro -- rooms` runs
//! one group.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use roomcast::log::Snapshot;
use roomcast::log::redis::read_wanted;
use roomcast::log::window::{Slice, Window};
use roomcast::model::args::Args;
use roomcast::model::draft::{Draft, DraftLimits, Source};
use roomcast::model::event::Event;
use roomcast::model::names::Room;
use roomcast::model::namespaces::NamespaceIndex;
use roomcast::model::offset::{Epoch, Offset, Position};
use roomcast::model::partition::Line;
use roomcast::model::provenance::Provenance;
use roomcast::protocol::socketio::Decoder;
use roomcast::protocol::websocket::FrameReader;
use roomcast::protocol::{msgpack, plain_ws, socketio_encode, sse};
use roomcast::redis::resp::{Scanner, Tokens};
use roomcast::shard::rooms::Rooms;
use slotmap::{DefaultKey, SlotMap};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

const SESSIONS: usize = 1_000;
const EVENTS: u64 = 10_000;
const ROOMS: u64 = 100;
const MAIN: NamespaceIndex = NamespaceIndex::new(0);
const MESSAGE: &str =
    r#"{"id":12345,"text":"See you at the usual place at eight, and bring the others.","from":{"id":7}}"#;

fn position(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn offset(ms: u64) -> Offset {
    Offset { epoch: Epoch(7), position: position(ms), line: Line::CONTROL }
}

fn event(ms: u64) -> Arc<Event> {
    let args = Args::one(MESSAGE).expect("valid JSON");
    let draft = Draft::new(&format!("conversation:{}", ms % ROOMS), "new_message", args, Source::Http);
    Arc::new(Event { offset: offset(ms), draft, accepted_us: 0, after: None })
}

fn rooms(criterion: &mut Criterion) {
    let mut keys = SlotMap::<DefaultKey, ()>::new();
    let sessions: Vec<DefaultKey> = (0..SESSIONS).map(|_| keys.insert(())).collect();
    let room: Room = "conversation:42".into();
    let mut full = Rooms::default();
    for session in &sessions {
        full.join(*session, MAIN, &room, Provenance::Rule);
    }
    let mut group = criterion.benchmark_group("rooms");
    group.bench_function("join and leave a room of 1,000", |bencher| {
        let session = keys.insert(());
        bencher.iter(|| {
            full.join(session, MAIN, &room, Provenance::Rule);
            full.leave(session, MAIN, &room)
        });
    });
    group.bench_function("join and leave an empty room", |bencher| {
        let room: Room = "conversation:43".into();
        bencher.iter(|| {
            full.join(sessions[0], MAIN, &room, Provenance::Rule);
            full.leave(sessions[0], MAIN, &room)
        });
    });
    group.throughput(Throughput::Elements(SESSIONS as u64));
    group.bench_function("find a room and visit its 1,000 members", |bencher| {
        bencher
            .iter(|| full.find(MAIN, &room).map(|room| full.members(room).filter(|key| *key == sessions[0]).count()));
    });
    group.finish();
}

fn empty_window() -> Window {
    let mut window = Window::new(Duration::from_secs(120), 64 << 20);
    let start = position(0);
    let snapshot = Snapshot {
        line: Line::CONTROL,
        epoch: Epoch(7),
        floor: start,
        head: start,
        history: Vec::new(),
        commands: Vec::new(),
    };
    window.reset(&snapshot, 0);
    window
}

fn window(criterion: &mut Criterion) {
    let events: Vec<_> = (1..=EVENTS).map(event).collect();
    let mut full = empty_window();
    for event in &events {
        full.push(event.clone(), 0);
    }
    let mut group = criterion.benchmark_group("window");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("push 10,000 events", |bencher| {
        let push = |mut window: Window| {
            for event in &events {
                window.push(event.clone(), 0);
            }
            window
        };
        bencher.iter_batched(empty_window, push, BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(EVENTS / ROOMS));
    let all = Slice { events: usize::MAX, bytes: usize::MAX };
    group.bench_function("replay the 100 events of one room", |bencher| {
        bencher.iter(|| {
            full.pull(offset(0), position(EVENTS), "/", &["conversation:42"], all).map(|pulled| pulled.events.len())
        });
    });
    group.finish();
}

fn codecs(criterion: &mut Criterion) {
    let event = event(42);
    let packet = format!("2/chat,17[\"send_message\",{MESSAGE}]");
    let frame = masked_text(packet.as_bytes());
    let message = format!(r#"{{"type":"event","event":"send_message","data":{MESSAGE},"id":17}}"#);
    let packed = include_bytes!("../fuzz/seeds/msgpack/event");
    let mut group = criterion.benchmark_group("codecs");
    group.bench_function("Socket.IO: encode an event as frames", |bencher| {
        bencher.iter(|| -> Bytes { socketio_encode::event_frames(black_box(&event), true) });
    });
    group.bench_function("Socket.IO: decode an event", |bencher| {
        let mut decoder = Decoder::new();
        bencher.iter(|| decoder.text(black_box(&packet)).is_ok());
    });
    group.bench_function("WebSocket: read a masked frame", |bencher| {
        let mut reader = FrameReader::new();
        let read = |mut frame: Vec<u8>| {
            reader.read(&mut frame, 1 << 20, &mut |message| {
                black_box(message);
                ControlFlow::Continue(())
            })
        };
        bencher.iter_batched(|| frame.clone(), read, BatchSize::SmallInput);
    });
    group.bench_function("plain WebSocket: encode an event as a frame", |bencher| {
        bencher.iter(|| plain_ws::event_frame(black_box(&event)));
    });
    group.bench_function("plain WebSocket: decode an event", |bencher| {
        bencher.iter(|| plain_ws::parse(black_box(&message)).is_ok());
    });
    group.bench_function("SSE: encode an event", |bencher| {
        bencher.iter(|| sse::event_block(black_box(&event)));
    });
    group.bench_function("MessagePack: an event to JSON", |bencher| {
        bencher.iter(|| msgpack::to_json(black_box(packed), 1_000).is_ok());
    });
    group.finish();
}

/// A reply of `XREAD` with events of other programs.
fn page(entries: usize) -> Vec<u8> {
    let mut reply = format!("*1\r\n*2\r\n$15\r\nroomcast:events\r\n*{entries}\r\n");
    for entry in 0..entries {
        reply.push_str(&format!("*2\r\n$15\r\n1795225216{:03}-0\r\n*6\r\n", entry % 1000));
        let room = format!("conversation:{}", entry % 100);
        for text in ["room", &room, "event", "new_message", "data", MESSAGE] {
            reply.push_str(&format!("${}\r\n{text}\r\n", text.len()));
        }
    }
    reply.into_bytes()
}

fn log(criterion: &mut Criterion) {
    const ENTRIES: usize = 256;
    let reply = page(ENTRIES);
    let limits = DraftLimits { max_event: 64 << 10, room_name_bytes: 200, rooms: 100 };
    let text = |text: &str| text.as_bytes().to_vec();
    let fields = [("room", "conversation:42"), ("event", "new_message"), ("data", MESSAGE)]
        .map(|(name, value)| (text(name), text(value)));
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("find and walk over a reply with 256 entries", |bencher| {
        bencher.iter(|| {
            let end = Scanner::new(1 << 20).scan(black_box(&reply));
            (end, Tokens::new(&reply).count())
        });
    });
    group.bench_function("the same by the client library", |bencher| {
        bencher.iter(|| redis::parse_redis_value(black_box(&reply)).is_ok());
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode an entry", |bencher| {
        bencher.iter(|| read_wanted(black_box(&fields), &limits, |_, _| true).is_ok());
    });
    group.bench_function("look at an entry that nobody wants", |bencher| {
        bencher.iter(|| read_wanted(black_box(&fields), &limits, |_, _| false).is_ok());
    });
    group.finish();
}

/// A text frame as a client sends it, of less than 126 or less than 65,536 bytes.
fn masked_text(payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x81];
    match u8::try_from(payload.len()) {
        Ok(length @ ..126) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).expect("a short message").to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

criterion_group!(benches, rooms, window, codecs, log);
criterion_main!(benches);

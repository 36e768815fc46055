//! Workers that break the protocol. The gateway must neither panic nor trust them.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use inferd_types::settings::LoadedModel;
use inferd_types::{BatchId, Signature, Tensor};
use rustix::net::RecvFlags;
use serde_json::{Value, json};

use super::support::{Bench, model, pair, pairs, start};
use crate::descriptor::Descriptor;
use crate::frames::{GatewayFrame, WorkerFrame};
use crate::layout::{DESCRIPTOR_BYTES, GATEWAY_WAITING, Layout, head};
use crate::memory::Mapping;
use crate::socket::{self, Fds, PACKET_MAX};
use crate::word::{State, Word};
use crate::{Doorbell, Exit, SlotId, SlotState, Spawner, Waiting, doorbell};

/// The settings, if they are for a hostile worker; they stay in the socket.
pub(super) fn peek(socket: BorrowedFd<'_>) -> Option<Value> {
    let mut buffer = vec![0u8; PACKET_MAX];
    let (length, _) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::PEEK).ok()?;
    match serde_json::from_slice(&buffer[..length]).ok()? {
        GatewayFrame::Load { settings, .. } if settings["hostile"].is_string() => Some(settings),
        _ => None,
    }
}

/// A worker without any of the worker's own code.
pub(super) fn run(fd: i32, load: &Value) -> ! {
    // SAFETY: the channel of this process, which has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut buffer = vec![0; PACKET_MAX];
    socket::receive(&socket, &mut buffer, None).unwrap();
    let hostile = load["hostile"].as_str().unwrap();
    let say = |bytes: &[u8]| {
        let _ = rustix::net::send(&socket, bytes, rustix::net::SendFlags::NOSIGNAL);
    };
    if hostile == "load_garbage" {
        say(b"{\"loaded\": [[[");
        park();
    }
    if hostile == "load_endless" || hostile == "load_in_crumbs" {
        let packet = vec![0; if hostile == "load_endless" { PACKET_MAX } else { 2 }];
        loop {
            say(&packet);
        }
    }
    let signature: Signature = serde_json::from_value(load["signature"].clone()).unwrap();
    let loaded = WorkerFrame::Loaded(Box::new(LoadedModel::new(signature, Default::default())));
    socket::send(&socket, &loaded, &[]).unwrap();
    let mut fds = Fds::new();
    let length = socket::receive(&socket, &mut buffer, Some(&mut fds)).unwrap();
    let Ok(GatewayFrame::Arena(layout)) = serde_json::from_slice(&buffer[..length]) else { panic!() };
    let mapping = Mapping::new(fds[0].as_fd(), layout.bytes).unwrap();
    let arena = Arena { layout: *layout, mapping, bell: fds.remove(1) };
    match hostile {
        "frame_garbage" => say(&[0xff; 100]),
        "frame_too_long" => say(&vec![b' '; PACKET_MAX + 1]),
        "room_for_no_batch" => say(br#"{"room":{"slot":1,"generation":77,"bytes":1000}}"#),
        "descriptors_sent" => {
            let frame = WorkerFrame::Room { slot: 0, generation: 9, bytes: 1 };
            socket::send(&socket, &frame, &[socket.as_fd(), socket.as_fd()]).unwrap();
        }
        "shrink" => {
            assert!(rustix::fs::ftruncate(&fds[0], 0).is_err());
            say(b"tried");
        }
        "word" => arena.word(load["state"].as_u64().unwrap()),
        "descriptor" => arena.descriptor(load),
        "scribble" => arena.scribble(load["seed"].as_u64().unwrap()),
        other => panic!("{other}"),
    }
    park()
}

/// Waits until the gateway kills the process.
fn park() -> ! {
    loop {
        std::thread::park();
    }
}

struct Arena {
    layout: Layout,
    mapping: Mapping,
    bell: OwnedFd,
}

impl Arena {
    /// Waits for a batch in slot 0. A busy loop, briefly.
    fn open(&self) -> Word {
        loop {
            let word = self.mapping.u64(self.layout.slots[0].head + head::WORD).load(Ordering::Acquire);
            if let Some(word) = Word::unpack(word).filter(|word| word.state == State::Open) {
                return word;
            }
            std::thread::yield_now();
        }
    }

    fn set(&self, word: u64) {
        self.mapping.u64(self.layout.slots[0].head + head::WORD).store(word, Ordering::Release);
        doorbell::ring(&self.bell);
    }

    /// Claims another state, or the right state for another batch.
    fn word(&self, state: u64) {
        let word = self.open();
        let done = Word { state: State::Done, ..word };
        self.set(match state {
            0 => Word { state: State::Free, ..word }.pack(),
            1 => Word { rows: word.rows + 1, ..done }.pack(),
            2 => Word { generation: word.generation + 1, ..done }.pack(),
            3 => u64::MAX,
            _ => {
                self.mapping.u32(self.layout.slots[0].head + head::OUTCOME).store(9, Ordering::Relaxed);
                done.pack()
            }
        });
    }

    /// Describes an output that is elsewhere.
    fn descriptor(&self, load: &Value) {
        let word = self.open();
        let number = |name: &str| load[name].as_u64().unwrap();
        let shape = [u64::from(word.rows), 2].into_iter().collect();
        let (segment, offset, len) = (number("segment") as u32, number("offset"), number("len"));
        let output = Descriptor { datatype: inferd_types::DataType::Fp32, shape, segment, offset, len };
        let at = self.layout.slots[0].head + head::DESCRIPTORS + self.layout.inputs * DESCRIPTOR_BYTES;
        self.mapping.write(at, &output.encode());
        self.set(Word { state: State::Done, ..word }.pack());
    }

    /// Overwrites the arena, in bursts between which the gateway works.
    fn scribble(&self, seed: u64) -> ! {
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 16
        };
        self.open();
        loop {
            for _ in 0..64 {
                // The front, where words and descriptors are, most of all.
                let end = if random() % 8 == 0 { self.layout.bytes } else { 1024.min(self.layout.bytes) };
                let at = random() as usize % (end - 8);
                let value = if random() % 2 == 0 { random() } else { random() % 64 };
                self.mapping.write(at, &value.to_le_bytes()[..1 + random() as usize % 8]);
            }
            // Occasionally a batch that seems to be done.
            let word = self.mapping.u64(self.layout.slots[0].head + head::WORD).load(Ordering::Relaxed);
            if let Some(word) = Word::unpack(word) {
                self.set(Word { state: State::Done, ..word }.pack());
            }
            self.mapping.u32(GATEWAY_WAITING).store(2, Ordering::Relaxed);
            std::thread::yield_now();
        }
    }
}

async fn hostile(load: Value) -> Bench {
    Bench::new(&model(&pairs(), load)).await
}

/// Polls until the worker is gone; results may come, a panic may not.
async fn poll_until_gone(bench: &mut Bench) -> Exit {
    let exited = bench.worker.exited();
    tokio::pin!(exited);
    let mut batch = 1;
    loop {
        for slot in SlotId::ALL {
            if let SlotState::Done(result) = bench.worker.poll(slot)
                && let Ok(outputs) = result.outcome
            {
                let _ = outputs.split(&[result.rows]);
            }
        }
        batch += 1;
        let request = pair(&[1.0, 2.0, 3.0, 4.0]);
        let requests: [&[Tensor]; 1] = [&request];
        if let Ok(slot) = bench.worker.stage(BatchId(batch), &requests) {
            let _ = bench.worker.append(slot, &requests);
        }
        bench.worker.set_waiting(Waiting::Done);
        tokio::select! {
            biased;
            exit = &mut exited => return exit,
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test]
async fn a_worker_that_begins_with_garbage_is_refused() {
    let settings = model(&pairs(), json!({ "hostile": "load_garbage" }));
    let (spawner, bell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
    let error = start(&spawner, &settings, &bell).await.unwrap_err();
    assert!(error.message().contains("sent an invalid frame"), "{error}");
}

#[tokio::test]
async fn a_worker_whose_first_words_have_no_end_is_not_listened_to() {
    for name in ["load_endless", "load_in_crumbs"] {
        let settings = model(&pairs(), json!({ "hostile": name }));
        let (spawner, bell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
        let error = start(&spawner, &settings, &bell).await.unwrap_err();
        assert!(error.message().contains("the control channel"), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_worker_whose_frames_make_no_sense_is_killed() {
    for name in ["frame_garbage", "frame_too_long", "room_for_no_batch", "descriptors_sent", "shrink"] {
        let bench = hostile(json!({ "hostile": name })).await;
        assert_eq!(bench.exited().await, Exit::Signal(9), "{name}");
    }
}

#[tokio::test]
async fn a_worker_with_an_invalid_slot_word_is_killed_and_its_batch_is_not_answered() {
    for state in 0..5 {
        let mut bench = hostile(json!({ "hostile": "word", "state": state })).await;
        let slot = bench.stage(1, &[pair(&[1.0, 2.0])]);
        let exit = bench.worker.exited();
        tokio::pin!(exit);
        let exit = loop {
            assert!(!matches!(bench.worker.poll(slot), SlotState::Done(_) | SlotState::Free), "{state}");
            tokio::select! {
                biased;
                exit = &mut exit => break exit,
                () = tokio::task::yield_now() => {}
            }
        };
        assert_eq!(exit, Exit::Signal(9), "{state}");
    }
}

#[tokio::test]
async fn a_worker_whose_output_is_outside_is_killed_and_nothing_is_read_there() {
    for (segment, offset, len) in
        [(0, 0, 16), (0, 1 << 40, 16), (0, u64::MAX - 63, 16), (5, 0, 16), (0, 640, u64::MAX), (0, 641, 16)]
    {
        let load = json!({ "hostile": "descriptor", "segment": segment, "offset": offset, "len": len });
        let mut bench = hostile(load).await;
        let slot = bench.stage(1, &[pair(&[1.0, 2.0, 3.0, 4.0])]);
        let exit = bench.worker.exited();
        tokio::pin!(exit);
        let exit = loop {
            assert!(!matches!(bench.worker.poll(slot), SlotState::Done(_)), "{segment} {offset} {len}");
            tokio::select! {
                biased;
                exit = &mut exit => break exit,
                () = tokio::task::yield_now() => {}
            }
        };
        assert_eq!(exit, Exit::Signal(9));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_worker_that_writes_all_over_the_arena_never_makes_the_gateway_panic() {
    for seed in 1..20 {
        let mut bench = hostile(json!({ "hostile": "scribble", "seed": seed })).await;
        bench.stage(1, &[pair(&[1.0, 2.0])]);
        assert_eq!(poll_until_gone(&mut bench).await, Exit::Signal(9));
    }
}

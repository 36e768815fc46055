//! What a worker sends and writes: a control message, and the descriptors of a batch's outputs. The first byte
//! chooses which, and for which signature.
#![no_main]

use inferd_transport::untrusted::{OutputRoom, WorkerFrame, check_outputs};
use libfuzzer_sys::fuzz_target;

const ROOMS: [OutputRoom; 2] =
    [OutputRoom { segment: 0, start: 640, end: 4096 }, OutputRoom { segment: 3, start: 0, end: 65_536 }];

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    if choice % 2 == 0 {
        // Whatever is understood can be said again and is understood then.
        if let Ok(frame) = WorkerFrame::parse(rest) {
            let again = serde_json::to_vec(&frame).expect("a frame is plain data");
            WorkerFrame::parse(&again).expect("what was understood once is understood twice");
        }
        return;
    }
    let [rows, descriptors @ ..] = rest else { return };
    let signature = inferd_fuzz::signature(choice / 2);
    let Ok(outputs) = check_outputs(descriptors, u32::from(*rows), signature, &ROOMS) else { return };
    assert_eq!(outputs.len(), signature.outputs.len());
    for output in &outputs {
        let inside = |room: &OutputRoom| {
            room.segment == output.segment
                && output.offset >= room.start
                && output.offset + output.len <= room.end
        };
        assert!(ROOMS.iter().any(inside), "an output outside of its room was believed");
    }
});

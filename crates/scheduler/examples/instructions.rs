//! A steady load for an instruction counter: `instructions KIND DEPTH CYCLES` prints the number of requests of the
//! cycles.
//!
//! Their cost is the difference in instructions to a run of no cycles.

#[path = "../benches/load/mod.rs"]
mod load;

use load::{Kind, Load};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, depth, cycles] = arguments.as_slice() else { panic!("instructions KIND DEPTH CYCLES") };
    let named = |known: &Kind| format!("{known:?}").eq_ignore_ascii_case(kind);
    let kind = Kind::ALL.into_iter().find(named).expect("a kind of load");
    let mut load = Load::new(kind, depth.parse().expect("a number of requests"));
    let cycles: u64 = cycles.parse().expect("a number of batches");
    (0..cycles).for_each(|_| load.cycle());
    assert!(load.waiting() > 0);
    println!("{}", cycles * u64::from(kind.batch()));
}

//! CPU time of scheduling per request by queue depth: arrival, decision, forming and finishing of its batch.

mod load;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use load::{Kind, Load};

fn cost(criterion: &mut Criterion) {
    for kind in Kind::ALL {
        let mut group = criterion.benchmark_group(format!("{kind:?}").to_lowercase());
        group.throughput(Throughput::Elements(u64::from(kind.batch())));
        for depth in [0, 1000, 100_000] {
            let mut load = Load::new(kind, depth);
            group.bench_function(BenchmarkId::from_parameter(depth), |bencher| {
                bencher.iter(|| load.cycle());
            });
            assert!(load.waiting() >= depth, "{} wait", load.waiting());
        }
    }
}

criterion_group!(benches, cost);
criterion_main!(benches);

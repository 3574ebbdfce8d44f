//! File descriptors, counted: the only test of its program, so that the count is its own.

mod echo;

use echo::{batch, start, within};

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("listed").count()
}

#[tokio::test]
async fn batches_leak_no_descriptors() {
    let worker = start();
    worker.load(1, "echo").await.expect("loads");
    worker.load(2, "own").await.expect("loads");
    let large = vec![1u8; 3 << 20];
    let mut before = 0;
    for round in 0..200 {
        // The last passes what the pool keeps, so its arena comes and goes.
        for (handle, piece) in [(1, &b"x"[..]), (2, b"y"), (1, &large)] {
            within(worker.connection.execute(&batch(handle, &[piece]))).await.expect("runs");
        }
        if round == 5 {
            before = open_fds();
        }
    }
    assert_eq!(open_fds(), before);
    drop(worker);
}

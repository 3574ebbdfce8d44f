//! The worker protocol with a real child process.

mod echo;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use echo::{Worker, batch, spawn, start, within};
use kingpole_instances::worker::{ExecuteRequest, LoadRequest, WorkerProcess};
use kingpole_values::{Code, Datatype, Parameter};

#[tokio::test]
async fn a_batch_is_joined_and_its_outputs_come_back() {
    let worker = start();
    let ready = within(worker.connection.ready()).await.expect("ready");
    assert_eq!(ready.pid, worker.process.pid());
    let loaded = worker.load(4, "echo").await.expect("loads");
    assert_eq!(loaded.inputs, [("x".to_owned(), "FP32".to_owned(), vec![-1, 4])]);
    assert_eq!((loaded.max_batch_size, &loaded.notes[..]), (None, &["cpu".to_owned()][..]));
    let large = vec![7u8; 300_000];
    for _ in 0..3 {
        let small = within(worker.connection.execute(&batch(4, &[b"ab", b"", b"cde"]))).await.expect("runs");
        assert_eq!((&small.outputs[0].data[..], small.execute_us), (&b"abcde"[..], 7));
        assert_eq!(*small.outputs[0].shape, [5]);
        let two = within(worker.connection.execute(&batch(4, &[&large, b"!"]))).await.expect("runs");
        assert_eq!(two.outputs[0].data.len(), 300_001);
        assert_eq!((two.outputs[0].data[0], two.outputs[0].data[300_000]), (7, b'!'));
    }
    let none = within(worker.connection.execute(&batch(4, &[]))).await.expect("runs");
    assert_eq!(none.outputs[0].data.len(), 0);
    within(worker.connection.unload(4)).await.expect("unloads");
    worker.connection.stop();
    assert_eq!(within(worker.process.wait()).await, "exited with 0");
    assert_eq!(within(worker.ended).await.expect("ends").code, Code::Unavailable);
}

#[tokio::test]
async fn errors_and_parameters_travel() {
    let worker = start();
    let error = worker.load(1, "refuse").await.unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::FailedPrecondition, "no"));
    worker.load(2, "parameters").await.expect("loads");
    let parameters = vec![("a".into(), Parameter::Int64(-5)), ("b".into(), Parameter::String("text".into()))];
    let request = ExecuteRequest { parameters: vec![parameters], ..batch(2, &[b"x"]) };
    let error = within(worker.connection.execute(&request)).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::InvalidArgument, "[('a', -5), ('b', 'text')]"));
    let mut wrong = batch(2, &[b"x"]);
    wrong.inputs[0].datatype = Datatype::Fp32;
    let error = within(worker.connection.execute(&wrong)).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument, "pieces and shape differ: {error}");
    let large = LoadRequest {
        handle: 3,
        backend: "b".repeat(70_000),
        directory: String::new(),
        configuration: serde_json::Value::Null,
        device: String::new(),
    };
    let error = within(worker.connection.load(&large)).await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition, "a packet too large is refused: {error}");
}

#[tokio::test]
async fn a_workers_own_arena_is_lent_and_released() {
    let worker = start();
    worker.load(1, "own").await.expect("loads");
    for value in 0..5u8 {
        let executed = within(worker.connection.execute(&batch(1, &[&[value]]))).await.expect("runs");
        assert_eq!(executed.output_bytes, 1 << 20);
        assert!(executed.outputs[0].data.iter().all(|byte| *byte == value));
        // Dropping the outputs releases the arena; the worker checks that it was.
    }
    let kept = within(worker.connection.execute(&batch(1, b"k".chunks(1).collect::<Vec<_>>().as_slice())))
        .await
        .expect("runs");
    drop(worker);
    assert!(kept.outputs[0].data.iter().all(|byte| *byte == b'k'), "views outlive the worker");
}

#[tokio::test]
async fn an_arena_used_before_its_release_fails_the_batch() {
    let worker = start();
    worker.load(1, "hasty").await.expect("loads");
    let kept = within(worker.connection.execute(&batch(1, &[b"a"]))).await.expect("runs");
    let error = within(worker.connection.execute(&batch(1, &[b"b"]))).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::Internal, "the worker used arena 1 before its release"));
    drop(kept);
    within(worker.connection.execute(&batch(1, &[b"c"]))).await.expect("runs again");
}

#[tokio::test]
async fn a_killed_worker_fails_what_was_pending_at_once() {
    let worker = start();
    worker.load(1, "hang").await.expect("loads");
    let executing = tokio::spawn({
        let connection = worker.connection.clone();
        async move { connection.execute(&batch(1, &[b"x"])).await }
    });
    // Lets the batch be sent before the load that the worker answers from within it.
    tokio::task::yield_now().await;
    worker.load(999, "echo").await.expect("the batch was reached");
    let killed = Instant::now();
    worker.process.kill();
    let error = within(executing).await.expect("joins").unwrap_err();
    assert!(killed.elapsed() < Duration::from_secs(2), "promptly");
    let expected = format!("worker process {} for echo went away", worker.process.pid());
    assert_eq!((error.code, &*error.message), (Code::Unavailable, &*expected));
    assert_eq!(within(worker.process.wait()).await, "was killed by signal 9");
    let error = within(worker.connection.execute(&batch(1, &[b"x"]))).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "and so do later ones");
    assert_eq!(worker.connection.ready().await.map(|ready| ready.pid), Ok(worker.process.pid()));
}

#[tokio::test]
async fn hostile_outputs_fail_their_batch_only() {
    let worker = start();
    worker.load(1, "echo").await.expect("loads");
    let modes = [
        ("beyond", "beyond its arena"),
        ("overflow", "beyond its arena"),
        ("size", "does not need"),
        ("negative", "negative or too large"),
        ("datatype", "unknown datatype 'FP8'"),
        ("misaligned", "not a multiple of 64"),
        ("strings", "only 4 are left"),
        ("unsealed", "not sealed"),
        ("file", "not that of a memfd"),
        ("unknown", "arena 77 is unknown"),
        ("foreign", "not the batch's"),
    ];
    for (handle, (mode, expected)) in (2..).zip(modes) {
        worker.load(handle, mode).await.expect("loads");
        let error = within(worker.connection.execute(&batch(handle, &[b"x"]))).await.unwrap_err();
        assert_eq!(error.code, Code::Internal, "{mode}: {error}");
        assert!(error.message.contains(expected), "{mode}: {error}");
        let executed = within(worker.connection.execute(&batch(1, &[b"fine"]))).await.expect("runs");
        assert_eq!(&executed.outputs[0].data[..], b"fine");
    }
}

#[tokio::test]
async fn a_broken_packet_ends_the_conversation() {
    for (mode, expected) in [("garbage", "cannot be read"), ("unasked", "which nobody asked for")] {
        let worker = start();
        worker.load(1, mode).await.expect("loads");
        let error = within(worker.connection.execute(&batch(1, &[b"x"]))).await.unwrap_err();
        assert_eq!(error.code, Code::Internal, "{error}");
        assert!(error.message.contains(expected) && error.message.contains("for echo"), "{error}");
        assert_eq!(within(worker.ended).await.expect("ends"), error);
    }
}

#[tokio::test]
async fn a_command_that_is_not_there_says_so() {
    let error = WorkerProcess::spawn(&["/no/such/python".to_owned()], &BTreeMap::new(), false).unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("cannot be started"), "{error}");
}

#[tokio::test]
async fn a_worker_outlives_the_thread_that_started_it() {
    let (process, channel) = std::thread::spawn(spawn).join().expect("joins");
    let worker = Worker::new(process, channel);
    worker.load(1, "echo").await.expect("loads");
    let executed = within(worker.connection.execute(&batch(1, &[b"here"]))).await.expect("runs");
    assert_eq!(&executed.outputs[0].data[..], b"here");
}

#[tokio::test]
async fn a_connection_serves_other_threads() {
    let worker = start();
    worker.load(1, "echo").await.expect("loads");
    let threads: Vec<_> = (0..4u8)
        .map(|seed| {
            let connection = worker.connection.clone();
            let (sender, joined) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("builds");
                for _ in 0..50 {
                    let executed = runtime.block_on(connection.execute(&batch(1, &[&[seed; 9]])));
                    assert_eq!(executed.expect("runs").outputs[0].data, vec![seed; 9]);
                }
                let _ = sender.send(());
            });
            joined
        })
        .collect();
    for joined in threads {
        within(joined).await.expect("every thread got its own outputs");
    }
}

#[tokio::test]
async fn a_full_socket_loses_nothing() {
    let worker = start();
    worker.load(1, "echo").await.expect("loads");
    let executing: Vec<_> = (0..500u16)
        .map(|index| {
            let connection = worker.connection.clone();
            tokio::spawn(async move {
                // Long lists of rows make large packets, which fill the socket.
                let pieces = vec![&[1u8][..]; 9000];
                let executed = connection.execute(&batch(1, &pieces)).await.expect("runs");
                (index, executed.outputs[0].data.len())
            })
        })
        .collect();
    for (index, executed) in executing.into_iter().enumerate() {
        let (of, bytes) = within(executed).await.expect("joins");
        assert_eq!((usize::from(of), bytes), (index, 9000));
    }
}

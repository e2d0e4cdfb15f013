//! A network namespace for one test.

/// Runs `test` on a thread in a network namespace of its own; nothing of it outlives the thread. Needs root.
pub(crate) fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes a network namespace: run it as root");
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    assert!(thread.join().is_ok());
}

//! One run in two processes, whose memory is laid out differently.

/// The traces of two processes that run this program's test `prints_a_run`, which writes its trace to where
/// `TRACE_TO` says.
pub(crate) fn traces() -> [String; 2] {
    let dir = tempfile::tempdir().expect("a directory");
    [1_usize, 4_001].map(|length| {
        let path = dir.path().join(length.to_string());
        let status = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "prints_a_run", "--ignored", "--quiet"])
            .env("TRACE_TO", &path)
            // Moves the stack and all that lies on it.
            .env("SOMETHING_LONG", "x".repeat(length))
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.expect("the process ran").success());
        std::fs::read_to_string(path).expect("a trace")
    })
}

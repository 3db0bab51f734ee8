//! This process's own stdin and stdout as streams that never hold up its end.
//!
//! Reading a terminal or a pipe blocks, and a runtime that is dropped waits for its blocking tasks; so each stream has a
//! thread of its own, which dies with the process, and a bounded pipe in memory to it. A parent that does not read stops
//! the writer after [`PIPE_BYTES`].

use std::io::{self, Read, Write};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// What may wait between us and the thread, in bytes.
pub const PIPE_BYTES: usize = 64 * 1024;

/// What comes in on stdin. To be called once, inside a runtime.
///
/// # Errors
/// When no thread can be started.
pub fn stdin() -> io::Result<DuplexStream> {
    let (mut near, far) = duplex(PIPE_BYTES);
    let runtime = Handle::current();
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let (mut stdin, mut block) = (io::stdin().lock(), vec![0; PIPE_BYTES]);
        loop {
            match stdin.read(&mut block) {
                Ok(0) => return,
                Ok(read) => {
                    // Nobody reads any more: so does this thread not.
                    if runtime.block_on(near.write_all(&block[..read])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "stdin cannot be read; it is taken as its end");
                    return;
                }
            }
        }
    })?;
    Ok(far)
}

/// What becomes of stdout when its stream was shut down or has failed.
#[derive(Debug)]
pub struct Written(oneshot::Receiver<io::Result<()>>);

impl Written {
    /// Waits until all is written, or nothing more can be.
    ///
    /// # Errors
    /// Why the rest was not written: `BrokenPipe` when nobody reads.
    pub async fn finished(self) -> io::Result<()> {
        self.0.await.unwrap_or_else(|_gone| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// A stream to stdout, and word of its end. When stdout cannot be written, writing to the stream fails with `BrokenPipe`.
///
/// # Errors
/// When no thread can be started.
pub fn stdout() -> io::Result<(DuplexStream, Written)> {
    let (near, mut far) = duplex(PIPE_BYTES);
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    thread::Builder::new().name("stdout".into()).spawn(move || {
        let mut block = vec![0; PIPE_BYTES];
        let mut copy = || -> io::Result<()> {
            let mut stdout = io::stdout().lock();
            loop {
                match runtime.block_on(far.read(&mut block))? {
                    0 => return Ok(()),
                    read => {
                        stdout.write_all(&block[..read])?;
                        stdout.flush()?;
                    }
                }
            }
        };
        // Nobody may wait for it any more.
        let _unheard = tell.send(copy());
    })?;
    Ok((near, Written(told)))
}

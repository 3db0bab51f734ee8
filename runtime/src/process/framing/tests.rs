//! Frames over in-memory pipes: batches, split reads, limits and ends.

use super::*;
use futures::FutureExt;
use proptest::prelude::*;

fn framed(bodies: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for body in bodies {
        bytes.put_u32(body.len() as u32);
        bytes.put_slice(body);
    }
    bytes
}

#[tokio::test]
async fn many_frames_come_from_one_read() {
    let bytes = framed(&[b"one", b"", b"three"]);
    let mut reader = FrameReader::new(&bytes[..], MAX_FRAME_BYTES);
    assert_eq!(reader.next().await.unwrap().unwrap(), "one");
    assert_eq!(reader.next().await.unwrap().unwrap(), "");
    assert_eq!(reader.next().await.unwrap().unwrap(), "three");
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn an_oversized_frame_is_refused_before_its_body() {
    let mut reader = FrameReader::new(&[0x80, 0, 0, 0][..], MAX_FRAME_BYTES);
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, FrameError::Oversized { len: 0x8000_0000, max: MAX_FRAME_BYTES }), "{error}");
    let mut writer = FrameWriter::new(Vec::new(), 4);
    assert!(matches!(writer.send(b"12345").await, Err(FrameError::Oversized { len: 5, max: 4 })));
    writer.send(b"1234").await.unwrap();
    assert_eq!(writer.into_inner(), framed(&[b"1234"]));
}

#[tokio::test]
async fn an_end_inside_a_frame_is_an_error() {
    for (cut, want) in [(2, 4), (4, 9), (7, 9)] {
        let bytes = framed(&[b"hello"]);
        let mut reader = FrameReader::new(&bytes[..cut], MAX_FRAME_BYTES);
        match reader.next().await {
            Err(FrameError::Truncated { have, want: needed }) => assert_eq!((have, needed), (cut, want)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_begun_frame_has_a_deadline() {
    let (mut far, near) = tokio::io::duplex(1024);
    let mut reader = FrameReader::new(near, 1024).with_deadline(Duration::from_secs(1));
    let idle = tokio::time::timeout(Duration::from_secs(60), reader.next()).await;
    assert!(idle.is_err(), "silence between frames is allowed");
    far.write_all(&framed(&[b"a", b"hello"])[..7]).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), "a");
    assert!(matches!(reader.next().await, Err(FrameError::Stalled { .. })));
}

#[tokio::test]
async fn a_dropped_read_or_write_loses_nothing() {
    let (near, far) = tokio::io::duplex(8);
    let mut reader = FrameReader::new(far, 1024);
    let mut writer = FrameWriter::new(near, 1024);
    assert!(writer.send(b"a frame longer than the pipe").now_or_never().is_none());
    assert!(reader.next().now_or_never().is_none());
    let (sent, read) = tokio::join!(writer.send(b"second"), async {
        (reader.next().await.unwrap().unwrap(), reader.next().await.unwrap().unwrap())
    });
    sent.unwrap();
    assert_eq!(read, ("a frame longer than the pipe".into(), "second".into()));
}

#[tokio::test]
async fn a_gone_reader_is_closed() {
    let (near, far) = tokio::io::duplex(8);
    drop(far);
    assert!(matches!(FrameWriter::new(near, 1024).send(b"x").await, Err(FrameError::Closed)));
}

proptest! {
    #[test]
    fn any_frames_go_round_through_any_pipe(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..20),
        pipe_bytes in 1usize..700,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(async {
            let (near, far) = tokio::io::duplex(pipe_bytes);
            let (mut writer, mut reader) = (FrameWriter::new(near, 600), FrameReader::new(far, 600));
            let writing = async move { writer.send_all(&bodies).await.map(|()| bodies) };
            let reading = async {
                let mut read = Vec::new();
                while let Some(frame) = reader.next().await.unwrap() {
                    read.push(frame.to_vec());
                }
                read
            };
            let (bodies, read) = tokio::join!(writing, reading);
            (bodies.unwrap(), read)
        });
        prop_assert_eq!(read.0, read.1);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = FrameReader::new(&bytes[..], 64);
        while let Some(Ok(Some(frame))) = reader.next().now_or_never() {
            prop_assert!(frame.len() <= 64);
        }
    }
}

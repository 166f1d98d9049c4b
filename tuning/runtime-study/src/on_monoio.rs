//! The server on monoio, with its io_uring driver. Buffers are given away and come back.

use std::io::Result;
use std::net::TcpListener;

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use crate::frame::{ROOM_BYTES, cut, replies};

pub fn serve(listener: TcpListener) -> Result<()> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?;
    runtime.block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(connection(stream));
        }
    })
}

async fn connection(mut stream: TcpStream) -> Result<()> {
    let mut received: Vec<u8> = Vec::with_capacity(ROOM_BYTES);
    loop {
        let filled = received.len();
        let (count, slice) = stream.read(received.slice_mut(filled..ROOM_BYTES)).await;
        received = slice.into_inner();
        if count? == 0 {
            return Ok(());
        }
        let (requests, end) = cut(&received);
        received.copy_within(end.., 0);
        received.truncate(received.len() - end);
        if requests > 0 {
            stream.write_all(replies(requests)).await.0?;
        }
    }
}

//! The server on tokio, with its runtime for one thread.

use std::io::Result;
use std::net::TcpListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frame::{Received, replies};

pub fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(connection(stream));
        }
    })
}

async fn connection(mut stream: TcpStream) -> Result<()> {
    let mut received = Received::new();
    loop {
        let count = stream.read(received.room()).await?;
        if count == 0 {
            return Ok(());
        }
        let requests = received.take(count);
        if requests > 0 {
            stream.write_all(replies(requests)).await?;
        }
    }
}

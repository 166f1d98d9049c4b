//! The server on glommio, one executor.

use std::io::Result;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};

use crate::frame::{Received, replies};

pub fn serve(listener: TcpListener) -> Result<()> {
    // The thread is pinned already.
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make()?;
    executor.run(async {
        // SAFETY: the descriptor is a listening socket that nobody else owns any more.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            let stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(connection(stream)).detach();
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

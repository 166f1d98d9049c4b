//! The client's end of a simulated connection, for tests.

use std::io::{self, Read, Write};

use super::SharedWorld;
use super::network::{ConnectionId, reset_error, take_front};

/// The client's end of a connection to a broker in a [`super::SimWorld`]. Reads and writes
/// never block: they return `WouldBlock` where a socket would wait. Dropping it closes
/// the connection, with a reset when bytes are left unread.
#[derive(Debug)]
pub struct SimClient {
    world: SharedWorld,
    id: ConnectionId,
}

impl SimClient {
    pub(super) fn new(world: SharedWorld, id: ConnectionId) -> Self {
        Self { world, id }
    }

    /// Ends the client's sending; it may go on reading.
    pub fn shut_down_write(&self) {
        let mut world = self.world.lock();
        let connection = world.network.connection(self.id);
        if !connection.client_ended {
            connection.client_ended = true;
            world.notice_readable(self.id);
        }
    }

    /// Cuts the connection: both ends lose what was on its way.
    pub fn reset(&self) {
        self.world.lock().reset(self.id);
    }
}

impl Read for SimClient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world.lock();
        let connection = world.network.connection(self.id);
        if connection.to_client.is_empty() {
            return match (connection.reset, connection.broker_closed) {
                (true, _) => Err(reset_error()),
                (false, true) => Ok(0),
                (false, false) => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let mut done = 0;
        take_front(&mut connection.to_client, into.len(), |part| {
            into[done..done + part.len()].copy_from_slice(part);
            done += part.len();
        });
        world.notice_writable(self.id);
        Ok(done)
    }
}

impl Write for SimClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut world = self.world.lock();
        let bytes_max = world.network.buffer_bytes_max;
        let connection = world.network.connection(self.id);
        if connection.reset {
            return Err(reset_error());
        }
        if connection.broker_closed || connection.client_ended {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let count = bytes.len().min(bytes_max.saturating_sub(connection.to_broker.len()));
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        connection.to_broker.extend(&bytes[..count]);
        world.notice_readable(self.id);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        self.shut_down_write();
        let mut world = self.world.lock();
        let connection = world.network.connection(self.id);
        connection.client_closed = true;
        if !connection.to_client.is_empty() {
            world.reset(self.id);
        }
    }
}

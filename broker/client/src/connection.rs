//! One connection to one broker: a request out, its answer in.

use crate::{ClientError, Options, Result, frame};
use millrace_wire::messages::ApiVersionsRequest;
use millrace_wire::{ApiKey, Request, Writer};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often a wait looks at the caller's flag.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// More than any answer to what is asked here.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The versions a broker offers, by API key.
#[derive(Clone, Debug, Default)]
pub struct Versions(pub BTreeMap<i16, RangeInclusive<i16>>);

impl Versions {
    /// The highest version of an API within `ours` that the broker also speaks.
    pub fn pick(&self, api_key: i16, ours: &RangeInclusive<i16>) -> Option<i16> {
        let theirs = self.0.get(&api_key)?;
        let highest = *theirs.end().min(ours.end());
        (highest >= *theirs.start() && highest >= *ours.start()).then_some(highest)
    }
}

/// Bytes to and from a broker.
pub trait Stream: Read + Write + Debug + Send {}

impl<T: Read + Write + Debug + Send> Stream for T {}

/// What is done to a new connection before its first request: TLS, SASL.
pub trait Secure: Debug + Send + Sync {
    /// Makes the stream of a socket that was connected to `host`.
    fn secure(&self, socket: TcpStream, host: &str) -> io::Result<Box<dyn Stream>>;
}

/// An open connection whose broker's versions are known.
#[derive(Debug)]
pub struct Connection {
    stream: Box<dyn Stream>,
    address: String,
    versions: Versions,
    writer: Writer,
    answer: Vec<u8>,
    correlation_id: i32,
    is_broken: bool,
}

impl Connection {
    /// Connects and asks for the versions.
    pub fn open(address: &str, options: &Options) -> Result<Self> {
        let stream = connect(address, options).map_err(|source| ClientError::Unreachable {
            address: address.to_owned(),
            named_by: None,
            source,
        })?;
        let mut connection = Self {
            stream,
            address: address.to_owned(),
            versions: Versions(BTreeMap::from([(ApiKey::ApiVersions as i16, 0..=0)])),
            writer: Writer::new(),
            answer: Vec::new(),
            correlation_id: 0,
            is_broken: false,
        };
        let request = ApiVersionsRequest::default();
        let answer = connection.call(&request, 0..=0, options, options.timeout)?;
        let offers = answer.api_keys.iter().map(|o| (o.api_key, o.min_version..=o.max_version));
        let versions = Versions(offers.collect());
        connection.versions = versions;
        Ok(connection)
    }

    /// What the broker offers.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Whether it can be used no longer.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Sends a request in the highest version of `ours` that the broker speaks; its answer.
    pub fn call<'q, Q: Request<'q>>(
        &mut self,
        request: &Q,
        ours: RangeInclusive<i16>,
        options: &Options,
        timeout: Duration,
    ) -> Result<Q::Response<'_>> {
        let version = self.send(request, ours, options)?;
        let read = self.receive(options, timeout);
        self.note(Q::NAME, read, options)?;
        let (correlation_id, answer) = frame::decode(&self.answer, version)?;
        if correlation_id != self.correlation_id {
            self.is_broken = true;
            let problem = format!("the answer is for request {correlation_id}");
            return Err(ClientError::Malformed { what: Q::NAME, problem });
        }
        Ok(answer)
    }

    /// Sends a request and waits for nothing; the version it was sent in.
    pub fn send<'q, Q: Request<'q>>(
        &mut self,
        request: &Q,
        ours: RangeInclusive<i16>,
        options: &Options,
    ) -> Result<i16> {
        let version =
            self.versions.pick(Q::API_KEY, &ours).ok_or_else(|| ClientError::Version {
                address: self.address.clone(),
                what: frame::key::<Q>().name(),
                theirs: self.versions.0.get(&Q::API_KEY).cloned(),
                ours,
            })?;
        self.correlation_id += 1;
        let (id, client_id) = (self.correlation_id, &options.client_id);
        frame::encode(&mut self.writer, request, version, id, client_id)?;
        let written = self.stream.write_all(self.writer.bytes()).and_then(|()| self.stream.flush());
        self.note(Q::NAME, written, options)?;
        Ok(version)
    }

    /// After an error the connection is of no use: the next answer may be that of this request.
    fn note(
        &mut self,
        what: &'static str,
        result: io::Result<()>,
        options: &Options,
    ) -> Result<()> {
        result.map_err(|source| {
            self.is_broken = true;
            match source.kind() == ErrorKind::Interrupted && options.is_stopped() {
                true => ClientError::Stopped,
                false => ClientError::NoAnswer { address: self.address.clone(), what, source },
            }
        })
    }

    fn receive(&mut self, options: &Options, timeout: Duration) -> io::Result<()> {
        let end = Instant::now() + timeout;
        let mut size = [0; 4];
        fill(&mut *self.stream, &mut size, options, end)?;
        let size = usize::try_from(i32::from_be_bytes(size))
            .ok()
            .filter(|&size| size <= ANSWER_BYTES_MAX)
            .ok_or_else(|| io::Error::other("what it sends is not the Kafka protocol"))?;
        self.answer.resize(size, 0);
        fill(&mut *self.stream, &mut self.answer, options, end)
    }
}

fn connect(address: &str, options: &Options) -> io::Result<Box<dyn Stream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let mut failure = io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(CONNECT_WITHIN))?;
                stream.set_write_timeout(Some(Duration::from_secs(30)))?;
                let socket = stream.try_clone()?;
                let stream = match &options.secure {
                    Some(secure) => secure.secure(stream, host)?,
                    None => Box::new(stream),
                };
                socket.set_read_timeout(Some(LOOK_EVERY))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn fill(
    stream: &mut dyn Stream,
    mut rest: &mut [u8],
    options: &Options,
    end: Instant,
) -> io::Result<()> {
    while !rest.is_empty() {
        match stream.read(rest) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "connection closed")),
            Ok(count) => rest = &mut rest[count..],
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
        if options.stop.load(Ordering::Relaxed) && !rest.is_empty() {
            return Err(ErrorKind::Interrupted.into());
        }
        if Instant::now() > end {
            return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_highest_version_both_speak() {
        let versions = Versions(BTreeMap::from([(0, 3..=13), (1, 4..=11), (3, 13..=14)]));
        for (key, ours, expected) in [
            (0, 3..=8, Some(8)),
            (1, 4..=12, Some(11)),
            (3, 4..=12, None),
            (0, 0..=2, None),
            (19, 2..=6, None),
        ] {
            assert_eq!(versions.pick(key, &ours), expected, "{key} {ours:?}");
        }
    }
}

//! What happens on a new connection before its first request: TLS by rustls, then SASL.

mod scram;

use crate::args::{AccessArgs, Mechanism};
use crate::cluster::CLIENT_ID;
use millrace_client::{Secure, Stream, frame};
use millrace_wire::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use millrace_wire::{ErrorCode, Request, Writer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use scram::Scram;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;

/// Holds the password.
const PASSWORD: &str = "LOADGEN_PASSWORD";
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How connections are made; plain text by default.
#[derive(Clone, Debug, Default)]
pub struct Access(Option<Arc<Security>>);

/// A connection that is ready for requests.
#[derive(Debug)]
pub enum Opened {
    /// In plain text.
    Plain(TcpStream),
    /// Over TLS, its handshake done.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

struct Security {
    tls: Option<(Arc<ClientConfig>, Option<String>)>,
    login: Option<Login>,
}

struct Login {
    mechanism: Mechanism,
    user: String,
    password: String,
}

// The password stays out of whatever is printed.
impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mechanism = self.login.as_ref().map(|login| login.mechanism);
        f.debug_struct("Security").field("mechanism", &mechanism).finish_non_exhaustive()
    }
}

impl Access {
    /// From the options and the environment; what is wrong with them in one sentence.
    pub fn of(args: &AccessArgs) -> Result<Self, String> {
        let password =
            || std::env::var(PASSWORD).map_err(|_| format!("--sasl: {PASSWORD} holds no password"));
        let login = match (args.sasl, &args.sasl_user) {
            (Some(mechanism), Some(user)) => Some((mechanism, user.clone(), password()?)),
            _ => None,
        };
        Self::new(args, login)
    }

    /// The same with a login of mechanism, user and password.
    pub fn new(
        args: &AccessArgs,
        login: Option<(Mechanism, String, String)>,
    ) -> Result<Self, String> {
        let tls = match &args.tls_ca {
            Some(path) => {
                let wrong =
                    |error: &dyn std::fmt::Display| format!("--tls-ca {}: {error}", path.display());
                let mut roots = RootCertStore::empty();
                for ca in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                    let ca = ca.map_err(|error| wrong(&error))?;
                    roots.add(ca).map_err(|error| wrong(&error))?;
                }
                if roots.is_empty() {
                    return Err(wrong(&"holds no certificate"));
                }
                let config = ClientConfig::builder().with_root_certificates(roots);
                Some((Arc::new(config.with_no_client_auth()), args.tls_name.clone()))
            }
            None => None,
        };
        let login = login.map(|(mechanism, user, password)| Login { mechanism, user, password });
        let is_plain = tls.is_none() && login.is_none();
        Ok(Self((!is_plain).then(|| Arc::new(Security { tls, login }))))
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.as_ref().is_some_and(|security| security.tls.is_some())
    }

    /// For connections of the client crate.
    pub fn secure(&self) -> Option<Arc<dyn Secure>> {
        self.0.clone().map(|security| security as Arc<dyn Secure>)
    }

    /// Makes a connected, blocking socket ready for requests.
    pub fn open(&self, socket: TcpStream, host: &str) -> io::Result<Opened> {
        match &self.0 {
            Some(security) => security.open(socket, host),
            None => Ok(Opened::Plain(socket)),
        }
    }
}

impl Secure for Security {
    fn secure(&self, socket: TcpStream, host: &str) -> io::Result<Box<dyn Stream>> {
        Ok(match self.open(socket, host)? {
            Opened::Plain(socket) => Box::new(socket),
            Opened::Tls(stream) => stream,
        })
    }
}

impl Security {
    fn open(&self, mut socket: TcpStream, host: &str) -> io::Result<Opened> {
        let Some((config, name)) = &self.tls else {
            self.log_in(&mut socket)?;
            return Ok(Opened::Plain(socket));
        };
        let name = name.clone().unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(config), name);
        let mut stream = StreamOwned::new(connection.map_err(io::Error::other)?, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| tls_failed(&error))?;
        }
        self.log_in(&mut stream)?;
        Ok(Opened::Tls(Box::new(stream)))
    }

    fn log_in(&self, stream: &mut dyn Stream) -> io::Result<()> {
        let Some(Login { mechanism, user, password }) = &self.login else { return Ok(()) };
        let mechanism_name = mechanism.name();
        let request = SaslHandshakeRequest { mechanism: mechanism_name };
        let answer = ask(stream, &request, 1)?;
        let (_, answer) = read(&request, &answer, 1)?;
        if answer.error_code != 0 {
            let offered: Vec<&str> = answer.mechanisms.iter().collect();
            let offered = offered.join(", ");
            return Err(refused(format!("{mechanism_name} is not offered, but {offered}")));
        }
        let sha = match mechanism {
            Mechanism::Plain => {
                let message = format!("\0{user}\0{password}");
                return authenticate(stream, message.as_bytes()).map(|_| ());
            }
            Mechanism::ScramSha256 => scram::SHA_256,
            Mechanism::ScramSha512 => scram::SHA_512,
        };
        let nonce: String = (0..24).map(|_| fastrand::alphanumeric()).collect();
        let mut scram = Scram::new(sha, user, password, &nonce);
        let answer = authenticate(stream, scram.first().as_bytes())?;
        let proof = scram.answer(&text(answer)?).map_err(refused)?;
        let answer = authenticate(stream, proof.as_bytes())?;
        scram.verify(&text(answer)?).map_err(refused)
    }
}

fn authenticate(stream: &mut dyn Stream, message: &[u8]) -> io::Result<Vec<u8>> {
    let request = SaslAuthenticateRequest { auth_bytes: message, ..Default::default() };
    let answer = ask(stream, &request, 0)?;
    let (_, answer) = read(&request, &answer, 0)?;
    match ErrorCode(answer.error_code) {
        ErrorCode::NONE => Ok(answer.auth_bytes.to_vec()),
        code => Err(refused(format!("{code}: {}", answer.error_message.unwrap_or_default()))),
    }
}

/// One request, and the frame of its answer.
fn ask<'q, Q: Request<'q>>(
    stream: &mut dyn Stream,
    request: &Q,
    version: i16,
) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new();
    frame::encode(&mut writer, request, version, 0, CLIENT_ID).map_err(io::Error::other)?;
    stream.write_all(writer.bytes())?;
    stream.flush()?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => refused("the broker hung up: is it a port with SASL?"),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => refused("no answer in time"),
        _ => error,
    })?;
    let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if size > ANSWER_BYTES_MAX {
        return Err(io::Error::other("what it sends is not the Kafka protocol"));
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The answer to a request of this type.
fn read<'q, 'r, Q: Request<'q>>(
    _of: &Q,
    answer: &'r [u8],
    version: i16,
) -> io::Result<(i32, Q::Response<'r>)> {
    frame::decode(answer, version).map_err(io::Error::other)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn tls_failed(error: &io::Error) -> io::Error {
    let text = error.to_string();
    let more = match text.contains("CaUsedAsEndEntity") {
        true => {
            "; the broker shows the certificate of an authority itself, which --tls-ca may hold \
                 but no broker may have: let it sign one for the broker"
        }
        false => match error.kind() {
            ErrorKind::UnexpectedEof => "; is it a port with TLS?",
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ": no answer in time; is it a port with TLS?"
            }
            _ => "",
        },
    };
    io::Error::new(error.kind(), format!("TLS: {text}{more}"))
}

fn refused(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("SASL: {what}"))
}

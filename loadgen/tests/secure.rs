//! TLS and SASL, against a door in front of a plain broker: it speaks TLS, lets in who knows the
//! password, and passes bytes on. The server's side of SCRAM is written down here a second time.

mod fake;
mod harness;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fake::{Fake, Fault};
use loadgen::args::{AccessArgs, Mechanism};
use loadgen::cluster::Cluster;
use loadgen::secure::Access;
use millrace_wire::Writer;
use ring::{digest, hmac, pbkdf2};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const USER: &str = "ann,=";
const PASSWORD: &str = "pencil";
const SALT: &[u8] = b"salty";
const ROUNDS: u32 = 4096;

trait Both: Read + Write + Debug + Send {}
impl<T: Read + Write + Debug + Send> Both for T {}

fn tls_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Listens in front of a broker; `asks` is the mechanism it insists on.
fn door(has_tls: bool, asks: Option<Mechanism>) -> (SocketAddr, Fake) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let fake = Fake::advertised_as(Some(address), Fault::None);
    let upstream = fake.address();
    let chain = CertificateDer::pem_file_iter(tls_file("broker.pem")).expect("a file of the tests");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(tls_file("broker.key")).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let config = Arc::new(config.expect("they belong together"));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (config, upstream) = (Arc::clone(&config), upstream.clone());
            thread::spawn(move || {
                client.set_nodelay(true).expect("a socket");
                let socket = client.try_clone().expect("a descriptor is free");
                let mut client: Box<dyn Both> = match has_tls {
                    true => {
                        let connection = ServerConnection::new(config).expect("sound settings");
                        Box::new(StreamOwned::new(connection, client))
                    }
                    false => Box::new(client),
                };
                // A client that is refused goes away: nothing else to do with its errors.
                let _ = admit(&mut *client, asks).and_then(|()| pass_on(client, socket, &upstream));
            });
        }
    });
    (address, fake)
}

/// Passes bytes both ways on one thread, as a TLS stream cannot be split.
fn pass_on(mut client: Box<dyn Both>, socket: TcpStream, upstream: &str) -> io::Result<()> {
    let mut broker = TcpStream::connect(upstream)?;
    for socket in [&socket, &broker] {
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    }
    let mut bytes = vec![0; 64 << 10];
    loop {
        copy(&mut *client, &mut broker, &mut bytes)?;
        copy(&mut broker, &mut *client, &mut bytes)?;
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write, bytes: &mut [u8]) -> io::Result<()> {
    match from.read(bytes) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => to.write_all(&bytes[..count]).and_then(|()| to.flush()),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
            _ => Err(error),
        },
    }
}

/// A request without its size: API key, correlation id, and what follows the client id.
fn request(client: &mut dyn Both) -> io::Result<(i16, [u8; 4], Vec<u8>)> {
    let mut size = [0; 4];
    client.read_exact(&mut size)?;
    let mut frame = vec![0; u32::from_be_bytes(size) as usize];
    client.read_exact(&mut frame)?;
    let id = usize::from(u16::from_be_bytes([frame[8], frame[9]]));
    let key = i16::from_be_bytes([frame[0], frame[1]]);
    Ok((key, frame[4..8].try_into().expect("4 bytes"), frame[10 + id..].to_vec()))
}

fn respond(client: &mut dyn Both, correlation_id: [u8; 4], body: &[u8]) -> io::Result<()> {
    let frame = [&(body.len() as u32 + 4).to_be_bytes()[..], &correlation_id, body].concat();
    client.write_all(&frame)?;
    client.flush()
}

/// The body of a SaslAuthenticate answer, version 0.
fn outcome(code: i16, message: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.i16(code);
    // No words.
    w.i16(-1);
    w.i32(message.len() as i32);
    w.raw(message);
    w.into_vec()
}

fn admit(client: &mut dyn Both, asks: Option<Mechanism>) -> io::Result<()> {
    let Some(mechanism) = asks else { return Ok(()) };
    let (key, id, body) = request(client)?;
    assert_eq!(key, 17, "SaslHandshake comes first");
    let is_ours = &body[2..] == mechanism.name().as_bytes();
    let mut w = Writer::new();
    w.i16(if is_ours { 0 } else { 33 });
    w.i32(1);
    w.i16(mechanism.name().len() as i16);
    w.raw(mechanism.name().as_bytes());
    respond(client, id, w.bytes())?;
    if !is_ours {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let (_, id, first) = request(client)?;
    // Behind their length.
    let first = &first[4..];
    let (is_known, answer) = match mechanism {
        Mechanism::Plain => (first == format!("\0{USER}\0{PASSWORD}").as_bytes(), Vec::new()),
        _ => {
            let first = String::from_utf8(first.to_vec()).expect("text");
            let bare = first.strip_prefix("n,,").expect("no channel binding");
            let nonce = bare.strip_prefix("n=ann=2C=3D,r=").expect("the user, escaped");
            let challenge = format!("r={nonce}ours,s={},i={ROUNDS}", STANDARD.encode(SALT));
            respond(client, id, &outcome(0, challenge.as_bytes()))?;
            let (_, id, proof) = request(client)?;
            let proof = String::from_utf8(proof[4..].to_vec()).expect("text");
            let (is_known, signature) = judge(mechanism, bare, &challenge, &proof);
            let last = format!("v={}", STANDARD.encode(signature));
            respond(client, id, &outcome(if is_known { 0 } else { 58 }, last.as_bytes()))?;
            return if is_known { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) };
        }
    };
    respond(client, id, &outcome(if is_known { 0 } else { 58 }, &answer))?;
    if is_known { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
}

/// The server's side of RFC 5802: whether the proof is right, and our own.
fn judge(mechanism: Mechanism, bare: &str, challenge: &str, proof: &str) -> (bool, Vec<u8>) {
    let (mac, sha, derive) = match mechanism {
        Mechanism::ScramSha512 => (hmac::HMAC_SHA512, &digest::SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
        _ => (hmac::HMAC_SHA256, &digest::SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
    };
    let sign =
        |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(mac, key), text).as_ref().to_vec();
    let mut salted = vec![0; sha.output_len()];
    let rounds = NonZeroU32::new(ROUNDS).expect("not 0");
    pbkdf2::derive(derive, rounds, SALT, PASSWORD.as_bytes(), &mut salted);
    let (unproven, proof) = proof.rsplit_once(",p=").expect("a proof");
    let said = format!("{bare},{challenge},{unproven}");
    let stored = digest::digest(sha, &sign(&salted, b"Client Key")).as_ref().to_vec();
    let proof = STANDARD.decode(proof).expect("base64");
    let mask = sign(&stored, said.as_bytes());
    let key: Vec<u8> = proof.iter().zip(&mask).map(|(proof, mask)| proof ^ mask).collect();
    let is_known = digest::digest(sha, &key).as_ref() == stored;
    (is_known, sign(&sign(&salted, b"Server Key"), said.as_bytes()))
}

fn access(has_tls: bool, login: Option<(Mechanism, &str)>, name: Option<&str>) -> Access {
    let args = AccessArgs {
        tls_ca: has_tls.then(|| tls_file("ca.pem")),
        tls_name: name.map(str::to_owned),
        ..Default::default()
    };
    let login =
        login.map(|(mechanism, password)| (mechanism, USER.to_owned(), password.to_owned()));
    Access::new(&args, login).expect("sound options")
}

#[test]
fn whoever_has_the_password_is_let_in_and_others_are_told_why_not() {
    use Mechanism::{Plain, ScramSha256, ScramSha512};
    type Row<'a> = (bool, Option<Mechanism>, bool, Option<(Mechanism, &'a str)>, &'a str);
    let rows: [Row<'_>; 9] = [
        // The door: TLS, mechanism; we: TLS, mechanism and password; what comes of it.
        (true, None, true, None, ""),
        (true, Some(Plain), true, Some((Plain, PASSWORD)), ""),
        (true, Some(ScramSha256), true, Some((ScramSha256, PASSWORD)), ""),
        (false, Some(ScramSha512), false, Some((ScramSha512, PASSWORD)), ""),
        (true, Some(Plain), true, Some((Plain, "wrong")), "SASL_AUTHENTICATION_FAILED"),
        (true, Some(ScramSha256), true, Some((ScramSha256, "wrong")), "SASL_AUTHENTICATION_FAILED"),
        (false, Some(ScramSha512), false, Some((Plain, "x")), "not offered, but SCRAM-SHA-512"),
        (true, None, false, None, "127.0.0.1"),
        (false, None, true, None, "127.0.0.1"),
    ];
    for (has_tls, asks, we_have_tls, login, words) in rows {
        let (address, _fake) = door(has_tls, asks);
        let reached = Cluster::reach(&address.to_string(), access(we_have_tls, login, None));
        match reached {
            Ok(_) => assert!(words.is_empty(), "{words}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!words.is_empty() && error.contains(words), "{asks:?} {login:?}: {error}");
                assert!(!error.contains("wrong"), "no password in messages: {error}");
            }
        }
    }
}

#[test]
fn a_certificate_for_another_name_is_refused_unless_that_name_is_expected() {
    let (address, _fake) = door(true, None);
    for (name, is_taken) in [(None, true), (Some("localhost"), true), (Some("elsewhere"), false)] {
        let reached = Cluster::reach(&address.to_string(), access(true, None, name));
        assert_eq!(reached.is_ok(), is_taken, "{name:?}: {reached:?}");
    }
    let missing = AccessArgs { tls_ca: Some(tls_file("none.pem")), ..Default::default() };
    let error = Access::new(&missing, None).expect_err("no such file");
    assert!(error.starts_with("--tls-ca") && error.contains("none.pem"), "{error}");
    let empty = AccessArgs { tls_ca: Some(tls_file("broker.key")), ..Default::default() };
    assert!(Access::new(&empty, None).expect_err("no certificate").contains("no certificate"));
}

/// The whole program over TLS and SCRAM: every record arrives, and no report holds the password.
#[test]
fn a_load_over_tls_and_scram_is_verified_like_any_other() {
    let (address, fake) = door(true, Some(Mechanism::ScramSha256));
    let folder = harness::Folder::new();
    let done = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--bootstrap", &address.to_string(), "--tls-ca"])
        .arg(tls_file("ca.pem"))
        .args(["--sasl", "scram-sha-256", "--sasl-user", USER, "--connections", "2"])
        // Larger than what TLS takes at once.
        .args(["--record-bytes", "2000", "--batch-records", "100", "--records", "5000"])
        .args(["--partitions", "2", "--warmup", "0s", "--duration", "60s", "--out"])
        .arg(&folder.0)
        .env("LOADGEN_PASSWORD", PASSWORD)
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(matches!(done.status.code(), Some(0 | 2)), "{said}");
    let text = std::fs::read_to_string(folder.0.join("report.json")).expect("it was written");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&report["records_sent"], &report["records_verified"], &report["errors"]),
        (&5000.into(), &5000.into(), &0.into()),
        "{:?}",
        report["invalid_reasons"]
    );
    assert_eq!(fake.counts().records, 5_000);
    for file in std::fs::read_dir(&folder.0).expect("a folder").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("text");
        assert!(!text.contains(PASSWORD), "{:?}", file.file_name());
    }
    let refused = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--bootstrap", &address.to_string(), "--sasl", "plain", "--sasl-user", "x"])
        .env_remove("LOADGEN_PASSWORD")
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("LOADGEN_PASSWORD"), "{said}");
}

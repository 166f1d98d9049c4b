//! The client's side of SCRAM (RFC 5802), without channel binding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

/// The hash a mechanism is built on.
#[derive(Clone, Copy)]
pub(super) struct Sha {
    hmac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

pub(super) const SHA_256: Sha =
    Sha { hmac: hmac::HMAC_SHA256, digest: &digest::SHA256, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256 };
pub(super) const SHA_512: Sha =
    Sha { hmac: hmac::HMAC_SHA512, digest: &digest::SHA512, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512 };

/// More rounds than any server asks for: a wrong one shall not keep us for minutes.
const ROUNDS_MAX: u32 = 1_000_000;

/// An exchange: `first`, `answer`, `verify`.
pub(super) struct Scram<'a> {
    sha: Sha,
    password: &'a str,
    nonce: &'a str,
    /// The first message without its head.
    bare: String,
    /// What the server must prove that it knows.
    signature: Vec<u8>,
}

impl<'a> Scram<'a> {
    pub(super) fn new(sha: Sha, user: &str, password: &'a str, nonce: &'a str) -> Self {
        // "=" and "," have meanings of their own.
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        Self { sha, password, nonce, bare, signature: Vec::new() }
    }

    /// The client's first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The client's second message, to the server's first.
    pub(super) fn answer(&mut self, challenge: &str) -> Result<String, String> {
        let nonce = field(challenge, "r=")?;
        if !nonce.starts_with(self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce does not continue ours".to_owned());
        }
        let salt = STANDARD.decode(field(challenge, "s=")?).map_err(|e| format!("salt: {e}"))?;
        let rounds =
            field(challenge, "i=")?.parse().ok().filter(|n: &NonZeroU32| n.get() <= ROUNDS_MAX);
        let rounds = rounds.ok_or("the number of rounds makes no sense")?;
        let mut salted = vec![0; self.sha.digest.output_len()];
        pbkdf2::derive(self.sha.pbkdf2, rounds, &salt, self.password.as_bytes(), &mut salted);
        let unproven = format!("c=biws,r={nonce}");
        let said = format!("{},{challenge},{unproven}", self.bare);
        let client_key = self.sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.sha.digest, &client_key);
        let signature = self.sign(stored_key.as_ref(), said.as_bytes());
        let proof: Vec<u8> =
            client_key.iter().zip(&signature).map(|(key, mask)| key ^ mask).collect();
        self.signature = self.sign(&self.sign(&salted, b"Server Key"), said.as_bytes());
        Ok(format!("{unproven},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server's last message proves that it knows the password.
    pub(super) fn verify(&self, last: &str) -> Result<(), String> {
        match STANDARD.decode(field(last, "v=")?).is_ok_and(|given| given == self.signature) {
            true => Ok(()),
            false => Err("the server does not know the password".to_owned()),
        }
    }

    fn sign(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.sha.hmac, key), message).as_ref().to_vec()
    }
}

fn field<'m>(message: &'m str, name: &str) -> Result<&'m str, String> {
    let found = message.split(',').find_map(|part| part.strip_prefix(name));
    found.ok_or_else(|| format!("'{message}' has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3.
    #[test]
    fn says_what_the_rfc_says() {
        let mut scram = Scram::new(SHA_256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answer = scram.answer(challenge).expect("a sound challenge");
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(answer, expected);
        assert_eq!(scram.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        assert!(scram.verify("v=AAAA").is_err() && scram.verify("e=invalid-proof").is_err());
    }

    #[test]
    fn a_challenge_that_makes_no_sense_is_refused() {
        for challenge in [
            "",
            "r=abc,s=AA==,i=1",
            "r=other1,s=AA==,i=1",
            "r=abcd,s=AA==,i=0",
            "r=abcd,s=?,i=1",
            "r=abcd,s=AA==,i=4000000000",
        ] {
            let mut scram = Scram::new(SHA_512, "u,=", "p", "abc");
            assert_eq!(scram.first(), "n,,n=u=2C=3D,r=abc");
            assert!(scram.answer(challenge).is_err(), "{challenge}");
        }
    }
}

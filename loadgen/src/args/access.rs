//! Options of how a broker is reached: TLS and SASL.

use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

/// How brokers are reached; plain text by default.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct AccessArgs {
    /// Speak TLS, and trust brokers whose certificates these sign: a file of PEM certificates
    /// [default: plain text]
    #[arg(long, help_heading = "Broker")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// Name that the brokers' certificates are for [default: the host of each]
    #[arg(long, requires = "tls_ca", help_heading = "Broker")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    /// Log in by this SASL mechanism; the password comes from the environment, LOADGEN_PASSWORD
    /// [default: no login]
    #[arg(long, requires = "sasl_user", help_heading = "Broker")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Mechanism>,
    /// User to log in as; --sasl needs it [default: none]
    #[arg(long, requires = "sasl", help_heading = "Broker")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl_user: Option<String>,
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The password itself: only over TLS.
    Plain,
    /// RFC 7677.
    #[value(name = "scram-sha-256")]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[value(name = "scram-sha-512")]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl Mechanism {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

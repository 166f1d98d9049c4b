//! The Kafka protocol: bytes to messages and back. Pure: no I/O, no clock, no unsafe.

//! Tests of the real `millrace` program from outside, over its port.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests report what they skip")]

mod bad_input;
mod commands;
mod data_folders;
mod differential;
mod fetch_sessions;
mod foreign_clients;
mod intake;
mod landing;
mod process;
mod produce;
mod programs;
mod raw;
mod start_up;
mod storage;
mod topic_settings;
mod tutorials;

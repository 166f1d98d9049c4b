//! Consumer groups and committed offsets as pure state machines: no disk, no socket, no clock.

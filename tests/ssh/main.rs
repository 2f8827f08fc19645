//! The SSH tier: the transport against a real OpenSSH server, which every test starts and ends for itself on loopback.
//!
//! It needs `sshd` and `ssh-keygen` (Debian: openssh-server, openssh-client); without them it fails and says so. Tests of
//! `sudo` need root besides, since they make users in a mount namespace, and tests of a host's death a process namespace;
//! without root they say loudly that they are skipped. What is awaited is a condition with a deadline.

mod bounds;
mod faults;
mod hostile;
mod jump;
mod login;
mod server;
mod sudo;
mod trust;
mod world;

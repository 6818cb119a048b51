//! SSH: hosts.txt, host keys, authentication and command channels.

//! Name lookups of a static executable. glibc would load the plug-ins that `/etc/nsswitch.conf`
//! names at run time; they fit only the glibc they were built with, so a static executable can
//! crash on a foreign machine. The two sources that are built in are enough here.

use std::ffi::{CStr, c_char, c_int};

#[allow(unsafe_code, reason = "glibc offers this to C only")]
unsafe extern "C" {
    /// From glibc's `<nss.h>`: sets the sources of a database, instead of its configuration.
    fn __nss_configure_lookup(database: *const c_char, sources: *const c_char) -> c_int;
}

/// Databases and the built-in sources that answer for them.
const LOOKUPS: [(&CStr, &CStr); 3] = [
    (c"hosts", c"files dns"),
    (c"passwd", c"files"),
    (c"group", c"files"),
];

/// Keeps lookups to what is built in. Call it first in `main`, before there are threads.
pub fn use_built_in_sources() {
    for (database, sources) in LOOKUPS {
        #[allow(unsafe_code, reason = "as above")]
        // SAFETY: both are NUL-terminated and live for ever; no other thread runs yet.
        let _only_fails_for_unknown_names =
            unsafe { __nss_configure_lookup(database.as_ptr(), sources.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs as _;

    #[test]
    fn names_still_resolve() {
        super::use_built_in_sources();
        let mut found = ("localhost", 1).to_socket_addrs().unwrap();
        assert!(found.all(|address| address.ip().is_loopback()));
    }
}

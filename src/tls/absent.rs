//! What stands for encryption in a program that was built without it: types that can not be made.

use super::{ClientFiles, TlsError};
use std::convert::Infallible;
use std::io::{self, IoSlice, Read, Write};
use std::net::IpAddr;

/// Never there.
#[derive(Clone, Debug)]
pub struct ClientTls(Infallible);

/// Never there.
pub struct ClientSession(Infallible);

fn missing(path: &std::path::Path) -> TlsError {
    TlsError { path: path.to_owned(), problem: "this program was built without TLS (feature tls)".to_owned() }
}

impl ClientTls {
    /// # Errors
    /// Always.
    pub fn load(files: &ClientFiles) -> Result<Self, TlsError> {
        Err(missing(&files.ca))
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn session(&self, _: IpAddr) -> io::Result<ClientSession> {
        match self.0 {}
    }
}

/// What a session can do, for one that is never there.
macro_rules! never_a_session {
    ($name:ty) => {
        impl $name {
            /// Never called.
            ///
            /// # Errors
            /// None.
            pub fn read<S: Read + Write>(&mut self, _: &mut S, _: &mut [u8]) -> io::Result<usize> {
                match self.0 {}
            }

            /// Never called.
            pub fn take_record(&mut self, _: &mut [u8]) -> usize {
                match self.0 {}
            }

            /// Never called.
            ///
            /// # Errors
            /// None.
            pub fn write<S: Read + Write>(&mut self, _: &mut S, _: &[IoSlice<'_>]) -> io::Result<usize> {
                match self.0 {}
            }

            /// Never called.
            #[must_use]
            pub fn is_handshaking(&self) -> bool {
                match self.0 {}
            }

            /// Never called.
            #[must_use]
            pub fn has_emptied(&self) -> bool {
                match self.0 {}
            }
        }
    };
}

never_a_session!(ClientSession);

impl ClientSession {
    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn shake_hands<S: Read + Write>(&mut self, _: &mut S) -> io::Result<()> {
        match self.0 {}
    }
}

#[cfg(feature = "daemon")]
pub use daemon::{Encrypted, ServerSession, ServerTls};

#[cfg(feature = "daemon")]
mod daemon {
    use super::super::{ServerFiles, TlsError};
    use super::{Infallible, IoSlice, Read, Write, io, missing};
    use crate::telemetry::TlsRefusal;
    use tokio::net::TcpStream;

    /// Never there.
    #[derive(Clone)]
    pub struct ServerTls(Infallible);

    /// Never there.
    pub struct ServerSession(Infallible);

    /// Never made.
    pub type Encrypted = TcpStream;

    never_a_session!(ServerSession);

    impl ServerTls {
        /// # Errors
        /// Always.
        pub fn load(files: &ServerFiles) -> Result<Self, TlsError> {
            Err(missing(&files.certificate))
        }

        /// Never called.
        ///
        /// # Errors
        /// None.
        pub fn reload(&self) -> Result<(), TlsError> {
            match self.0 {}
        }

        /// Never called.
        ///
        /// # Errors
        /// None.
        pub fn session(&self) -> io::Result<ServerSession> {
            match self.0 {}
        }

        /// Never called.
        ///
        /// # Errors
        /// None.
        pub async fn accept(&self, _: TcpStream) -> Result<Encrypted, TlsRefusal> {
            match self.0 {}
        }
    }

    impl ServerSession {
        /// Never called.
        #[must_use]
        pub fn client_name(&self) -> Option<String> {
            match self.0 {}
        }

        /// Never called.
        #[must_use]
        pub fn refusal(&self) -> Option<TlsRefusal> {
            match self.0 {}
        }
    }
}

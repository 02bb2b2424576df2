//! nginx as a file store: each tile a PUT (WebDAV module) of a new file. It never syncs.

use crate::contender::{Client, Contender, Level, Running};
use crate::server::{Server, command, free_address, version_of};
use crate::wire::Wire;
use anyhow::{Context, ensure};
use std::path::Path;

const PROGRAM: &str = "nginx";

pub struct Nginx;

impl Contender for Nginx {
    fn name(&self) -> &'static str {
        PROGRAM
    }

    fn level(&self) -> Level {
        Level::Unsynced
    }

    fn durability(&self) -> &'static str {
        "WebDAV PUT, never syncs: page cache"
    }

    fn settings(&self) -> String {
        "worker_processes auto; access_log off; client_max_body_size 256m; client_body_buffer_size 1m;\n\
         keepalive_requests 100000000; dav_methods PUT;"
            .to_owned()
    }

    fn version(&self) -> anyhow::Result<String> {
        version_of(PROGRAM, "-v", "Debian: nginx-light")
    }

    fn start(&self, dir: &Path) -> anyhow::Result<Running> {
        let address = free_address()?;
        let file = dir.join("nginx.conf");
        let shown = dir.display();
        let unused = ["proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {shown}/unused;"));
        // The temporary files must be on the disk of the files, or nginx would copy each one.
        let text = format!(
            "daemon off; worker_processes auto; pid {shown}/nginx.pid; error_log {shown}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_max_body_size 256m; client_body_buffer_size 1m;\n\
             keepalive_requests 100000000; client_body_temp_path {shown}/body; {}\n\
             server {{ listen {address}; root {shown}/files; location / {{ dav_methods PUT; create_full_put_path on; }} }} }}\n",
            unused.join(" ")
        );
        std::fs::write(&file, text)?;
        let server = Server::start(command(PROGRAM).args(["-e", "stderr", "-c"]).arg(&file), dir, address)?;
        Ok(Running { server, address })
    }

    fn connect(&self, running: &Running, connection: u32) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(Connection { wire: Wire::connect(running.address)?, connection, sent: 0 }))
    }
}

struct Connection {
    wire: Wire,
    connection: u32,
    sent: u32,
}

impl Client for Connection {
    fn send(&mut self, image: &[u8]) -> anyhow::Result<()> {
        let (connection, tile) = (self.connection, self.sent);
        self.sent += 1;
        let head =
            format!("PUT /{connection}/{tile}.tif HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n\r\n", image.len());
        self.wire.send([head.as_bytes(), image])
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let status = self.wire.line()?;
        let mut len = 0;
        loop {
            let line = self.wire.line()?.to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                len = value.trim().parse().context("a length")?;
            }
        }
        self.wire.bytes(len)?;
        ensure!(status.starts_with("HTTP/1.1 201"), "nginx: {status}");
        Ok(())
    }
}

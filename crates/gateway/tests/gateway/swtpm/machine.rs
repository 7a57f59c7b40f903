//! A device with a TPM: swtpm on loopback, with a state folder of its own, and the tools of tpm2-tools as its client.
//! It goes through the steps that the device clients go through; what should come of them is decided by the tests.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where the clients keep the endorsement key, the storage key and the imported key.
const ENDORSEMENT: &str = "0x81010001";
pub(crate) const STORAGE: &str = "0x81000001";
const IMPORTED: &str = "0x81000100";

const STORAGE_ATTRIBUTES: &str =
    "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";

/// How long the TPM may take to answer for the first time.
const START: Duration = Duration::from_secs(20);
/// Seconds that one command may take; making an RSA key is the longest.
const COMMAND_S: &str = "60";
/// Pairs of ports that are tried, since another program may take one before swtpm does.
const ATTEMPTS: usize = 5;

/// Held while a TPM starts, so that no two of them are given the same ports.
static STARTING: Mutex<()> = Mutex::new(());

/// Whether swtpm is there. If it is not, this says so past the harness, which keeps what a passing test prints to
/// itself; where `CI` is set it must be there.
pub(crate) fn is_there() -> bool {
    let there = Command::new("swtpm")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    let wanted = "apt-get install swtpm tpm2-tools";
    assert!(
        there || std::env::var_os("CI").is_none(),
        "swtpm is missing: {wanted}"
    );
    if !there {
        // In one piece, or the harness writes in between.
        let line = format!("NOT RUN, NOTHING TESTED: swtpm is missing: {wanted}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    there
}

pub(crate) struct Machine {
    swtpm: Child,
    folder: TempDir,
    port: u16,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.swtpm.kill();
        let _ = self.swtpm.wait();
    }
}

impl Machine {
    /// Starts a TPM that has never been used, and makes the two keys in it as the clients do.
    pub(crate) fn start() -> Self {
        let machine = (0..ATTEMPTS)
            .find_map(|_| Self::try_start())
            .expect("swtpm started");
        machine.tool("tpm2_createek", &["-c", ENDORSEMENT, "-G", "rsa", "-u", "ek.pub"]);
        machine.make_storage("srk.ctx", STORAGE_ATTRIBUTES);
        machine.tool("tpm2_evictcontrol", &["-C", "o", "-c", "srk.ctx", STORAGE]);
        machine.flush();
        machine
    }

    fn try_start() -> Option<Self> {
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_ports();
        let state = format!("dir={}", folder.path().display());
        let server = format!("type=tcp,port={port},bindaddr=127.0.0.1");
        // Where the tools look for the control channel, which has no option of its own there.
        let control = format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1);
        let swtpm = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &state, "--server", &server])
            .args(["--ctrl", &control, "--flags", "not-need-init,startup-clear"])
            .stdin(Stdio::null())
            .spawn()
            .expect("swtpm");
        let mut machine = Self { swtpm, folder, port };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if machine.swtpm.try_wait().expect("its state").is_some() {
                return None;
            }
            if machine
                .call("tpm2_getcap", &["properties-fixed"])
                .status
                .success()
            {
                return Some(machine);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// The public endorsement key, a TPM2B_PUBLIC.
    pub(crate) fn endorsement(&self) -> Vec<u8> {
        self.read_public(ENDORSEMENT)
    }

    /// The public storage key, a TPM2B_PUBLIC.
    pub(crate) fn storage(&self) -> Vec<u8> {
        self.read_public(STORAGE)
    }

    /// Makes another storage key, by another template, and returns where it is kept and its TPM2B_PUBLIC.
    pub(crate) fn another_storage(&self) -> (&'static str, Vec<u8>) {
        const HANDLE: &str = "0x81000002";
        self.make_storage("other.ctx", &STORAGE_ATTRIBUTES.replace("noda|", ""));
        self.tool("tpm2_evictcontrol", &["-C", "o", "-c", "other.ctx", HANDLE]);
        self.flush();
        (HANDLE, self.read_public(HANDLE))
    }

    /// TPM2_ActivateCredential for the storage key at `storage`: the inner AES key, if the TPM yields it.
    pub(crate) fn activate(&self, storage: &str, challenge: &Challenge<'_>) -> Option<Vec<u8>> {
        // What tpm2-tools puts in front of the two structures: a magic number and a version.
        let head = [0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1];
        let credential = [&head[..], challenge.credential, challenge.credential_seed].concat();
        self.write("credential", &credential);
        self.tool("tpm2_startauthsession", &["--policy-session", "-S", "session"]);
        self.tool("tpm2_policysecret", &["-S", "session", "-c", "e"]);
        let keys = ["-c", storage, "-C", ENDORSEMENT];
        let files = ["-i", "credential", "-o", "inner", "-P", "session:session"];
        let activated = self.call("tpm2_activatecredential", &[&keys[..], &files].concat());
        self.tool("tpm2_flushcontext", &["session"]);
        activated.status.success().then(|| self.read("inner"))
    }

    /// TPM2_Import, TPM2_Load and TPM2_EvictControl with the AES key `inner`: the imported key takes the place of an
    /// earlier one. Returns whether the TPM took it.
    pub(crate) fn import(&self, challenge: &Challenge<'_>, inner: &[u8]) -> bool {
        self.write("inner", inner);
        self.write("duplicate", challenge.duplicate);
        self.write("seed", challenge.duplicate_seed);
        self.write("public", challenge.public);
        let wrappers = ["-C", STORAGE, "-k", "inner", "-s", "seed"];
        let files = ["-i", "duplicate", "-u", "public", "-r", "private"];
        let imported = self.call("tpm2_import", &[&wrappers[..], &files].concat());
        if !imported.status.success() {
            return false;
        }
        let load = ["-C", STORAGE, "-u", "public", "-r", "private", "-c", "key.ctx"];
        self.tool("tpm2_load", &load);
        let _ = self.call("tpm2_evictcontrol", &["-C", "o", "-c", IMPORTED]); // there may be none
        self.tool("tpm2_evictcontrol", &["-C", "o", "-c", "key.ctx", IMPORTED]);
        self.flush();
        true
    }

    /// What the imported key signs `text` with.
    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.write("text", text);
        self.tool("tpm2_hmac", &["-c", IMPORTED, "-o", "signature", "text"]);
        self.read("signature")
    }

    /// Decrypts the data of a challenge in the TPM, as the clients do.
    pub(crate) fn decrypt(&self, inner: &[u8], encrypted: &[u8]) -> Vec<u8> {
        self.write("inner", inner);
        self.write("encrypted", encrypted);
        self.write("start", &[0; 16]);
        self.tool(
            "tpm2_loadexternal",
            &["-G", "aes", "-r", "inner", "-c", "inner.ctx"],
        );
        let options = ["-d", "-c", "inner.ctx", "-G", "cfb", "-t", "start", "-o", "data"];
        self.tool("tpm2_encryptdecrypt", &[&options[..], &["encrypted"]].concat());
        self.flush();
        self.read("data")
    }

    /// Whether the TPM hands the imported key to another parent.
    pub(crate) fn gives_away(&self) -> bool {
        self.tool("tpm2_startauthsession", &["--policy-session", "-S", "session"]);
        self.tool("tpm2_policycommandcode", &["-S", "session", "TPM2_CC_Duplicate"]);
        let options = [
            "-C",
            "null",
            "-c",
            IMPORTED,
            "-G",
            "null",
            "-p",
            "session:session",
        ];
        let files = ["-r", "away", "-s", "away.seed"];
        let given = self.call("tpm2_duplicate", &[&options[..], &files].concat());
        self.tool("tpm2_flushcontext", &["session"]);
        given.status.success()
    }

    fn make_storage(&self, context: &str, attributes: &str) {
        let template = [
            "-C",
            "o",
            "-g",
            "sha256",
            "-G",
            "rsa2048:aes128cfb",
            "-a",
            attributes,
        ];
        self.tool("tpm2_createprimary", &[&template[..], &["-c", context]].concat());
    }

    fn read_public(&self, handle: &str) -> Vec<u8> {
        self.tool("tpm2_readpublic", &["-c", handle, "-f", "tss", "-o", "read.pub"]);
        self.read("read.pub")
    }

    /// A TPM without a resource manager has room for three keys beside those it keeps.
    fn flush(&self) {
        self.tool("tpm2_flushcontext", &["-t"]);
    }

    fn tool(&self, name: &str, arguments: &[&str]) {
        let done = self.call(name, arguments);
        assert!(done.status.success(), "{name} {arguments:?}: {done:?}");
    }

    fn call(&self, name: &str, arguments: &[&str]) -> Output {
        Command::new("timeout")
            .args([COMMAND_S, name])
            .args(arguments)
            .env(
                "TPM2TOOLS_TCTI",
                format!("swtpm:host=127.0.0.1,port={}", self.port),
            )
            .current_dir(self.folder.path())
            .output()
            .expect("timeout, of coreutils")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file of the tool's")
    }
}

/// The parts of a challenge, each with its length, as the tools want them. Of the data, the bytes alone.
pub(crate) struct Challenge<'a> {
    credential: &'a [u8],
    credential_seed: &'a [u8],
    duplicate: &'a [u8],
    duplicate_seed: &'a [u8],
    public: &'a [u8],
    pub(crate) data: &'a [u8],
}

impl<'a> Challenge<'a> {
    pub(crate) fn take_apart(mut blob: &'a [u8]) -> Self {
        let mut part = || {
            let length = usize::from(u16::from_be_bytes([blob[0], blob[1]]));
            let (part, rest) = blob.split_at(2 + length);
            blob = rest;
            part
        };
        let apart = Self {
            credential: part(),
            credential_seed: part(),
            duplicate: part(),
            duplicate_seed: part(),
            public: part(),
            data: &part()[2..],
        };
        assert!(blob.is_empty(), "nothing follows the data");
        apart
    }
}

/// A port of loopback that is free, and so is the next.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = first.local_addr().expect("its address").port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

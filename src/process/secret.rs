//! The secret by which a host knows its guards.

use std::env;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use super::{remove_variable, set_variable};

/// Carries the secret of the control channel to the guards: the environment of a process can be read by its
/// user only.
const SECRET_VARIABLE: &str = "OFFSHOOT_SECRET";

/// The secret of this process's control channel, and a file in memory that holds it too.
static SECRET: OnceLock<([u8; 16], Option<OwnedFd>)> = OnceLock::new();

/// Makes up the secret of this process's control channel, for the guards to inherit: in our variable, in
/// `other`, which a launcher may hand on where it drops ours, and in a file in memory that a guard on this
/// host can open.
///
/// # Panics
/// If the process has more than one thread.
pub(crate) fn make_secret(other: Option<&str>) {
    let (secret, _) = SECRET.get_or_init(|| {
        let mut secret = [0; 16];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
            .expect("16 bytes are always given");
        (secret, in_memory(&secret).ok())
    });
    let hex = hex(secret);
    for name in [Some(SECRET_VARIABLE), other].into_iter().flatten() {
        set_variable(name, hex.as_ref());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The secret that this process made up, as `VARIABLE=VALUE` for the environment of a guard.
pub(crate) fn secret_setting() -> Option<String> {
    SECRET.get().map(|(secret, _)| format!("{SECRET_VARIABLE}={}", hex(secret)))
}

fn in_memory(bytes: &[u8]) -> rustix::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("offshoot", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::io::write(&file, bytes)?;
    Ok(file)
}

/// The secret that this process made up.
pub(crate) fn secret() -> Option<[u8; 16]> {
    SECRET.get().map(|(secret, _)| *secret)
}

/// The descriptor of the file that holds this process's secret, for [`read_secret`].
pub(crate) fn secret_file() -> Option<RawFd> {
    SECRET.get().and_then(|(_, file)| file.as_ref()).map(AsRawFd::as_raw_fd)
}

/// Takes the inherited secret out of the environment, so that nothing that is started from here has it.
pub(crate) fn take_secret(other: Option<&str>) -> Option<[u8; 16]> {
    let take = |name: &str| {
        let hex = env::var(name).ok();
        remove_variable(name);
        u128::from_str_radix(&hex?, 16).ok().map(u128::to_be_bytes)
    };
    let found: Vec<_> = [Some(SECRET_VARIABLE), other].into_iter().flatten().filter_map(take).collect();
    found.first().copied()
}

/// Reads the secret of another process of this user, on this host. A launcher that was there before the
/// host, `mpiexec` that is, hands none of the host's variables on.
pub(crate) fn read_secret(process: u32, file: RawFd) -> Option<[u8; 16]> {
    std::fs::read(format!("/proc/{process}/fd/{file}")).ok()?.try_into().ok()
}

//! Terminals for commands.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    io::Errno,
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize},
};

use crate::request::TerminalSize;

/// Opens a terminal: the agent's end and the command's.
pub(crate) fn open(size: TerminalSize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    resize(&ours, size)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    Ok((ours, theirs))
}

pub(crate) fn resize(terminal: impl AsFd, size: TerminalSize) -> Result<(), Errno> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size)
}

/// Returns what is typed to end a terminal's input; twice, for the first only sends on a line
/// that was not ended.
pub(crate) fn end_of_input(terminal: impl AsFd) -> [u8; 2] {
    const CONTROL_D: u8 = 4;
    let code = tcgetattr(terminal).map(|state| state.special_codes[SpecialCodeIndex::VEOF]);
    [code.unwrap_or(CONTROL_D); 2]
}

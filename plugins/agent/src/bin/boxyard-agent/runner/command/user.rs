//! Users and groups, from the sandbox's own files.

use std::{fs::File, io::Read};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{getegid, geteuid},
};

use crate::{
    failure::{Failure, Result},
    sys::Credentials,
};

/// How much of a list of users or groups is looked at.
const MAX_LIST: u64 = 4 << 20;

/// A user that a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) credentials: Credentials,
    pub(crate) home: String,
}

/// Finds `name`, `uid`, `name:group` or `uid:gid`.
///
/// # Errors
///
/// There is none of that name, or only another user may become it.
pub(crate) fn find(text: &str) -> Result<User> {
    let (passwd, group) = (list("/etc/passwd"), list("/etc/group"));
    let user = parse(text, &passwd, &group)?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let wanted = (user.credentials.uid, user.credentials.gid);
    if uid != 0 && wanted != (uid, gid) {
        return Err(Failure::permission_denied(format_args!(
            "running as user `{text}`: the sandbox itself runs as user {uid}, and only root may \
             become another"
        )));
    }
    Ok(user)
}

/// Returns the home of the user that a command runs as that names none: the agent's own.
pub(super) fn own_home() -> String {
    let passwd = list("/etc/passwd");
    let uid = geteuid().as_raw();
    let mut users = passwd.lines().filter_map(Entry::parse);
    home_of(users.find(|entry| entry.id == uid).as_ref())
}

/// Returns as whom files are acted on for `user`; `None` where that is who we are already.
pub(crate) fn credentials(user: Option<&str>) -> Result<Option<Credentials>> {
    match user {
        Some(user) if geteuid().is_root() => Ok(Some(find(user)?.credentials)),
        _ => Ok(None),
    }
}

/// Reads a list of users or groups, which is empty where there is none.
///
/// The sandbox may have put anything in its place: a pipe must not be waited for, and what has no
/// end not be read to it.
fn list(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut text = String::new();
    let read = open(path, flags, Mode::empty())
        .map_err(Into::into)
        .and_then(|file| File::from(file).take(MAX_LIST).read_to_string(&mut text));
    match read {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

fn parse(text: &str, passwd: &str, group: &str) -> Result<User> {
    let (name, wanted_group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let mut users = passwd.lines().filter_map(Entry::parse);
    let number = id_of(name);
    let entry = users.find(|entry| match number {
        Some(uid) => entry.id == uid,
        None => entry.name == name,
    });
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.id,
        (None, Some(uid)) => uid,
        (None, None) => {
            return Err(Failure::invalid_argument(format_args!(
                "the sandbox has no user `{name}`: expected a name of its /etc/passwd, or uid:gid"
            )));
        }
    };
    let own_group = entry.as_ref().and_then(|entry| id_of(entry.field(3)?));
    let gid = match wanted_group {
        None => own_group.unwrap_or(0),
        Some(wanted) => match id_of(wanted) {
            Some(gid) => gid,
            None => {
                let mut groups = group.lines().filter_map(Entry::parse);
                let found = groups.find(|entry| entry.name == wanted);
                found.map(|entry| entry.id).ok_or_else(|| {
                    Failure::invalid_argument(format_args!(
                        "the sandbox has no group `{wanted}`: expected a name of its /etc/group, \
                         or a number"
                    ))
                })?
            }
        },
    };
    let mut groups = vec![gid];
    // Naming a group means that one alone.
    if let (Some(entry), None) = (&entry, wanted_group) {
        let of_user = group.lines().filter_map(Entry::parse).filter(|group| {
            let members = group.field(3).unwrap_or_default();
            members.split(',').any(|member| member == entry.name)
        });
        groups.extend(of_user.map(|group| group.id).filter(|id| *id != gid));
    }
    Ok(User {
        credentials: Credentials { uid, gid, groups },
        home: home_of(entry.as_ref()),
    })
}

/// Returns a user's home; `/` is that of who has none.
fn home_of(entry: Option<&Entry<'_>>) -> String {
    let home = entry.and_then(|entry| entry.field(5));
    let home = home.filter(|home| !home.is_empty());
    home.unwrap_or("/").to_owned()
}

/// Reads a user's or a group's number. The largest is none: to the system calls it means that
/// nothing is to change.
fn id_of(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// A line of either file; both have a name first and a number third.
struct Entry<'a> {
    line: &'a str,
    name: &'a str,
    id: u32,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = id_of(fields.nth(1)?)?;
        Some(Self { line, name, id })
    }

    fn field(&self, index: usize) -> Option<&'a str> {
        self.line.split(':').nth(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:7:70:Ann:/home/ann:/bin/sh\nsys:x:3:3:::\n";
    const GROUP: &str = "root:x:0:\nann:x:70:\ndocker:x:8:bob,ann\nstaff:x:9:annie\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        for (text, uid, groups, home) in [
            ("ann", 7, &[70, 8][..], "/home/ann"),
            ("7", 7, &[70, 8], "/home/ann"),
            ("ann:staff", 7, &[9], "/home/ann"),
            ("ann:123", 7, &[123], "/home/ann"),
            ("0", 0, &[0], "/root"),
            ("sys", 3, &[3], "/"),
            ("4711", 4711, &[0], "/"),
            ("4711:12", 4711, &[12], "/"),
        ] {
            let user = parse(text, PASSWD, GROUP).unwrap();
            assert_eq!(user.credentials.uid, uid, "{text}");
            assert_eq!(user.credentials.gid, groups[0], "{text}");
            assert_eq!(user.credentials.groups, groups, "{text}");
            assert_eq!(user.home, home, "{text}");
        }
        for wrong in [
            "nobody",
            "ann:nogroup",
            "ann:",
            ":70",
            "",
            "bob",
            "-1",
            "4294967295",
            "0:4294967295",
            "4294967296",
        ] {
            assert!(parse(wrong, PASSWD, GROUP).is_err(), "{wrong}");
        }
    }
}

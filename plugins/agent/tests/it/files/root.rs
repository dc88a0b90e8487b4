//! The root: nothing outside of it is reached, and where there is none, everything is.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use boxyard_plugin_api::FileKind;

use super::{list, mode_of, names_in, one_file_tar};
use crate::harness::*;

#[tokio::test]
async fn without_a_root_every_path_of_the_system_is_meant() {
    let place = open_directory();
    let place = place.path();
    fs::create_dir_all(place.join("a/b")).unwrap();
    fs::write(place.join("a/file"), "x").unwrap();
    symlink(place.join("a/file"), place.join("link")).unwrap();
    let mut setup = setup();
    setup.working_dir = place.join("a/b").to_str().unwrap().into();
    let agent = agent(setup).await;
    for path in [
        place.join("a/file"),
        place.join("link"),
        place.join("a/b/../file"),
        "../file".into(),
        "../b/../../a/file".into(),
    ] {
        let path = path.to_str().unwrap();
        assert_eq!(agent.read(path).await.unwrap(), b"x", "{path}");
    }
    agent.write("../new", "y").await.unwrap();
    assert_eq!(fs::read(place.join("a/new")).unwrap(), b"y");
    agent.stop().await;
}

/// What is outside; nothing inside is as long.
const SECRET: &[u8] = b"outside of the root";

/// A command of the sandbox that puts links in the place of directories and files, over and
/// over; nothing that is done through them may reach what they lead to.
#[tokio::test]
async fn nothing_outside_is_reached_however_the_root_changes() {
    let place = open_directory();
    let (outside, root) = (place.path().join("outside"), place.path().join("root"));
    for directory in [&outside, &root, &outside.join("inner")] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(outside.join("file"), SECRET).unwrap();
    fs::write(outside.join("inner/file"), SECRET).unwrap();
    let agent = agent(rooted(&root)).await;
    let mut to_outside = false;
    let links = [outside.clone(), PathBuf::from("../outside")];
    let swapping = Meanwhile::repeat(move || {
        to_outside = !to_outside;
        swap_once(&root, &links[usize::from(to_outside)]);
    });
    let start = Instant::now();
    let mut rounds = 0;
    // Often enough to have met every link, also on a busy machine.
    while start.elapsed() < Duration::from_secs(1) || rounds < 30 {
        try_everything(&agent).await;
        rounds += 1;
    }
    drop(swapping);
    let names = ["file", "inner"].map(String::from);
    assert_eq!(names_in(&outside), BTreeSet::from(names));
    assert_eq!(names_in(outside.join("inner")).len(), 1);
    for file in ["file", "inner/file"] {
        assert_eq!(fs::read(outside.join(file)).unwrap(), SECRET);
        assert_eq!(mode_of(outside.join(file)), 0o644);
    }
    agent.stop().await;
}

/// Makes `d` a directory and then a link, and the same of `f` for a file. The client works in
/// the same place, so that anything here may fail.
fn swap_once(root: &Path, link: &Path) {
    let (d, f) = (root.join("d"), root.join("f"));
    let _ = fs::create_dir_all(d.join("inner"));
    // By way of another name: what is at `d` may not be followed here either.
    let _ = fs::write(root.join("new"), "inside");
    let _ = fs::rename(root.join("new"), &f);
    let _ = fs::rename(&d, root.join("away"));
    let _ = fs::remove_file(&f);
    let _ = symlink(link, &d);
    let _ = symlink(link.join("file"), &f);
    std::thread::yield_now();
    let _ = fs::remove_file(&d);
    let _ = fs::remove_file(&f);
    let _ = fs::rename(root.join("away"), &d);
}

/// Does everything once, through what is swapped; only what comes from outside is wrong.
async fn try_everything(agent: &TestAgent) {
    for path in ["d/file", "d/inner/file", "f", "d/../f", "d/inner/../../f"] {
        if let Ok(content) = agent.read(path).await {
            assert_ne!(content, SECRET, "{path}");
        }
    }
    for path in ["d/file", "d/new", "d/inner/new", "f"] {
        let _ = agent.write(path, "inside").await;
    }
    let _ = agent.mkdir("d/made", None, false).await;
    let _ = agent.mkdir("d/inner/a/b", None, true).await;
    let _ = agent.put("d", one_file_tar()).await;
    let _ = agent.put("d/inner", one_file_tar()).await;
    if let Ok(archive) = agent.get("d").await {
        assert!(!archive.windows(SECRET.len()).any(|window| window == SECRET));
    }
    let listed = list(agent, "d").await.unwrap_or_default();
    assert!(
        listed
            .iter()
            .all(|info| info.kind != FileKind::File || info.size < SECRET.len() as u64)
    );
    for path in ["d/file", "d/inner", "f", "d"] {
        let _ = agent.remove(path, true).await;
    }
    let _ = agent.remove("d/file", false).await;
}

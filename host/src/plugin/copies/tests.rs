//! What is compared, and what is remembered of it.

use tempfile::TempDir;

use super::*;

const NAME: &str = "f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2";

struct Place {
    root: TempDir,
    copies: Copies,
}

impl Place {
    /// Has a file, and what was made as its copy.
    fn new(file: &[u8], copy: &[u8]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let copies = Copies::new(root.path().join("copies"));
        copies.make(NAME, copy).unwrap();
        let place = Self { root, copies };
        place.put(file);
        place
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("file")
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(self.file(), bytes).unwrap();
    }

    fn has_copy(&self) -> bool {
        let mut file = File::open(self.file()).unwrap();
        let copy = self.copies.of(&mut file);
        copy.is_some_and(|copy| copy.sha256 == NAME)
    }

    fn is_noted(&self) -> bool {
        Note::find(&self.copies.directory, &fs::metadata(self.file()).unwrap()).is_some()
    }
}

/// Lets so much time pass that a write shows in the time of what is written.
fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

#[test]
fn what_was_compared_is_noted_until_it_is_written() {
    let place = Place::new(b"content", b"content");
    assert!(place.has_copy());
    assert!(!place.is_noted(), "both were written just now");
    settle();
    assert!(place.has_copy() && place.is_noted());
    assert!(place.has_copy());

    place.put(b"another");
    assert!(!place.is_noted() && !place.has_copy());

    place.put(b"content");
    settle();
    assert!(place.has_copy() && place.is_noted());
    fs::write(place.copies.path(NAME), b"damaged").unwrap();
    assert!(!place.has_copy());
}

#[test]
fn what_was_noted_is_not_compared() {
    let place = Place::new(b"content", b"another");
    assert!(!place.has_copy());
    settle();
    let [file, copy] =
        [place.file(), place.copies.path(NAME)].map(|path| fs::metadata(path).unwrap());
    let note = Note::new(&file, &copy, NAME).unwrap();
    note.keep(&place.copies.directory).unwrap();
    assert!(place.has_copy());
}

#[test]
fn a_note_that_is_damaged_is_none() {
    let place = Place::new(b"content", b"content");
    settle();
    assert!(place.has_copy() && place.is_noted());
    for entry in fs::read_dir(&place.copies.directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            fs::write(path, b"{").unwrap();
        }
    }
    assert!(!place.is_noted());
    assert!(place.has_copy());
}

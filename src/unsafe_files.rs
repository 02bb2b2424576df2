//! Which files hold unsafe code: the test below fails when the list grows.

use std::path::{Path, PathBuf};

/// File, and how many unsafe blocks and impls it may hold. The generated file is flatc's output: schema/generate.sh.
const ALLOWED: [(&str, usize); 2] = [("src/base/pool.rs", 8), ("src/wire/generated.rs", usize::MAX)];

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of the project").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Places where the keyword stands before what it makes unsafe.
fn unsafe_places(text: &str) -> usize {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let words: Vec<&str> = code.flat_map(|line| line.split_inclusive(['{', '(', ' '])).map(str::trim).collect();
    let makes = |word: &str| ["{", "impl", "fn", "extern", "trait"].contains(&word.trim_end_matches('('));
    words.windows(2).filter(|pair| pair[0] == "unsafe" && makes(pair[1]) || pair[0] == "unsafe{").count()
}

#[test]
fn unsafe_code_stands_where_it_is_known_to_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "tests", "bench"].iter().for_each(|dir| rust_files(&root.join(dir), &mut files));
    assert!(files.len() > 100, "the files are not where they were");
    for file in files {
        let name = file.strip_prefix(root).expect("found below it").to_string_lossy().into_owned();
        let places = unsafe_places(&std::fs::read_to_string(&file).expect("a text"));
        let allowed = ALLOWED.iter().find(|(known, _)| *known == name).map_or(0, |(_, most)| *most);
        assert!(places <= allowed, "{name}: {places} unsafe blocks, {allowed} are known; is there no safe way?");
    }
}

#[test]
fn the_count_sees_blocks_and_impls_and_no_words() {
    let two =
        ["let a = unsa", "fe { b() };\nunsa", "fe impl Send for C {} // unsa", "fe { }\nlet unsafe_name = 1;"].concat();
    assert_eq!(unsafe_places(&two), 2);
}

//! The documentation names tests that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tool;

/// How many quirks the table has.
const QUIRKS: u32 = 57;

/// The tests below `folder`, by name, each with the files that have one of that name.
fn tests(folder: &Path, found: &mut BTreeMap<String, Vec<PathBuf>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut is_test = false;
            for line in fs::read_to_string(&path).unwrap().lines().map(str::trim) {
                if line.starts_with("#[") {
                    is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                    continue;
                }
                let name = line.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                if let Some((name, _)) = name.filter(|_| is_test) {
                    found.entry(name.to_owned()).or_default().push(path.clone());
                }
                is_test = false;
            }
        }
    }
}

/// The words of `text` that are names of tests: a sentence, or one behind the modules that it is in.
fn names(text: &str) -> Vec<&str> {
    let words = text.split('`').skip(1).step_by(2);
    let is_plain = |word: &&str| word.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'_' | b':'));
    words.filter(is_plain).filter(|word| word.contains("::") || word.matches('_').count() > 1).collect()
}

#[test]
fn every_test_that_the_documentation_names_exists_and_every_quirk_has_one_or_a_reason() {
    let mut known = BTreeMap::new();
    for folder in ["tunnel/src", "operator/src", "tests/src", "tests/tests"] {
        tests(&tool::workspace().join(folder), &mut known);
    }
    let text = fs::read_to_string(tool::workspace().join("charts/towline/docs/interop.md")).unwrap();
    for name in names(&text) {
        let (modules, test) = name.rsplit_once("::").unwrap_or_default();
        let test = if test.is_empty() { name } else { test };
        let file = format!("{}.rs", modules.replace("::", "/"));
        let is_here = |path: &PathBuf| modules.is_empty() || path.ends_with(&file);
        let exists = known.get(test).is_some_and(|paths| paths.iter().any(is_here));
        assert!(exists, "no test is called {name}");
    }
    let (mut column, mut quirks) = (None, Vec::new());
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        if let Some(place) = cells.iter().position(|cell| *cell == "tests") {
            column = Some((place, cells.len()));
            continue;
        }
        let (place, width) = column.unwrap_or_else(|| panic!("a row of no table: {row}"));
        assert_eq!(cells.len(), width, "{row}");
        assert!(
            !names(cells[place]).is_empty() || cells[place].starts_with("None"),
            "neither a test nor why not: {row}"
        );
        quirks.extend(cells[0].parse::<u32>().ok());
    }
    assert_eq!(quirks, (1..=QUIRKS).collect::<Vec<_>>());
}

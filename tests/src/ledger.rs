//! `cargo xtask ledger`: which sentence of which RFC is kept where, and which tests prove it, read from the source.
//!
//! ```text
//! //= rfc2661 5.8 "an exact quotation"
//! //= test: the_test_that_sees_it_kept, the_test_that_sees_it_not_broken
//! //= out: rfc2409 5.4 "an exact quotation" the reason why it is left out
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::tool;

/// Where the ledger is kept, from the root of the workspace.
const FILE: &str = "tunnel/CONFORMANCE.md";
/// Where the markers are.
const MARKED: &str = "tunnel/src";
/// Where the tests that they name are.
const TESTED: [&str; 2] = [MARKED, "tests/tests"];
/// What every marker begins with.
const MARKER: &str = "//= ";

const INTRODUCTION: &str = "\
# Conformance

Written by `cargo xtask ledger` from the markers in `tunnel/src`; a test fails when it is out of date. Each row is a sentence of an RFC that the
code keeps, the file that keeps it, and the tests that prove it: one that sees it kept, and one that sees what contradicts it refused or not done.
";

/// A sentence of an RFC. They are in the order of their sections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sentence {
    section: Vec<(u32, String)>,
    quote: String,
}

/// What one RFC demands.
#[derive(Debug, Default)]
struct Ledger {
    /// With the file and its tests.
    kept: BTreeSet<(Sentence, String, Vec<String>)>,
    /// With the reason.
    left_out: BTreeSet<(Sentence, String)>,
}

/// Writes the ledger.
pub fn write() -> Result<()> {
    let path = tool::workspace().join(FILE);
    fs::write(&path, render(&tool::workspace())?).with_context(|| format!("cannot write {}", path.display()))
}

/// The ledgers by the number of the RFC.
fn ledgers(root: &Path) -> Result<BTreeMap<u32, Ledger>> {
    let mut ledgers = BTreeMap::new();
    for (file, source) in sources(root, MARKED)? {
        read(&mut ledgers, &file, &source).with_context(|| file.clone())?;
    }
    Ok(ledgers)
}

fn render(root: &Path) -> Result<String> {
    let mut tests = BTreeSet::new();
    for folder in TESTED {
        sources(root, folder)?.iter().for_each(|(_, source)| tests.extend(tests_of(source)));
    }
    let mut out = INTRODUCTION.to_owned();
    for (rfc, ledger) in &ledgers(root)? {
        ledger.render(*rfc, &tests, &mut out)?;
    }
    Ok(out)
}

/// The Rust files below a folder in their order, each with its path from the root.
fn sources(root: &Path, folder: &str) -> Result<Vec<(String, String)>> {
    let (mut folders, mut files) = (vec![root.join(folder)], BTreeSet::<PathBuf>::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(path);
            }
        }
    }
    let read = |path: PathBuf| {
        let source = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.strip_prefix(root)?.display().to_string(), source))
    };
    files.into_iter().map(read).collect()
}

/// The names of the functions that are tests.
fn tests_of(source: &str) -> Vec<String> {
    let (mut names, mut test) = (Vec::new(), false);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            continue;
        }
        let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        names.extend(name.filter(|_| test).map(str::to_owned));
        test = false;
    }
    names
}

/// Adds the markers of one file.
fn read(ledgers: &mut BTreeMap<u32, Ledger>, file: &str, source: &str) -> Result<()> {
    let mut lines = source.lines().map(str::trim).filter_map(|line| line.strip_prefix(MARKER)).peekable();
    while let Some(line) = lines.next() {
        let left_out = line.strip_prefix("out: ");
        let (rfc, sentence, reason) = sentence(left_out.unwrap_or(line)).with_context(|| line.to_owned())?;
        let ledger = ledgers.entry(rfc).or_default();
        if left_out.is_some() {
            ensure!(!reason.is_empty(), "no reason is given: {line}");
            ledger.left_out.insert((sentence, reason.to_owned()));
            continue;
        }
        let tests = lines.next_if(|next| next.starts_with("test: ")).and_then(|line| line.strip_prefix("test: "));
        let tests: Vec<String> = tests.unwrap_or_default().split(", ").map(str::to_owned).collect();
        ensure!(reason.is_empty() && tests.len() >= 2, "two tests have to follow: {line}");
        ledger.kept.insert((sentence, file.to_owned(), tests));
    }
    Ok(())
}

/// Reads `rfc2661 5.8 "a quotation" the rest`.
fn sentence(line: &str) -> Option<(u32, Sentence, &str)> {
    let (rfc, rest) = line.strip_prefix("rfc")?.split_once(' ')?;
    let (section, rest) = rest.split_once(" \"")?;
    let (quote, rest) = rest.rsplit_once('"')?;
    let part = |part: &str| (part.parse().unwrap_or(u32::MAX), part.to_owned());
    let sentence = Sentence { section: section.split('.').map(part).collect(), quote: quote.to_owned() };
    Some((rfc.parse().ok()?, sentence, rest.trim()))
}

impl Sentence {
    /// The number of its section.
    fn section(&self) -> String {
        let section: Vec<&str> = self.section.iter().map(|(_, part)| part.as_str()).collect();
        section.join(".")
    }

    /// The first cells of its row.
    fn cells(&self) -> String {
        format!("| {} | {} ", self.section(), self.quote.replace('|', "\\|"))
    }
}

impl Ledger {
    fn render(&self, rfc: u32, tests: &BTreeSet<String>, out: &mut String) -> Result<()> {
        write!(out, "\n## RFC {rfc}\n\n")?;
        if !self.kept.is_empty() {
            out.push_str("| Section | Sentence | Kept in | Tests |\n|---|---|---|---|\n");
        }
        for (sentence, file, named) in &self.kept {
            if let Some(missing) = named.iter().find(|name| !tests.contains(*name)) {
                bail!("{file}: no test is named {missing}");
            }
            let (first, more) = named.split_first().context("no test")?;
            let more = more.iter().filter(|name| *name != first);
            let named: Vec<String> = std::iter::once(first).chain(more).map(|name| format!("`{name}`")).collect();
            let file = file.trim_start_matches("tunnel/");
            writeln!(out, "{}| [{file}]({file}) | {} |", sentence.cells(), named.join("<br>"))?;
        }
        if !self.left_out.is_empty() {
            out.push_str("\nLeft out, with the reason:\n\n| Section | Sentence | Reason |\n|---|---|---|\n");
        }
        for (sentence, reason) in &self.left_out {
            writeln!(out, "{}| {reason} |", sentence.cells())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The RFCs of which each demand is in the ledger.
    const RFCS: [u32; 13] = [2407, 2408, 2409, 2661, 3193, 3706, 3947, 3948, 4303, 1661, 1332, 1994, 2759];
    /// The words that make a sentence a demand (RFC 2119 1 and 2). RFC 1332 is older, and writes them small.
    const DEMANDS: [&str; 4] = ["MUST", "SHALL", "REQUIRED", "must"];

    /// The sentences of an RFC that demand something, each with its section.
    fn demands(rfc: u32) -> Vec<(String, String)> {
        let file = tool::workspace().join(format!("tests/demands/rfc{rfc}.txt"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let line =
            |line: &str| line.split_once(' ').map(|(section, text)| (section.to_owned(), text.to_owned())).unwrap();
        text.lines().map(line).collect()
    }

    /// Where the words are that demand something, in octets from the start of `text`.
    fn demanding(rfc: u32, text: &str) -> Vec<usize> {
        let words = DEMANDS.iter().filter(|word| rfc == 1332 || **word != "must");
        let is_whole = |(at, word): &(usize, &str)| {
            let letter = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
            let (before, after) = (text.split_at(*at).0, text.split_at(at + word.len()).1);
            !letter(before.chars().next_back()) && !letter(after.chars().next())
        };
        words.flat_map(|word| text.match_indices(word)).filter(is_whole).map(|(at, _)| at).collect()
    }

    fn ledger_of(source: &str) -> Result<String> {
        let mut ledgers = BTreeMap::new();
        read(&mut ledgers, "tunnel/src/a.rs", source)?;
        let (mut out, tests) = (String::new(), tests_of(source).into_iter().collect());
        ledgers.iter().try_for_each(|(rfc, ledger)| ledger.render(*rfc, &tests, &mut out))?;
        Ok(out)
    }

    const KEPT: &str = "//= rfc1 2.10 \"A MUST b.\"\n  //= test: kept, refused\n";
    const TESTS: &str = "#[test]\nfn kept() {\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn refused() {\n";

    #[test]
    fn the_ledger_is_that_of_the_markers() {
        let written = fs::read_to_string(tool::workspace().join(FILE)).unwrap_or_default();
        assert!(written == render(&tool::workspace()).unwrap(), "{FILE} is out of date: run cargo xtask ledger");
    }

    #[test]
    fn each_demand_of_an_rfc_is_kept_or_left_out_with_a_reason() {
        let ledgers = ledgers(&tool::workspace()).unwrap();
        let mut open = Vec::new();
        for rfc in RFCS {
            let ledger = &ledgers[&rfc];
            let entered: Vec<(String, &str)> = (ledger.kept.iter().map(|(sentence, ..)| sentence))
                .chain(ledger.left_out.iter().map(|(sentence, _)| sentence))
                .map(|sentence| (sentence.section(), sentence.quote.as_str()))
                .collect();
            for (section, demand) in demands(rfc) {
                let spans = entered.iter().filter(|(there, _)| *there == section);
                let spans: Vec<_> = spans.filter_map(|(_, quote)| Some((demand.find(quote)?, quote.len()))).collect();
                let is_open = |at: &usize| !spans.iter().any(|(start, length)| (*start..start + length).contains(at));
                if demanding(rfc, &demand).iter().any(is_open) {
                    open.push(format!("rfc{rfc} {section} {demand:?}"));
                }
            }
        }
        assert!(open.is_empty(), "{} demands without an entry:\n{}", open.len(), open.join("\n"));
    }

    #[test]
    fn what_is_quoted_as_a_demand_is_one() {
        let mut wrong = Vec::new();
        let ledgers = ledgers(&tool::workspace()).unwrap();
        for rfc in RFCS {
            let demands = demands(rfc);
            let ledger = &ledgers[&rfc];
            let quoted = ledger.kept.iter().map(|(sentence, ..)| sentence);
            for sentence in quoted.chain(ledger.left_out.iter().map(|(sentence, _)| sentence)) {
                let is_it = |(section, demand): &(String, String)| {
                    *section == sentence.section() && demand.contains(&sentence.quote)
                };
                if !demanding(rfc, &sentence.quote).is_empty() && !demands.iter().any(is_it) {
                    wrong.push(format!("rfc{rfc} {} {:?}", sentence.section(), sentence.quote));
                }
            }
        }
        assert!(wrong.is_empty(), "not in the RFC:\n{}", wrong.join("\n"));
    }

    #[test]
    fn sentences_are_in_the_order_of_their_sections() {
        let earlier = KEPT.replace("2.10", "2.9").replace("A MUST", "Z MUST");
        let ledger = ledger_of(&format!("{KEPT}{earlier}{TESTS}")).unwrap();
        assert!(
            ledger.find("| 2.9 | Z MUST b. | [src/a.rs](src/a.rs) | `kept`<br>`refused` |") < ledger.find("| 2.10 |")
        );
        assert!(ledger.contains("| 2.10 |"));
    }

    #[test]
    fn what_is_left_out_comes_with_its_reason() {
        let ledger = ledger_of("//= out: rfc1 3 \"B MUST \"c\".\" nobody asks for it").unwrap();
        assert!(ledger.contains("| 3 | B MUST \"c\". | nobody asks for it |"), "{ledger}");
        assert!(ledger_of("//= out: rfc1 3 \"B MUST c.\"").is_err());
    }

    #[test]
    fn a_marker_names_two_tests_that_exist() {
        for wrong in [
            KEPT.to_owned(),
            format!("{KEPT}{}", TESTS.replace("#[test]", "")),
            format!("{KEPT}{TESTS}").replace(", refused", ""),
            format!("{KEPT}{TESTS}").replace("//= test: kept, refused", ""),
            format!("{KEPT}{TESTS}").replace("rfc1", "RFC 1"),
        ] {
            assert!(ledger_of(&wrong).is_err(), "{wrong}");
        }
    }
}

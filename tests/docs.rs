//! The pages for people: every link leads to a file and a heading, and the README stays short.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the repository.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// The text without code, line by line.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let lines = lines.map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchor that GitHub and mdBook make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let outside = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced
    });
    let headings = outside.filter_map(|line| line.strip_prefix('#')).map(|rest| rest.trim_start_matches('#'));
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for heading in headings {
        let linked = heading.split("](").next().unwrap_or_default().replace('[', "");
        let name = anchor(&linked);
        let times = seen.entry(name.clone()).or_default();
        known.insert(if *times == 0 { name } else { format!("{name}-{times}") });
        *times += 1;
    }
    let explicit = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    known.extend(explicit.map(str::to_owned));
    known
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut links = 0;
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        let joined = prose(&text).replace('\n', " ");
        for rest in joined.split("](").skip(1) {
            let link = rest.split([')', ' ']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            let leads = target.exists()
                && (fragment.is_empty()
                    || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(fragment)));
            if !leads {
                broken.push(format!("{}: {link}", page.strip_prefix(root()).unwrap_or(&page).display()));
            }
        }
    }
    assert!(links > 300, "only {links} links were found");
    assert!(broken.is_empty(), "{} broken links:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).expect("the README").lines().count();
    assert!(lines <= 130, "README.md has {lines} lines: move details to docs/");
}

/// mdBook leaves out what its table of contents does not list.
#[test]
fn the_book_lists_every_page_of_docs_once() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).expect("the table of contents");
    for page in pages().iter().filter(|page| page.starts_with(&docs)) {
        let name = page.strip_prefix(&docs).expect("a page of docs").display().to_string();
        if name != "SUMMARY.md" {
            assert_eq!(1, summary.matches(&format!("({name})")).count(), "docs/SUMMARY.md lists {name} so often");
        }
    }
}

/// People look for a page in the README first.
#[test]
fn the_readme_links_every_page_of_docs_but_single_decisions() {
    let docs = root().join("docs");
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    for page in pages().iter().filter(|page| page.starts_with(&docs) && !page.starts_with(docs.join("adr"))) {
        let name = page.strip_prefix(root()).expect("a page").display().to_string();
        assert!(name == "docs/SUMMARY.md" || readme.contains(&format!("({name}")), "README.md does not link {name}");
    }
}

/// The bound keeps the pages readable: a new paragraph takes the place of an old one. Decisions and what is
/// generated do not count.
#[test]
fn the_docs_are_at_most_as_long_as_agreed() {
    let docs = root().join("docs");
    let counts = |page: &&PathBuf| {
        page.starts_with(&docs)
            && !page.starts_with(docs.join("adr"))
            && !page.ends_with("reference/api.md")
            && !page.ends_with("reference/reasons.md")
    };
    let words: usize = pages()
        .iter()
        .filter(counts)
        .map(|page| fs::read_to_string(page).expect("a page"))
        .map(|text| text.split_whitespace().count())
        .sum();
    assert!(words <= 41_000, "{words} words in docs/");
}

//! Tables for people, in Markdown, row by row as they are measured.

/// The head of a table: its first columns are words, all others numbers.
pub(crate) fn head<const N: usize>(words: usize, names: [&str; N]) {
    row(names.map(str::to_owned));
    row(std::array::from_fn::<_, N, _>(|column| if column < words { "---" } else { "---:" }.to_owned()));
}

/// One row of it.
pub(crate) fn row<const N: usize>(cells: [String; N]) {
    println!("| {} |", cells.join(" | "));
}

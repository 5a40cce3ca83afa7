//! Tables as docker prints them: columns at least ten wide, three spaces between, the last one not filled up.

use std::cmp::Ordering;

const GAP: usize = 3;
const MIN_WIDTH: usize = 10;

/// Every row has as many cells as the header.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let widest = cells.chain(header.get(column).map(|title| title.chars().count())).max().unwrap_or(0);
        (widest + GAP).max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let mut out = String::new();
    for row in std::iter::once(&header).chain(rows) {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                let filled = widths.get(column).copied().unwrap_or(0).saturating_sub(cell.chars().count());
                out.push_str(&" ".repeat(filled));
            }
        }
        out.push('\n');
    }
    out
}

/// Numbers inside names count as numbers: web.2 before web.10.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (head_a, head_b) = (digits(a), digits(b));
        if !head_a.is_empty() && !head_b.is_empty() {
            let (trimmed_a, trimmed_b) = (head_a.trim_start_matches('0'), head_b.trim_start_matches('0'));
            let order = trimmed_a.len().cmp(&trimmed_b.len()).then_with(|| trimmed_a.cmp(trimmed_b));
            // Fewer zeros in front go first among equals.
            let order = order.then_with(|| head_a.len().cmp(&head_b.len()));
            if order.is_ne() {
                return order;
            }
            (a, b) = (a.strip_prefix(head_a).unwrap_or_default(), b.strip_prefix(head_b).unwrap_or_default());
            continue;
        }
        let (mut chars_a, mut chars_b) = (a.chars(), b.chars());
        match (chars_a.next(), chars_b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) if x != y => return x.cmp(&y),
            _ => (a, b) = (chars_a.as_str(), chars_b.as_str()),
        }
    }
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_at_least_and_the_last_is_open() {
        let rows = vec![
            vec!["a".to_owned(), "b".to_owned(), String::new()],
            vec!["abcdefghij".to_owned(), String::new(), "x".to_owned()],
        ];
        let text = table(&["ID", "ERROR", "PORTS"], &rows);
        assert_eq!(text, "ID           ERROR     PORTS\na            b         \nabcdefghij             x\n");
    }

    #[test]
    fn numbers_in_names_are_ordered_as_numbers() {
        let mut names = ["web.10", "web.2", "web", "a9", "a010", "a10"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a9", "a10", "a010", "web", "web.2", "web.10"]);
    }
}

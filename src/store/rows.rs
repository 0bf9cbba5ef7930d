//! Pages of rows that are bounded by their bytes, too.

use std::ops::Deref;

/// What a page's rows may weigh, in bytes; a row that is heavier comes alone.
pub const PAGE_BYTES: i64 = 8 * 1024 * 1024;

/// The rows of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<T> {
    rows: Vec<T>,
    is_cut: bool,
}

impl<T> Rows<T> {
    /// With `is_cut`, there are more than fitted.
    pub fn new(rows: Vec<T>, is_cut: bool) -> Self {
        Self { rows, is_cut }
    }

    /// Whether there are more that only weigh too much for this page.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The rows as something else, one for one.
    pub fn with<O>(&self, rows: Vec<O>) -> Rows<O> {
        Rows::new(rows, self.is_cut)
    }

    /// The rows alone.
    pub fn into_vec(self) -> Vec<T> {
        self.rows
    }
}

impl<T> Deref for Rows<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.rows
    }
}

impl<T> From<Vec<T>> for Rows<T> {
    fn from(rows: Vec<T>) -> Self {
        Self::new(rows, false)
    }
}

impl<T> IntoIterator for Rows<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Rows<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}

/// How many of the first rows fit into `room` bytes: one at the least, if there is one.
pub(super) fn that_fit(sizes: &[i64], room: i64) -> usize {
    let mut left = room;
    let fit = sizes.iter().take_while(|size| {
        left = left.saturating_sub(**size);
        left >= 0
    });
    fit.count().max(1).min(sizes.len())
}

/// The bytes of some columns, as an SQL expression: told from the rows' heads, nothing is read for it.
pub(super) fn weight_of(columns: &[&str]) -> String {
    let weights: Vec<String> = columns
        .iter()
        .map(|column| format!("COALESCE(OCTET_LENGTH({column}), 0)"))
        .collect();
    format!("CAST({} AS BIGINT)", weights.join(" + "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_as_fit_but_never_none() {
        assert_eq!(that_fit(&[], 10), 0);
        assert_eq!(that_fit(&[5, 5, 1], 10), 2);
        assert_eq!(that_fit(&[11, 1], 10), 1);
        assert_eq!(that_fit(&[1, 1, 1], 10), 3);
        assert_eq!(that_fit(&[i64::MAX, i64::MAX], 10), 1);
    }
}

/// A page of an OpenAI-shaped list.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// The last id of the page before.
    pub after: Option<String>,
    /// The first id of the page behind.
    pub before: Option<String>,
    pub ascending: bool,
    pub limit: i64,
}

//! What is printed: a line of JSON for each figure, or a table.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::figure::Figure;

const HEADER: [&str; 10] =
    ["figure", "containment", "ours", "p99", "spread", "raw", "p99", "ours / raw", "unit", "samples"];
/// Columns of words, which start at the left.
const WORDS: [usize; 3] = [0, 1, 8];

pub(crate) fn print_json(figures: &[Figure]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for figure in figures {
        serde_json::to_writer(&mut out, figure)?;
        writeln!(out)?;
    }
    Ok(())
}

pub(crate) fn print(figures: &[Figure]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(figure) = figures.first() {
        writeln!(out, "{}", figure.mpi)?;
    }
    writeln!(out, "{}", table(figures))?;
    for figure in figures {
        if let Some(error) = &figure.error {
            writeln!(out, "{} ({}): {error}", figure.name, figure.containment)?;
        }
    }
    Ok(())
}

fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    for column in (0..HEADER.len()).filter(|column| !WORDS.contains(column)) {
        table.column_mut(column).expect("it is in the header").set_cell_alignment(CellAlignment::Right);
    }
    for figure in figures {
        table.add_row([
            figure.name.clone(),
            figure.containment.clone(),
            number(figure.ours),
            number(figure.ours_p99),
            percent(figure.ours_spread),
            number(figure.raw),
            number(figure.raw_p99),
            ratio(figure),
            figure.unit.clone(),
            figure.samples.to_string(),
        ]);
    }
    table
}

/// Four digits, which is more than any of these is sure of.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match value.abs() {
        size if size >= 1000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(part: Option<f64>) -> String {
    part.map_or("-".to_owned(), |part| format!("{:.0} %", part * 100.0))
}

fn ratio(figure: &Figure) -> String {
    match (figure.ratio, figure.ratio_min, figure.ratio_max) {
        (Some(ratio), Some(least), Some(most)) if figure.rounds > 1 => {
            format!("{} ({}-{})", number(Some(ratio)), number(Some(least)), number(Some(most)))
        }
        (ratio, _, _) => number(ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Better, Sample};
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_help() {
        let shown = [1_234_567.0, 999.0, 12.34, 1.234, 0.01234, -1234.0].map(|value| number(Some(value)));
        assert_eq!(shown, ["1,234,567", "999", "12.3", "1.23", "0.012", "-1,234"]);
        assert_eq!(number(None), "-");
    }

    #[test]
    fn a_figure_is_a_row() {
        let round = |ours| Sample::new("roundtrip", "us", Better::Lower).ours([ours]).raw([2.0]);
        let figure = Figure::of("MPI", "fast", &[round(4.0), round(6.0), round(8.0)]);
        let text = table(&[figure]).to_string();
        assert!(text.contains("roundtrip") && text.contains("3.00 (2.00-4.00)"), "{text}");
    }
}

//! A study as a page and as Markdown.

use super::curve;
use super::found::{Demand, Figure, Found, RowFound};
use super::metric::{Outcome, Subject, number};
use crate::report::chart::{self, escape};
use crate::report::html;
use std::fmt::Write;

/// One line of the table of results.
struct Line {
    cells: Vec<String>,
    outcome: Option<Outcome>,
}

/// The study in one sentence.
pub fn verdict(found: &Found) -> String {
    let all = || found.rows.iter().flat_map(|row| &row.demands);
    let count = |wanted: Outcome| all().filter(|demand| demand.outcome == wanted).count();
    let mut text = match (found.partial, found.valid) {
        (true, _) => "Partial: not everything is measured yet. ".to_owned(),
        (false, false) => "Not valid: some rows have too few valid measurements. ".to_owned(),
        (false, true) => "Valid. ".to_owned(),
    };
    let total = all().count();
    if total > 0 {
        let met = count(Outcome::Reached) + count(Outcome::Barely);
        let _ = write!(text, "{met} of {total} demands are met by the median");
        if count(Outcome::Barely) > 0 {
            let _ = write!(text, ", {} of them not by the whole interval", count(Outcome::Barely));
        }
        for (outcome, words) in [(Outcome::Missed, "missed"), (Outcome::Unknown, "open")] {
            if count(outcome) > 0 {
                let _ = write!(text, "; {} {words}", count(outcome));
            }
        }
        text.push('.');
    }
    text
}

fn headings(found: &Found) -> Vec<String> {
    let mut headings = vec!["work".to_owned(), "figure".to_owned()];
    headings.extend(found.brokers.iter().map(|broker| broker.spec.name.clone()));
    for other in found.brokers.iter().skip(1) {
        let versus = if found.brokers.len() > 2 {
            format!(" to {}", other.spec.name)
        } else {
            String::new()
        };
        headings.push(format!("ratio{versus}"));
        headings.push(format!("to its best{versus}"));
    }
    headings.extend(["demanded".to_owned(), "met".to_owned()]);
    headings
}

fn lines(row: &RowFound) -> Vec<Line> {
    // Of a row that is not measured yet, one line says so.
    let shown = if row.is_measured() { row.figures.len() } else { 1 };
    row.figures
        .iter()
        .take(shown)
        .enumerate()
        .map(|(place, figure)| {
            let mut cells = vec![if place == 0 { row.title.clone() } else { String::new() }];
            cells.push(figure.metric.words().to_owned());
            cells.extend(spreads(figure, row.repeats));
            for (ratio, best) in figure.ratios.iter().zip(&figure.against_best) {
                cells.push(ratio.map_or("-".to_owned(), |ratio| {
                    let [median, low, high] = [ratio.median, ratio.low, ratio.high].map(number);
                    format!("{median} [{low} to {high}]")
                }));
                cells.push(best.map_or("-".to_owned(), number));
            }
            let demands = row.demands.iter().filter(|demand| demand.bound.metric == figure.metric);
            let demands: Vec<&Demand> = demands.collect();
            let words: Vec<String> = demands.iter().map(|demand| demand.bound.words()).collect();
            cells.push(words.join("; "));
            let outcome = demands.iter().map(|d| d.outcome).max_by_key(|outcome| *outcome as u8);
            cells.push(outcome.map_or(String::new(), |outcome| outcome_words(outcome).to_owned()));
            Line { cells, outcome }
        })
        .collect()
}

fn spreads(figure: &Figure, repeats: u32) -> impl Iterator<Item = String> {
    let show = |value| figure.metric.show(value);
    figure.brokers.iter().map(move |broker| match broker.spread {
        None => "-".to_owned(),
        Some(spread) => {
            let mark = if broker.is_client_bound { " *" } else { "" };
            let (median, min, max) = (show(spread.median), show(spread.min), show(spread.max));
            let count = match broker.values.len() {
                count if count < repeats as usize => format!(" ({count} of {repeats})"),
                _ => String::new(),
            };
            format!("{median}{mark} [{min} to {max}]{count}")
        }
    })
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Reached => "yes",
        Outcome::Barely => "median only",
        Outcome::Missed => "no",
        Outcome::Unknown => "open",
    }
}

fn legend(found: &Found) -> Vec<String> {
    let mut legend = vec![
        "Median [smallest to largest] of the valid measurements, (how many) where that is not all; \
         brokers take turns (A B A B ...)."
            .to_owned(),
        "Ratio: median of the ratios of neighbours, first broker to the other, [95 % bootstrap \
         interval over the pairs]. To its best: the first broker's median to the best single value \
         of the other."
            .to_owned(),
    ];
    let figures = found.rows.iter().flat_map(|row| &row.figures);
    if figures.flat_map(|figure| &figure.brokers).any(|broker| broker.is_client_bound) {
        legend.push(
            "* The client was at its limit: the broker can do more than this rate, or answer \
             faster. CPU figures hold."
                .to_owned(),
        );
    }
    legend.extend(found.notes.iter().map(|note| format!("{note}.")));
    legend
}

/// The table for a terminal.
pub fn terminal(found: &Found) -> String {
    let mut rows = vec![headings(found)];
    rows.extend(found.rows.iter().flat_map(lines).map(|line| line.cells));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for doubt in found.rows.iter().flat_map(|row| &row.doubts) {
        let _ = writeln!(text, "Doubt: {doubt}.");
    }
    let _ = writeln!(text, "\n{}", verdict(found));
    text
}

/// results.csv: every value that counts.
pub fn csv(found: &Found) -> String {
    let mut text = "work,figure,broker,number,value\n".to_owned();
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for (row, figure) in
        found.rows.iter().flat_map(|row| row.figures.iter().map(move |figure| (row, figure)))
    {
        for (of, broker) in figure.brokers.iter().zip(&found.brokers) {
            for (number, value) in (1..).zip(&of.values) {
                let (work, name) = (quoted(&row.name), quoted(&broker.spec.name));
                let _ = writeln!(text, "{work},{},{name},{number},{value}", figure.metric.0);
            }
        }
    }
    text
}

/// summary.md.
pub fn markdown(found: &Found) -> String {
    let mut text = format!("# {}\n\n{}\n\n", found.title, verdict(found));
    if !found.about.is_empty() {
        let _ = writeln!(text, "{}\n", found.about.trim());
    }
    let headings = headings(found);
    let _ = writeln!(text, "| {} |\n|{}", headings.join(" | "), "---|".repeat(headings.len()));
    for line in found.rows.iter().flat_map(lines) {
        let _ = writeln!(text, "| {} |", line.cells.join(" | "));
    }
    let _ = writeln!(text, "\n{}", legend(found).join("\n"));
    text.push_str("\n## Brokers\n\n");
    for broker in &found.brokers {
        let spec = &broker.spec;
        let version = broker.version_found.as_ref().map_or(String::new(), |v| format!(" ({v})"));
        let _ = writeln!(text, "- **{}**{version}: {}", spec.name, spec.about.trim());
        if let Some(start) = &spec.start {
            let _ = writeln!(
                text,
                "  Started by `{}`, CPUs {:?}, loaded for {} s before the first \
                 measurement.",
                start.trim(),
                spec.cpus,
                broker.warm_up_s
            );
        }
    }
    text.push_str("\n## Works\n\n");
    for row in &found.rows {
        let _ = writeln!(text, "- **{}** ({}): {}", row.title, row.name, row.about.trim());
        for doubt in &row.doubts {
            let _ = writeln!(text, "  - {doubt}");
        }
    }
    let machine = &found.machine;
    let _ = writeln!(
        text,
        "\n## Host\n\n{}, {} CPUs, {:.1} GiB, Linux {}, {}\n\n`{}`, loadgen {}, {}",
        machine.cpu,
        machine.cpus,
        machine.memory_bytes as f64 / (1_u64 << 30) as f64,
        machine.kernel,
        machine.tcp_congestion,
        found.command,
        found.version,
        found.started
    );
    text
}

/// report.html.
pub fn html(found: &Found) -> String {
    let class = if found.valid && found.demands_met { "verdict" } else { "verdict bad" };
    let mut body = format!("<p class=\"{class}\">{}</p>\n", escape(&verdict(found)));
    paragraphs(&mut body, &found.about);
    body.push_str("<div class=wide><table class=study><tr>");
    // The work has a line of its own, which leaves a phone room for figures.
    let headings = headings(found);
    for heading in &headings[1..] {
        let _ = write!(body, "<th>{}</th>", escape(heading));
    }
    body.push_str("</tr>\n");
    for line in found.rows.iter().flat_map(lines) {
        let (work, columns) = (&line.cells[0], headings.len() - 1);
        if !work.is_empty() {
            let _ =
                writeln!(body, "<tr class=work><th colspan={columns}>{}</th></tr>", escape(work));
        }
        let class = if line.outcome == Some(Outcome::Missed) { " class=missed" } else { "" };
        let cells = line.cells[1..].iter().map(|cell| match cell.split_once(" [") {
            Some((head, range)) => format!("<td>{head}<br><small>[{range}</small></td>"),
            None => format!("<td>{}</td>", escape(cell)),
        });
        let _ = writeln!(body, "<tr{class}>{}</tr>", cells.collect::<String>());
    }
    body.push_str("</table></div>\n");
    for line in legend(found) {
        let _ = writeln!(body, "<p>{}</p>", escape(&line));
    }
    for (name, charts) in curve::curves(&serde_json::to_value(found).unwrap_or_default()) {
        let _ = writeln!(body, "<h2>{}</h2>", escape(&name));
        body.push_str(&html::chart_grid(charts));
    }
    body.push_str("<h2>Every measurement</h2>\n");
    for row in found.rows.iter().filter(|row| row.is_measured() || !row.doubts.is_empty()) {
        let _ = writeln!(body, "<h3>{}</h3>", escape(&row.title));
        paragraphs(&mut body, &row.about);
        for doubt in &row.doubts {
            let _ = writeln!(body, "<p>Doubt: {}.</p>", escape(doubt));
        }
        let strips = row.figures.iter().map(|figure| strips(found, row, figure));
        let _ = writeln!(body, "<div class=charts>{}</div>", strips.collect::<String>());
    }
    brokers(&mut body, found);
    body.push_str("<h2>Works</h2>\n");
    let works: Vec<(&str, String)> =
        found.rows.iter().map(|row| (row.name.as_str(), row.work.clone())).collect();
    body.push_str(&html::text_table(&works));
    body.push_str("<h2>Host</h2>\n");
    body.push_str(&html::facts(&found.machine));
    let _ = writeln!(
        body,
        "<h2>To repeat it</h2><pre>{}</pre><p>loadgen {}, started {}</p>",
        escape(&found.command),
        found.version,
        found.started
    );
    html::page(&escape(&found.title), &body)
}

fn brokers(body: &mut String, found: &Found) {
    body.push_str("<h2>Brokers</h2>\n");
    for broker in &found.brokers {
        let spec = &broker.spec;
        let rows = [
            ("broker", spec.name.clone()),
            ("version", broker.version_found.clone().unwrap_or_else(|| "-".to_owned())),
            ("about", spec.about.trim().to_owned()),
            ("started by", spec.start.clone().unwrap_or_else(|| "-".to_owned()).trim().to_owned()),
            ("CPUs", format!("{:?}", spec.cpus)),
            ("loaded before, s", broker.warm_up_s.to_string()),
            ("durable topics", spec.durable.join(" ")),
        ];
        body.push_str(&html::text_table(&rows));
    }
}

fn paragraphs(body: &mut String, text: &str) {
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let _ = writeln!(body, "<p>{}</p>", escape(paragraph.trim()));
    }
}

/// All values of a figure as dots, a strip for each broker.
fn strips(found: &Found, row: &RowFound, figure: &Figure) -> String {
    let limit = row
        .demands
        .iter()
        .find(|demand| demand.bound.metric == figure.metric)
        .filter(|demand| demand.bound.subject == Subject::Value)
        .map(|demand| demand.bound.limit);
    let strips: Vec<(&str, &[f64])> = found
        .brokers
        .iter()
        .zip(&figure.brokers)
        .map(|(broker, values)| (broker.spec.name.as_str(), values.values.as_slice()))
        .collect();
    chart::strips(figure.metric.words(), &strips, limit, &|value| figure.metric.show(value))
}

//! `loadgen results`: the index of a folder of studies, their pictures, and the headline table of a
//! page, made from the studies' own reports. What people add stands in `notes.md` files and is
//! copied as it is.

use crate::study::curve;
use crate::study::metric::{Metric, number};
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Holds the tables, between these lines, in the page outside.
const BEGIN: &str = "<!-- made by `loadgen results`: begin -->";
const END: &str = "<!-- made by `loadgen results`: end -->";

/// Which figures make the headline.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Headline {
    brokers: Vec<String>,
    row: Vec<HeadlineRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadlineRow {
    /// What was done, in words.
    work: String,
    /// The study's folder.
    folder: String,
    /// Its row.
    row: String,
    /// Figures of it.
    figures: Vec<String>,
}

/// The index of `folder`: README.md in it.
pub fn index(folder: &Path) -> Result<String, String> {
    let mut text = read(&folder.join("notes.md"))?;
    for study in &studies(folder)? {
        let name = relative(folder, study);
        let _ = writeln!(text, "\n## {name}");
        if study.join("report.json").exists() {
            text.push_str(&summary(&json(&study.join("report.json"))?, &name, study)?);
        }
        if let Ok(notes) = fs::read_to_string(study.join("notes.md")) {
            let _ = write!(text, "\n{}", notes.trim_start());
        }
    }
    Ok(text)
}

/// The curves of all studies of `folder`: file, SVG.
pub fn pictures(folder: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut all = Vec::new();
    for study in studies(folder)?.iter().filter(|study| study.join("report.json").exists()) {
        let pictures = curve::pictures(&json(&study.join("report.json"))?);
        all.extend(pictures.into_iter().map(|(name, svg)| (study.join(name), svg)));
    }
    Ok(all)
}

/// The page `text` with the headline of `folder` between its marks.
pub fn with_headline(folder: &Path, text: &str) -> Result<String, String> {
    let marks =
        text.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = marks.ok_or_else(|| format!("the page has no lines {BEGIN} and {END}"))?;
    Ok(format!("{head}{BEGIN}\n{}{END}{tail}", headline(folder)?))
}

fn headline(folder: &Path) -> Result<String, String> {
    let path = folder.join("headline.toml");
    let wanted: Headline =
        toml::from_str(&read(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    let brokers = wanted.brokers.join(" | ");
    let mut text =
        format!("| work | {brokers} | from |\n|---|{}", "---|".repeat(wanted.brokers.len() + 1));
    text.push('\n');
    for row in &wanted.row {
        let report = json(&folder.join(&row.folder).join("report.json"))?;
        let wrong = |what: &str| format!("{}: {} has no {what}", row.folder, row.row);
        let found = rows(&report).find(|found| found["name"] == row.row.as_str());
        let found = found.ok_or_else(|| wrong("such row"))?;
        let _ = write!(text, "| {} |", row.work);
        for name in &wanted.brokers {
            let place = list(&report["brokers"]).position(|b| b["name"] == name.as_str());
            let place = place.ok_or_else(|| wrong(name))?;
            let cells = row.figures.iter().map(|metric| {
                let figure = list(&found["figures"]).find(|f| f["metric"] == metric.as_str());
                let median = figure.and_then(|f| f["brokers"][place]["spread"]["median"].as_f64());
                let median = median.ok_or_else(|| wrong(metric))?;
                let metric = Metric(metric.clone());
                let unit = metric.words().rsplit(", ").next().unwrap_or_default();
                Ok(format!("{} {unit}", metric.show(median)))
            });
            let cells = cells.collect::<Result<Vec<String>, String>>()?;
            let _ = write!(text, " {} |", cells.join(", "));
        }
        let _ = writeln!(text, " `{}` |", row.folder);
    }
    Ok(text)
}

fn studies(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut studies = Vec::new();
    find(folder, &mut studies)?;
    studies.sort();
    Ok(studies)
}

/// Folders with a report or notes, but not the single measurements within a study.
fn find(folder: &Path, studies: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let is_one = path.join("report.json").exists() || path.join("notes.md").exists();
        if is_one {
            studies.push(path);
        } else {
            find(&path, studies)?;
        }
    }
    Ok(())
}

/// A study, or another kind of result, as a table of what was measured.
fn summary(report: &Value, name: &str, folder: &Path) -> Result<String, String> {
    let mut text = String::new();
    let links = ["summary.md", "report.html", "results.csv", "study.toml"];
    let links = links.into_iter().filter(|file| folder.join(file).exists());
    let links: Vec<String> = links.map(|file| format!("[{file}]({name}/{file})")).collect();
    let command = report["command"].as_str().unwrap_or_default();
    if !command.is_empty() {
        let _ = writeln!(text, "`{command}`");
    }
    let (started, machine) = (report["started"].as_str(), &report["machine"]);
    let cpu = machine["cpu"].as_str().unwrap_or_default();
    let facts = [
        started.unwrap_or_default().to_owned(),
        format!("{} CPUs {cpu}", machine["cpus"]),
        format!("Linux {}", machine["kernel"].as_str().unwrap_or_default()),
    ];
    let _ = writeln!(text, "{}. {}.\n", facts.join(", "), links.join(", "));
    let brokers: Vec<&str> = list(&report["brokers"]).filter_map(|b| b["name"].as_str()).collect();
    if brokers.is_empty() {
        return Ok(text);
    }
    let with_ratio = brokers.len() == 2;
    let mut columns = vec!["work", "figure"];
    columns.extend(&brokers);
    if with_ratio {
        columns.extend(["ratio", "demanded", "met"]);
    }
    let _ = writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
    let is_measured = |row: &&Value| {
        list(&row["figures"]).any(|f| list(&f["brokers"]).any(|b| !b["spread"].is_null()))
    };
    for row in rows(report).filter(is_measured) {
        for (place, figure) in list(&row["figures"]).enumerate() {
            let metric = Metric(figure["metric"].as_str().unwrap_or_default().to_owned());
            let title = if place == 0 { row["title"].as_str().unwrap_or_default() } else { "" };
            let _ = write!(text, "| {title} | {} |", metric.words());
            for broker in list(&figure["brokers"]) {
                let value = broker["spread"]["median"].as_f64();
                let mark = if broker["is_client_bound"] == true { " *" } else { "" };
                let shown = value.map_or("-".to_owned(), |value| metric.show(value) + mark);
                let _ = write!(text, " {shown} |");
            }
            if with_ratio {
                let ratio = figure["ratios"][0]["median"].as_f64().map_or("-".to_owned(), number);
                let (demanded, met) = demands(row, &metric);
                let _ = write!(text, " {ratio} | {demanded} | {met} |");
            }
            text.push('\n');
        }
    }
    if text.contains(" * |") {
        text.push_str("\n\\* the client was at its limit: the broker can do more.\n");
    }
    Ok(text)
}

/// What is demanded of a figure, and whether it is met.
fn demands(row: &Value, metric: &Metric) -> (String, String) {
    let of_figure = list(&row["demands"]).filter(|demand| demand["metric"] == metric.0.as_str());
    let words = of_figure.map(|demand| {
        let relation = if demand["is_at_most"] == true { "at most" } else { "at least" };
        let limit = demand["limit"].as_f64().unwrap_or_default();
        let limit = match demand["subject"] == "ratio" {
            true => format!("ratio {relation} {}", number(limit)),
            false => format!("{relation} {}", metric.show(limit)),
        };
        let outcome = match demand["outcome"].as_str() {
            Some("reached") => "yes",
            Some("barely") => "median only",
            Some("missed") => "**no**",
            _ => "open",
        };
        (limit, outcome.to_owned())
    });
    let (limits, outcomes): (Vec<String>, Vec<String>) = words.unzip();
    (limits.join("; "), outcomes.join("; "))
}

fn rows(report: &Value) -> impl Iterator<Item = &Value> {
    list(&report["rows"])
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn relative(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn json(path: &Path) -> Result<Value, String> {
    serde_json::from_str(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

//! Every command in the pages about loadgen is one that loadgen understands, every preset and every
//! picture they name is there.

use clap::Parser;
use loadgen::args::{Cli, Command};
use loadgen::study::file;
use std::path::{Path, PathBuf};

const PAGES: [&str; 5] = [
    "docs/recipes.md",
    "docs/comparing-brokers.md",
    "docs/reading-reports.md",
    "loadgen/README.md",
    "README.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).expect("a page of the tree")
}

/// The words of a command as a shell would cut them; comments and what follows a pipe left out.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(end), _) if c == end => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    // What a reader puts in.
    words.into_iter().map(|word| if word == "PID" { "1".to_owned() } else { word }).collect()
}

/// Commands that stand on lines of their own, continued lines joined.
fn commands(text: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim_start);
    lines.filter(|line| line.starts_with("loadgen ")).map(words).collect()
}

#[test]
fn every_command_of_the_pages_is_understood() {
    let mut presets = 0;
    for page in PAGES {
        let all = commands(&read(page));
        assert!(page == "README.md" || page == "docs/reading-reports.md" || !all.is_empty());
        for command in all {
            let shown = command.join(" ");
            let parsed = Cli::try_parse_from(&command);
            let command = match parsed {
                Ok(cli) => cli.command,
                Err(error) => panic!("{page}: {shown}: {error}"),
            };
            match command {
                Command::Run(args) => assert_eq!(args.check(), Ok(()), "{page}: {shown}"),
                Command::Study(args) => {
                    let name = args.file.display().to_string();
                    if name.chars().any(|c| c.is_ascii_lowercase()) && !name.contains('.') {
                        presets += 1;
                        assert!(file::preset(&name).is_ok(), "{page}: no preset {name}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(presets >= 5, "the recipes name presets");
}

/// The pictures that a command leaves, with its folder.
fn pictures(command: &[String]) -> Vec<String> {
    let command = Cli::try_parse_from(command).expect("the other test says so").command;
    let in_folder = |folder: Option<PathBuf>, names: &[String]| -> Vec<String> {
        let folder = folder.unwrap_or_default().display().to_string();
        names.iter().map(|name| format!("{folder}/{name}")).collect()
    };
    match command {
        Command::Run(args) => {
            in_folder(args.out, &["latency.svg", "over-time.svg"].map(str::to_owned))
        }
        Command::FindMax(args) => in_folder(args.run.out, &["throughput.svg".to_owned()]),
        Command::Study(args) => {
            let study = file::preset(&args.file.display().to_string()).expect("a preset");
            let mut names = Vec::new();
            for row in &study.rows {
                let mut parts = row.name.split(',');
                let base = parts.next().unwrap_or_default();
                let numbers = parts.filter_map(|part| part.split_once('='));
                let numbers = numbers.filter(|(_, value)| value.parse::<f64>().is_ok());
                for (axis, _) in numbers {
                    let figures = 1..=row.metrics.len();
                    names.extend(figures.map(|number| format!("{base}-by-{axis}-{number}.svg")));
                }
            }
            in_folder(Some(args.out), &names)
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_recipe_ends_in_a_command_and_a_picture_that_it_leaves() {
    let text = read("docs/recipes.md");
    let recipes: Vec<&str> = text.split("\n## ").skip(1).filter(|r| r.contains('?')).collect();
    assert_eq!(recipes.len(), 10);
    for recipe in recipes {
        let title = recipe.lines().next().unwrap_or_default();
        let commands = commands(recipe);
        assert_eq!(commands.len(), 1, "{title}");
        let picture = recipe.split("Picture: `").nth(1).and_then(|rest| rest.split('`').next());
        let picture = picture.unwrap_or_else(|| panic!("{title}: no picture")).to_owned();
        let left = pictures(&commands[0]);
        assert!(left.contains(&picture), "{title}: {picture} is none of {left:?}");
        // One that was measured is shown.
        let shown = recipe.split("](../").nth(1).and_then(|rest| rest.split(')').next());
        let shown = shown.unwrap_or_else(|| panic!("{title}: no picture is shown"));
        assert!(root().join(shown).exists(), "{title}: {shown}");
    }
}

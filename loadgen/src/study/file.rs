//! A study from its TOML file; errors name the line and the field.

use super::changed::is_name;
use super::control::Control;
use super::metric::{Bound, Metric};
use super::{Row, Study, Work};
use crate::args::{Cli, Command, CompareArgs, RunArgs, parse_address, parse_duration};
use crate::brokers::BrokerSpec;
use clap::Parser;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    title: String,
    #[serde(default)]
    about: String,
    #[serde(default = "five")]
    repeats: u32,
    #[serde(default = "two")]
    retries: u32,
    #[serde(default)]
    client_cpus: Vec<usize>,
    host_tcp_congestion: Option<String>,
    settle: Option<Spanned<String>>,
    #[serde(default)]
    broker: Vec<BrokerFile>,
    row: Vec<RowFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokerFile {
    name: Spanned<String>,
    #[serde(default)]
    about: String,
    address: Option<Spanned<String>>,
    pid: Option<u32>,
    start: Option<String>,
    #[serde(default)]
    prints_pid: bool,
    version: Option<String>,
    #[serde(default)]
    cpus: Vec<usize>,
    warm_up: Option<Spanned<String>>,
    fill: Option<Spanned<String>>,
    #[serde(default)]
    durable: Vec<String>,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowFile {
    name: Spanned<String>,
    title: Option<String>,
    #[serde(default)]
    about: String,
    run: Option<Spanned<String>>,
    consume: Option<Spanned<String>>,
    fill: Option<Spanned<String>>,
    control: Option<ControlFile>,
    #[serde(default)]
    start: bool,
    recover: Option<Spanned<String>>,
    idle: Option<Spanned<String>>,
    churn: Option<Spanned<String>>,
    crash: Option<Spanned<String>>,
    #[serde(default)]
    durable: bool,
    #[serde(default)]
    bounds: Vec<Spanned<String>>,
    #[serde(default)]
    show: Vec<Spanned<String>>,
    repeats: Option<u32>,
    #[serde(default)]
    axes: BTreeMap<String, Vec<AxisValue>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AxisValue {
    Whole(i64),
    Part(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlFile {
    command: String,
    topic: Option<Spanned<String>>,
    records: u64,
    record_bytes: u64,
}

fn five() -> u32 {
    5
}

fn two() -> u32 {
    2
}

/// A text with the name it has in messages.
#[derive(Clone, Copy)]
struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn error<T>(&self, at: &Spanned<T>, what: impl std::fmt::Display) -> String {
        let line = self.text[..at.span().start].lines().count().max(1);
        // A span that begins a line ends the text before it with a line feed.
        let line = line + usize::from(self.text[..at.span().start].ends_with('\n'));
        format!("{}, line {line}: {what}", self.name)
    }
}

/// Parses the text of a study; `name` is its file.
pub fn parse(name: &str, text: &str) -> Result<Study, String> {
    let file: StudyFile = toml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
    let source = Source { name, text };
    let mut brokers = Vec::new();
    for broker in file.broker {
        brokers.push(broker_spec(source, broker)?);
    }
    let mut rows: Vec<Row> = Vec::new();
    for row in &file.row {
        for (suffix, options) in combinations(&row.axes) {
            let expanded = row_of(source, row, &suffix, &options)?;
            if rows.iter().any(|row| row.name == expanded.name) {
                return Err(source.error(&row.name, format!("row {} comes twice", expanded.name)));
            }
            rows.push(expanded);
        }
    }
    Ok(Study {
        title: file.title,
        about: file.about,
        repeats: file.repeats.max(1),
        retries: file.retries,
        client_cpus: file.client_cpus,
        host_tcp_congestion: file.host_tcp_congestion,
        settle: duration(source, "settle", file.settle, Duration::from_secs(2))?,
        brokers,
        rows,
        only: Vec::new(),
        text: text.to_owned(),
    })
}

const PRESETS: &str = include_str!("presets.toml");

/// The study of that name, without brokers.
pub fn preset(name: &str) -> Result<Study, String> {
    let mut study = parse("presets.toml", PRESETS)?;
    let is_of = |row: &Row| row.name.split(',').next() == Some(name);
    if !study.rows.iter().any(is_of) {
        let mut names: Vec<&str> =
            study.rows.iter().filter_map(|row| row.name.split(',').next()).collect();
        names.dedup();
        return Err(format!("{name}: no such file, and no preset: those are {}", names.join(", ")));
    }
    study.rows.retain(is_of);
    study.title = name.to_owned();
    study.text = format!("# {name}\n");
    Ok(study)
}

/// A broker that is there, from HOST:PORT or HOST:PORT@PID.
pub fn broker_at(name: Option<&str>, text: &str) -> Result<BrokerSpec, String> {
    let (address, pid) = text.split_once('@').map_or((text, None), |(a, p)| (a, Some(p)));
    let wrong = || format!("'{text}' is not HOST:PORT or HOST:PORT@PID");
    let pid = pid.map(str::parse).transpose().map_err(|_| wrong())?;
    Ok(BrokerSpec {
        name: name.map_or_else(|| address.replace(':', "-"), str::to_owned),
        address: Some(parse_address(address).map_err(|_| wrong())?),
        pid,
        ..Default::default()
    })
}

/// A study of one row on two brokers that are there.
pub fn comparison(args: &CompareArgs) -> Result<Study, String> {
    let words = ["loadgen".to_owned(), "run".to_owned()].into_iter().chain(args.run.clone());
    let parsed = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let Command::Run(run) = parsed.command else { return Err("not a run".to_owned()) };
    run.check()?;
    let bounds = args.bound.iter().map(|bound| Bound::parse(bound));
    let bounds: Vec<Bound> = bounds.collect::<Result<_, _>>()?;
    let (work, metrics) = (Work::Run(run), figures(&bounds, &args.show));
    if let Some(metric) = metrics.iter().find(|metric| !work.has(metric)) {
        return Err(format!("there is no figure {} in report.json", metric.0));
    }
    let (first, mut second) = (broker_at(None, &args.first)?, broker_at(None, &args.second)?);
    if first.name == second.name {
        // One broker with itself shows what is noise.
        second.name.push_str("-again");
    }
    let row = Row {
        name: "run".to_owned(),
        title: "loadgen run".to_owned(),
        about: args.run.join(" "),
        work,
        is_durable: false,
        metrics,
        bounds,
        repeats: None,
    };
    Ok(Study {
        title: format!("{} and {}", args.first, args.second),
        about: String::new(),
        repeats: args.repeats,
        retries: two(),
        client_cpus: args.cpus.clone(),
        host_tcp_congestion: None,
        settle: Duration::from_secs(1),
        brokers: vec![first, second],
        rows: vec![row],
        only: Vec::new(),
        text: format!("# {} {} {:?} {:?}\n", args.first, args.second, args.cpus, args.run),
    })
}

/// The figures of bounds, then the others asked for.
fn figures(bounds: &[Bound], show: &[String]) -> Vec<Metric> {
    let mut figures: Vec<Metric> = Vec::new();
    let named = bounds.iter().map(|bound| bound.metric.clone());
    for metric in named.chain(show.iter().cloned().map(Metric)) {
        if !figures.contains(&metric) {
            figures.push(metric);
        }
    }
    figures
}

fn duration(
    source: Source<'_>,
    field: &str,
    text: Option<Spanned<String>>,
    default: Duration,
) -> Result<Duration, String> {
    text.map_or(Ok(default), |text| {
        let parsed = parse_duration(text.get_ref());
        parsed.map_err(|error| source.error(&text, format!("{field}: {error}")))
    })
}

fn broker_spec(source: Source<'_>, broker: BrokerFile) -> Result<BrokerSpec, String> {
    if broker.address.is_some() == broker.start.is_some() {
        let what = format!("broker {} needs `address` or `start`", broker.name.get_ref());
        return Err(source.error(&broker.name, what));
    }
    slug(source, &broker.name)?;
    Ok(BrokerSpec {
        name: broker.name.into_inner(),
        about: broker.about,
        address: broker.address.map(|at| address(source, &at)).transpose()?,
        pid: broker.pid,
        start: broker.start,
        prints_pid: broker.prints_pid,
        version: broker.version,
        cpus: broker.cpus,
        warm_up: duration(source, "warm_up", broker.warm_up, Duration::ZERO)?,
        fill: broker.fill.map(|options| run_args(source, &options, "")).transpose()?,
        durable: broker.durable,
        before: broker.before,
        after: broker.after,
        variables: Vec::new(),
    })
}

fn address(source: Source<'_>, text: &Spanned<String>) -> Result<String, String> {
    parse_address(text.get_ref()).map_err(|error| source.error(text, format!("address: {error}")))
}

/// Names become folders.
fn slug(source: Source<'_>, name: &Spanned<String>) -> Result<(), String> {
    let text = name.get_ref();
    match is_name(text) {
        true => Ok(()),
        false => Err(source.error(name, format!("name '{text}': letters, digits, - _ . only"))),
    }
}

/// Every combination of the axes' values: what it is called, and the options.
fn combinations(axes: &BTreeMap<String, Vec<AxisValue>>) -> Vec<(String, String)> {
    let mut all = vec![(String::new(), String::new())];
    for (axis, values) in axes {
        let words: Vec<String> = values
            .iter()
            .map(|value| match value {
                AxisValue::Whole(number) => number.to_string(),
                AxisValue::Part(number) => number.to_string(),
                AxisValue::Text(text) => text.clone(),
            })
            .collect();
        let with = |(name, options): &(String, String), value: &String| {
            (format!("{name},{axis}={value}"), format!("{options} --{axis} {value}"))
        };
        all = all.iter().flat_map(|one| words.iter().map(move |value| with(one, value))).collect();
    }
    all
}

fn row_of(source: Source<'_>, row: &RowFile, suffix: &str, axes: &str) -> Result<Row, String> {
    slug(source, &row.name)?;
    let work = work(source, row, axes)?;
    let check = |metric: &Metric, at: &Spanned<String>| {
        let unknown = || format!("there is no figure {} in what this row measures", metric.0);
        if work.has(metric) { Ok(()) } else { Err(source.error(at, unknown())) }
    };
    let mut bounds = Vec::new();
    for text in &row.bounds {
        let bound = Bound::parse(text.get_ref());
        let bound = bound.map_err(|error| source.error(text, format!("bounds: {error}")))?;
        check(&bound.metric, text)?;
        bounds.push(bound);
    }
    for text in &row.show {
        check(&Metric(text.get_ref().clone()), text)?;
    }
    let show: Vec<String> = row.show.iter().map(|text| text.get_ref().clone()).collect();
    let metrics = figures(&bounds, &show);
    if metrics.is_empty() {
        return Err(source.error(&row.name, "`bounds` or `show` must name a figure"));
    }
    let name = row.name.get_ref();
    Ok(Row {
        name: format!("{name}{suffix}"),
        title: format!("{}{suffix}", row.title.as_ref().unwrap_or(name)),
        about: row.about.clone(),
        work,
        is_durable: row.durable,
        bounds,
        metrics,
        repeats: row.repeats,
    })
}

fn check_kind(source: Source<'_>, row: &RowFile) -> Result<(), String> {
    let kinds = [
        row.run.is_some(),
        row.consume.is_some(),
        row.control.is_some(),
        row.start,
        row.recover.is_some(),
        row.idle.is_some(),
        row.churn.is_some(),
        row.crash.is_some(),
    ];
    if kinds.iter().filter(|&&is_there| is_there).count() != 1 {
        let what = "a row has one of run, consume, control, start, recover, idle, churn, crash";
        return Err(source.error(&row.name, what));
    }
    Ok(())
}

/// What the command line makes of options after the words `prefix`.
fn command(
    source: Source<'_>,
    options: &Spanned<String>,
    prefix: &[&str],
    axes: &str,
) -> Result<Command, String> {
    let text = format!("{} {axes}", options.get_ref());
    let words = ["loadgen"].into_iter().chain(prefix.iter().copied());
    let parsed = Cli::try_parse_from(words.chain(text.split_whitespace()));
    parsed.map(|cli| cli.command).map_err(|error| {
        let text = error.to_string();
        let (what, _) = text.split_once("\n\nUsage").unwrap_or((&text, ""));
        let words: Vec<&str> = what.split_whitespace().collect();
        let words = words.join(" ");
        source.error(options, words.trim_start_matches("error: "))
    })
}

fn run_args(
    source: Source<'_>,
    options: &Spanned<String>,
    axes: &str,
) -> Result<Box<RunArgs>, String> {
    match command(source, options, &["run"], axes)? {
        Command::Run(args) => args.check().map(|()| args).map_err(|e| source.error(options, e)),
        _ => unreachable!("it begins with run"),
    }
}

fn work(source: Source<'_>, row: &RowFile, axes: &str) -> Result<Work, String> {
    check_kind(source, row)?;
    let parse = |options, prefix, axes| command(source, options, prefix, axes);
    let run = |options, axes| run_args(source, options, axes);
    if let Some(options) = &row.run {
        return Ok(Work::Run(run(options, axes)?));
    }
    if let Some(options) = &row.consume {
        let fill = row.fill.as_ref().ok_or_else(|| {
            source.error(options, "consume needs `fill`, the options of the run that fills it")
        })?;
        let fill = run(fill, "")?;
        let Command::Consume(args) = parse(options, &["consume", "--topic", "-"], axes)? else {
            unreachable!("it begins with consume")
        };
        return Ok(Work::Consume(fill, Box::new(args)));
    }
    if let Some(control) = &row.control {
        let is_producing = row.fill.is_none();
        let topic = match row.fill.as_ref().or(control.topic.as_ref()) {
            Some(options) => run(options, "")?,
            None => Box::new(RunArgs::with_defaults()),
        };
        let (records, record_bytes) = (control.records, control.record_bytes);
        let command = control.command.clone();
        return Ok(Work::Control(topic, Control { command, records, record_bytes, is_producing }));
    }
    if let Some(options) = &row.recover {
        let Command::Recover(args) = parse(options, &["recover", "--start", "-"], axes)? else {
            unreachable!("it begins with recover")
        };
        return Ok(Work::Recover(args));
    }
    if let Some(options) = &row.idle {
        let Command::Idle(args) = parse(options, &["idle"], axes)? else {
            unreachable!("it begins with idle")
        };
        return Ok(Work::Idle(Box::new(args)));
    }
    if let Some(options) = &row.churn {
        let Command::Churn(args) = parse(options, &["churn"], axes)? else {
            unreachable!("it begins with churn")
        };
        return Ok(Work::Churn(Box::new(args)));
    }
    if let Some(options) = &row.crash {
        let Command::Crash(args) = parse(options, &["crash", "--start", "-"], axes)? else {
            unreachable!("it begins with crash")
        };
        return Ok(Work::Crash(args));
    }
    Ok(Work::Start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: &str = "title = \"t\"\n[[broker]]\nname = \"A\"\naddress = \"127.0.0.1:1\"\n";

    fn row(text: &str) -> Result<Study, String> {
        parse("s.toml", &format!("{BROKER}[[row]]\nname = \"r\"\n{text}\n"))
    }

    #[test]
    fn a_row_is_what_the_command_line_says() {
        let text = "run = \"--batch-records 7 --acks all\"\nshow = [\"records_per_second\"]\n\
                    bounds = [\"bytes_per_second ratio >= 2\"]\ndurable = true";
        let study = row(text).expect("a study");
        let Work::Run(args) = &study.rows[0].work else { panic!("a run") };
        assert_eq!((args.batch_records, args.acks.word()), (7, "all"));
        let names: Vec<&str> = study.rows[0].metrics.iter().map(|m| m.0.as_str()).collect();
        assert_eq!(names, ["bytes_per_second", "records_per_second"]);
        assert_eq!((study.repeats, study.rows[0].is_durable), (5, true));
    }

    #[test]
    fn every_preset_is_a_sound_study_and_others_are_listed() {
        let all = parse("presets.toml", PRESETS).expect("presets are studies");
        for row in &all.rows {
            let name = row.name.split(',').next().expect("a part");
            let study = preset(name).expect(name);
            assert!(study.rows.iter().all(|row| row.name.starts_with(name)));
        }
        assert_eq!(preset("acks-x-batching").expect("it is one").rows.len(), 12);
        let error = preset("nothing").expect_err("no preset");
        assert!(error.contains("throughput-1k, small-batch-cpu"), "{error}");
    }

    #[test]
    fn the_studies_of_the_repository_are_sound() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let folders = ["tuning/studies", "bench-results/kafka-4.3", "bench-results/millrace"];
        let entries = folders.map(|f| std::fs::read_dir(format!("{root}/{f}")).expect("a folder"));
        let entries = entries.into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        files.retain(|file| file.extension().is_some_and(|kind| kind == "toml"));
        assert!(files.len() > 8, "{files:?}");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("readable");
            let study = parse(&file.display().to_string(), &text).expect("a study");
            let is_paired = |b: &BrokerSpec| b.after.is_none() || b.before.is_some();
            assert!(study.brokers.iter().all(is_paired), "{}", file.display());
        }
    }

    #[test]
    fn axes_make_a_row_of_each_combination() {
        let text = "run = \"\"\nshow = [\"records_per_second\"]\naxes = { acks = [\"0\", \"1\"], batch-records = [1, 9] }";
        let study = row(text).expect("a study");
        let names: Vec<&str> = study.rows.iter().map(|row| row.name.as_str()).collect();
        let expected = [
            "r,acks=0,batch-records=1",
            "r,acks=0,batch-records=9",
            "r,acks=1,batch-records=1",
            "r,acks=1,batch-records=9",
        ];
        assert_eq!(names, expected);
        let Work::Run(args) = &study.rows[3].work else { panic!("a run") };
        assert_eq!((args.batch_records, args.acks.word()), (9, "1"));
    }

    #[test]
    fn errors_name_the_line_and_the_field() {
        let rows = [
            (
                "run = \"--batch-records x\"\nshow = [\"records_per_second\"]",
                "line 7: ",
                "--batch-records",
            ),
            (
                "run = \"--record-bytes 3\"\nshow = [\"records_per_second\"]",
                "line 7: ",
                "--record-bytes 3",
            ),
            ("run = \"\"\nshow = []\nbounds = [\"x ratio 3\"]", "line 9: ", "METRIC"),
            ("run = \"\"\nshow = [\"response_us.p98\"]", "line 8: ", "no figure response_us.p98"),
            ("start = true\nbounds = [\"lost value <= 0\"]", "line 8: ", "no figure lost"),
            ("run = \"\"", "line 6: ", "must name a figure"),
            ("show = [\"records_per_second\"]", "line 6: ", "one of run, consume"),
            (
                "run = \"\"\nstart = true\nshow = [\"records_per_second\"]",
                "line 6: ",
                "one of run, consume",
            ),
            ("consume = \"\"\nshow = [\"records_per_second\"]", "line 7: ", "`fill`"),
            (
                "run = \"\"\nshow = [\"records_per_second\"]\n[[broker]]\nname = \"B\"\naddress = \"b\"",
                "line 11: ",
                "address: 'b' is not HOST:PORT",
            ),
            (
                "run = \"\"\nshow = [\"records_per_second\"]\n[[broker]]\nname = \"B\"\nstart = \"b\"\n\
              warm_up = \"10\"",
                "line 12: ",
                "warm_up: '10' needs a unit",
            ),
            ("runn = \"\"\nshow = [\"records_per_second\"]", "line 7", "runn"),
            ("run = 5", "line 7", "invalid type"),
            ("run = \"", "line 7", "basic string"),
        ];
        for (text, line, words) in rows {
            let error = row(text).expect_err(text);
            assert!(error.starts_with("s.toml"), "{error}");
            assert!(error.contains(line) && error.contains(words), "{text}: {error}");
        }
        let twice =
            format!("{BROKER}[[row]]\nname = \"r\"\nrun = \"\"\nshow = [\"records_per_second\"]\n")
                .to_owned()
                + "[[row]]\nname = \"r\"\nrun = \"\"\nshow = [\"records_per_second\"]\n";
        assert!(parse("s", &twice).expect_err("twice").contains("line 10: row r comes twice"));
        let neither =
            "title = \"t\"\n[[broker]]\nname = \"A\"\n[[row]]\nname = \"r\"\nstart = true";
        assert!(parse("s", neither).expect_err("no address").contains("line 3: broker A needs"));
    }
}

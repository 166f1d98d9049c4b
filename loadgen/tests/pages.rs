//! Report pages in a browser: opened by Chromium on a desk, on a phone and on paper; nothing said
//! on the console, nothing cut off, no text upon another.

mod fake;
mod harness;

use fake::{Fake, Fault};
use harness::{Folder, args, run};
use loadgen::study::found::Found;
use loadgen::study::{file, page};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Shows a page in a frame of a width, and says what is wrong with it.
const LOOK: &str = r#"<!doctype html><meta charset=utf-8><body style="margin:0">
<iframe id=frame src="report.html" style="border:0;width:WIDTHpx;height:2000px"></iframe>
<pre id=found></pre><script>
frame.onload = () => {
  const page = frame.contentDocument, faults = [];
  const wide = page.documentElement.scrollWidth;
  if (wide > WIDTH) faults.push(`the page is ${wide} wide`);
  const charts = [...page.querySelectorAll('svg')];
  for (const svg of charts) {
    const name = svg.getAttribute('aria-label'), box = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent);
    const boxes = texts.map(text => text.getBoundingClientRect());
    boxes.forEach((a, i) => {
      const words = texts[i].textContent;
      if (a.height < 9) faults.push(`${name}: '${words}' is ${a.height.toFixed(1)} high`);
      if (a.left < box.left - 1 || a.right > box.right + 1 || a.bottom > box.bottom + 1)
        faults.push(`${name}: '${words}' is cut off`);
      boxes.slice(0, i).forEach((b, j) => {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 1 && down > 3)
          faults.push(`${name}: '${words}' lies upon '${texts[j].textContent}'`);
      });
    });
    if (![...svg.querySelectorAll('circle')].every(dot => dot.querySelector('title')))
      faults.push(`${name}: a dot says nothing`);
  }
  found.textContent = JSON.stringify({ charts: charts.length, faults });
};
</script>"#;

fn chromium(arguments: &[String], url: &Path) -> Option<Output> {
    let program = std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into());
    let quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"];
    // One that hangs is a failure, not the end of all tests.
    let mut command = Command::new("timeout");
    command.arg("120").arg(program);
    // Whoever runs the tests may have no home to write to.
    command.args(quiet).arg(format!("--user-data-dir={}", url.with_extension("home").display()));
    let url = format!("file://{}", url.display());
    let done = command.args(arguments).arg("--allow-file-access-from-files").arg(url).output();
    // 127: there is no such program.
    done.ok().filter(|output| output.status.code() != Some(127))
}

/// What the console was told.
fn console(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
}

fn look(name: &str, html: &str) {
    let folder = Folder::new();
    fs::write(folder.0.join("report.html"), html).expect("a folder of our own");
    for width in ["1200", "390"] {
        let path = folder.0.join("look.html");
        fs::write(&path, LOOK.replace("WIDTH", width)).expect("a folder of our own");
        let arguments = ["--dump-dom", "--virtual-time-budget=5000"].map(str::to_owned);
        let output = chromium(&arguments, &path).expect("it was there a moment ago");
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split('<').next());
        let found: Value = serde_json::from_str(&found.unwrap_or_default().replace("&gt;", ">"))
            .unwrap_or_else(|error| panic!("{name}, {width}: {error}: {dom}"));
        assert_eq!(found["faults"], json!([]), "{name}, {width} wide");
        assert!(found["charts"].as_u64() >= Some(4), "{name}: {found}");
        assert_eq!(console(&output), Vec::<String>::new(), "{name}, {width} wide");
    }
    let pdf = folder.0.join("report.pdf");
    let print = [format!("--print-to-pdf={}", pdf.display())];
    let output = chromium(&print, &folder.0.join("report.html")).expect("it was there");
    assert_eq!(console(&output), Vec::<String>::new(), "{name}, printed");
    assert!(fs::read(&pdf).is_ok_and(|bytes| bytes.starts_with(b"%PDF")), "{name}: no print");
}

/// A study of two brokers with long names and many curves, all figures made up.
fn study_page() -> String {
    let text = r#"
title = "Two brokers"
about = "Made up."
repeats = 3
broker = [
  { name = "Millrace", address = "127.0.0.1:1" },
  { name = "Apache Kafka", address = "127.0.0.1:2" },
]
[[row]]
name = "acks-x-batching"
run = ""
axes = { acks = ["0", "1", "all"], batch-records = [1, 3, 15, 63, 1012] }
show = ["bytes_per_second", "broker_cpu_us_per_record", "response_us.p99"]
[[row]]
name = "acks-x-batching,flush=each"
run = ""
axes = { acks = ["all"], batch-records = [1, 3, 15, 63, 1012] }
show = ["bytes_per_second", "broker_cpu_us_per_record", "response_us.p99"]
[[row]]
name = "linger"
run = "--rate 1000"
axes = { linger-ms = [0.1, 1, 5, 20, 100] }
bounds = ["response_us.p50 value <= 30000", "response_us.p50 ratio <= 0.5"]
show = []
"#;
    let study = file::parse("made-up.toml", text).expect("a study");
    let mut found = Found::of(&study, "loadgen study made-up.toml --out made-up");
    for (place, row) in (1..).zip(&study.rows) {
        for (broker, repeat) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let x = f64::from(place) * (1.0 + broker as f64) * (1.0 + f64::from(repeat) / 20.0);
            let report = json!({
                "valid": true,
                "bytes_per_second": 123_456_789.0 / x,
                "broker_cpu_us_per_record": 98.7 * x,
                "response_us": { "p50": 4_321.0 * x, "p99": 234_567.0 * x },
            });
            found.add(&row.name, broker, repeat, &report);
        }
    }
    found.sum_up(&study);
    page::html(&found)
}

#[test]
fn pages_are_readable_on_a_desk_on_a_phone_and_on_paper() {
    if chromium(&["--version".to_owned()], Path::new("/")).is_none() {
        println!("skipped: no chromium; CHROMIUM=FILE names one");
        return;
    }
    let fake = Fake::start(Fault::Delay(Duration::from_millis(1)));
    let mut args = args(&fake);
    args.target.pid = Some(std::process::id());
    let (outcome, folder) = (run(&args), Folder::new());
    outcome.write(&folder.0).expect("a folder of our own");
    let run_page = fs::read_to_string(folder.0.join("report.html")).expect("it was written");
    look("a run", &run_page);
    look("a study", &study_page());
}

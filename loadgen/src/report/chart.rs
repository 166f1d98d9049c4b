//! Line charts as inline SVG: axes with units, a legend, values on hover, no script.

use std::fmt::Write;

// Small enough for its text to be read on a phone; two go side by side on a desk.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 44.0;
/// Of a line of the legend.
const LINE: f64 = 16.0;
/// Okabe and Ito's palette, which colour-blind people can tell apart; dashes help in print.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const DASHES: [&str; 6] = ["", "6 3", "2 2", "9 3 2 3", "12 4", "2 5"];

/// How a coordinate is spread over its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// Powers of ten.
    Log,
    /// Quantiles by the number of nines: 0, 0.9, 0.99 ...
    Nines,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// (x, y).
    pub points: Vec<(f64, f64)>,
    /// Number of its colour and of its dashes; `None`: by its place among the lines.
    pub style: Option<(usize, usize)>,
}

impl Series {
    /// With a style by its place.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, style: None }
    }

    fn style(&self, place: usize) -> (&'static str, &'static str) {
        let (colour, dashes) = self.style.unwrap_or((place, place));
        (COLOURS[colour % COLOURS.len()], DASHES[dashes % DASHES.len()])
    }
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below it, with the unit.
    pub x_label: String,
    /// How x is spread.
    pub x_scale: Scale,
    /// How y is spread.
    pub y_scale: Scale,
    /// A y in words, with the unit.
    pub y_words: fn(f64) -> String,
    /// An x in words.
    pub x_words: fn(f64) -> String,
    /// The lines; those without points are left out.
    pub series: Vec<Series>,
}

/// Where a chart's parts lie, which depends on the lines of its legend.
struct Frame {
    x: Axis,
    y: Axis,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT);
        (across, self.bottom - self.y.place(y) * (self.bottom - self.top))
    }
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
        }
        match scale {
            Scale::Linear => Self { scale, low: 0.0, high: nice(high.max(1e-9)) },
            Scale::Log => {
                let low = low.max(1e-3).log10().floor();
                let high = high.max(1e-3).log10().ceil().max(low + 1.0);
                Self { scale, low, high }
            }
            Scale::Nines => Self { scale, low: 0.0, high: nines(high).ceil().max(1.0) },
        }
    }

    /// 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-3).log10(),
            Scale::Nines => nines(value),
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => (0..=4).map(|step| self.high * f64::from(step) / 4.0).collect(),
            Scale::Log => (self.low as i32..=self.high as i32).map(|n| 10_f64.powi(n)).collect(),
            Scale::Nines => (0..=self.high as i32).map(|n| 1.0 - 10_f64.powi(-n)).collect(),
        }
    }
}

fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-12).log10()
}

/// The next 1, 2, 2.5 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|f| f * power >= value * 0.9999);
    factor.unwrap_or(10.0) * power
}

impl Chart {
    /// The SVG element; a sentence when there is nothing to draw.
    pub fn svg(&self) -> String {
        let drawn: Vec<&Series> =
            self.series.iter().filter(|series| !series.points.is_empty()).collect();
        if drawn.is_empty() {
            return format!("<p class=none>{}: no samples.</p>\n", escape(&self.title));
        }
        let all = || drawn.iter().flat_map(|series| series.points.iter());
        let mut x = Axis::new(self.x_scale, all().map(|point| point.0));
        // Time ends where it ends.
        let x_max = all().map(|point| point.0).fold(1e-9, f64::max);
        match self.x_scale {
            Scale::Linear => x.high = x_max,
            Scale::Log => x.high = x_max.log10().max(x.low + 0.1),
            Scale::Nines => {}
        }
        let y = Axis::new(self.y_scale, all().map(|point| point.1));
        let legend = places(drawn.iter().map(|series| series.name.as_str()));
        let more = legend.last().map_or(0.0, |place| place.1);
        let height = HEIGHT + more;
        let frame = Frame { x, y, top: TOP + more, bottom: height - BOTTOM };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"{0}\">\
             <text x=4 y=16 class=title>{0}</text>\n",
            escape(&self.title)
        );
        self.draw_axes(&mut svg, &frame);
        for (place, (series, at)) in drawn.iter().zip(legend).enumerate() {
            self.draw_series(&mut svg, &frame, series, series.style(place), at);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The same as a file of its own.
    pub fn standalone(&self) -> String {
        const STYLE: &str = "text{font:12px system-ui,sans-serif}.title{font-weight:600}\
            .grid{stroke:#ddd}.line{fill:none;stroke-width:2}.ytick{text-anchor:end;fill:#555}\
            .xtick{text-anchor:middle;fill:#555}.hover circle{fill:transparent}";
        let back =
            format!("<style>{STYLE}</style><rect width={WIDTH} height=\"100%\" fill=#fff />");
        let svg = self.svg().replacen('>', &format!(">{back}"), 1);
        // Attributes without quotes are HTML's, not XML's.
        quoted(&svg.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1))
    }

    fn draw_axes(&self, svg: &mut String, frame: &Frame) {
        let (right, top, bottom) = (WIDTH - RIGHT, frame.top, frame.bottom);
        for tick in frame.y.ticks() {
            let (_, at) = frame.at((0.0, tick));
            let words = escape(&(self.y_words)(tick));
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{right}\" class=grid />\
                 <text x={:.1} y={:.1} class=ytick>{words}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for tick in frame.x.ticks() {
            let (at, _) = frame.at((tick, 0.0));
            let words = escape(&(self.x_words)(tick));
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {top}V{bottom}\" class=grid />\
                 <text x={at:.1} y={:.1} class=xtick>{words}</text>",
                bottom + 16.0
            );
        }
        let middle = (LEFT + right) / 2.0;
        let label = escape(&self.x_label);
        let at = bottom + BOTTOM - 8.0;
        let _ = writeln!(svg, "<text x={middle:.1} y={at:.1} class=xtick>{label}</text>");
    }

    fn draw_series(
        &self,
        svg: &mut String,
        frame: &Frame,
        series: &Series,
        (colour, dashes): (&str, &str),
        (legend_x, legend_y): (f64, f64),
    ) {
        let name = escape(&series.name);
        let mut path = String::new();
        let mut hover = String::new();
        for (place, &(px, py)) in series.points.iter().enumerate() {
            let (cx, cy) = frame.at((px, py));
            let letter = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{cx:.1} {cy:.1}");
            let words = format!("{name}: {} at {}", (self.y_words)(py), (self.x_words)(px));
            let _ = write!(
                hover,
                "<circle cx={cx:.1} cy={cy:.1} r=5><title>{}</title></circle>",
                escape(&words)
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" class=line stroke=\"{colour}\" stroke-dasharray=\"{dashes}\" />\
             <path d=\"M{legend_x:.1} {:.1}h22\" class=line stroke=\"{colour}\" \
             stroke-dasharray=\"{dashes}\" /><text x={:.1} y={:.1} class=legend>{name}</text>\n\
             <g class=hover>{hover}</g>",
            legend_y + 34.0,
            legend_x + 28.0,
            legend_y + 38.0
        );
    }
}

/// Where the names of a legend go, in as many lines as they need: across, and down from the first.
fn places<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(f64, f64)> {
    let (mut x, mut y) = (LEFT, 0.0);
    let places = names.map(|name| {
        // At the size that phones get.
        let width = 42.0 + 7.6 * name.chars().count() as f64;
        if x > LEFT && x + width > WIDTH {
            (x, y) = (LEFT, y + LINE);
        }
        x += width;
        (x - width, y)
    });
    places.collect()
}

/// Values as dots on one axis from 0, a strip for each name; `limit` is a line across.
pub fn strips(
    title: &str,
    strips: &[(&str, &[f64])],
    limit: Option<f64>,
    words: &dyn Fn(f64) -> String,
) -> String {
    const STRIP: f64 = 26.0;
    const NAMES: f64 = 120.0;
    const TOP: f64 = 28.0;
    let values = || strips.iter().flat_map(|strip| strip.1).copied();
    if values().next().is_none() {
        return format!("<p class=none>{}: not measured.</p>\n", escape(title));
    }
    let axis = Axis::new(Scale::Linear, values().chain(limit));
    let at = |value: f64| NAMES + axis.place(value) * (WIDTH - NAMES - RIGHT);
    let bottom = TOP + STRIP * strips.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=img aria-label=\"{1}\">\
         <text x=4 y=16 class=title>{1}</text>\n",
        bottom + 22.0,
        escape(title)
    );
    for tick in axis.ticks() {
        let (x, y, mut tick) = (at(tick), bottom + 16.0, escape(&words(tick)));
        if tick.contains('.') {
            tick.truncate(tick.trim_end_matches('0').trim_end_matches('.').len());
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" class=grid />\
             <text x={x:.1} y={y:.1} class=xtick>{tick}</text>"
        );
    }
    if let Some(limit) = limit {
        let (x, limit) = (at(limit), escape(&words(limit)));
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" class=line stroke=#000 stroke-dasharray=\"4 3\">\
             <title>demanded: {limit}</title></path>"
        );
    }
    for (place, (name, values)) in strips.iter().enumerate() {
        let y = TOP + STRIP * (place as f64 + 0.5);
        let colour = COLOURS[place % COLOURS.len()];
        let _ = writeln!(svg, "<text x=4 y={:.1}>{}</text>", y + 4.0, escape(name));
        for (repeat, &value) in values.iter().enumerate() {
            let (x, shown) = (at(value), escape(&words(value)));
            let _ = write!(
                svg,
                "<circle cx={x:.1} cy={y:.1} r=5 fill=\"{colour}\" fill-opacity=.55>\
                 <title>{} {}: {shown}</title></circle>",
                escape(name),
                repeat + 1
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Puts quotes around the values of attributes that have none.
fn quoted(html: &str) -> String {
    let mut xml = String::with_capacity(html.len() * 9 / 8);
    for (place, part) in html.split('<').enumerate() {
        if place == 0 {
            xml.push_str(part);
            continue;
        }
        let (tag, text) = part.split_once('>').unwrap_or((part, ""));
        xml.push('<');
        let mut is_quoted = false;
        for (place, word) in tag.split(' ').enumerate() {
            xml.push_str(if place > 0 { " " } else { "" });
            let value = word.split_once('=').filter(|(_, v)| !is_quoted && !v.starts_with('"'));
            match value {
                Some((name, value)) => {
                    let _ = write!(xml, "{name}=\"{value}\"");
                }
                None => xml.push_str(word),
            }
            is_quoted ^= word.matches('"').count() % 2 == 1;
        }
        let _ = write!(xml, ">{text}");
    }
    xml
}

/// Text made safe for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_all_values_and_end_at_round_numbers() {
        let rows: [(Scale, &[f64], f64, f64); 5] = [
            (Scale::Linear, &[3.0, 17.0], 0.0, 20.0),
            (Scale::Linear, &[0.0], 0.0, 1e-9),
            (Scale::Log, &[30.0, 4_000.0], 1.0, 4.0),
            (Scale::Log, &[10.0], 1.0, 2.0),
            (Scale::Nines, &[0.0, 0.9993], 0.0, 4.0),
        ];
        for (scale, values, low, high) in rows {
            let axis = Axis::new(scale, values.iter().copied());
            assert!((axis.low - low).abs() < 1e-9 && (axis.high - high).abs() < 1e-9);
            assert!(values.iter().all(|value| (0.0..=1.0).contains(&axis.place(*value))));
        }
    }

    /// Where each text of an SVG begins and ends, at 7 units a character: wider than the font.
    fn extents(svg: &str) -> Vec<(f64, f64, String)> {
        let texts = svg.split("<text x=").skip(1).map(|rest| {
            let (x, rest) = rest.split_once(' ').expect("an attribute follows");
            let (attributes, rest) = rest.split_once('>').expect("the tag ends");
            let words = rest.split("</text>").next().expect("the text ends").to_owned();
            let x: f64 = x.parse().expect("a number");
            let width = 7.0 * words.chars().count() as f64;
            let start = match attributes {
                a if a.contains("ytick") => x - width,
                a if a.contains("xtick") => x - width / 2.0,
                _ => x,
            };
            (start, start + width, words)
        });
        texts.collect()
    }

    #[test]
    fn no_text_of_a_chart_is_cut_off() {
        let points: Vec<(f64, f64)> = vec![(0.0, 150.0), (0.999, 12_000_000.0)];
        // Some wide enough for a line of their own.
        let series = ["response", "end to end", "service", "Apache Kafka acks=all flush=each"]
            .map(|name| Series::new(name, points.clone()));
        for x_scale in [Scale::Linear, Scale::Log, Scale::Nines] {
            let chart = Chart {
                title: "Median end-to-end time at the fixed rate".to_owned(),
                x_label: "percentile".to_owned(),
                x_scale,
                y_scale: Scale::Log,
                y_words: |us| crate::report::text::time(Some(us)),
                x_words: |x| format!("{:.1} %", x * 100.0),
                series: series.to_vec(),
            };
            let strip = strips("us", &[("Apache Kafka", &[3.0, 2350.25])], Some(9.0), &|v| {
                format!("{v:.2}")
            });
            for svg in [chart.svg(), strip] {
                for (start, end, words) in extents(&svg) {
                    assert!(
                        start >= 0.0 && end <= WIDTH + 1.0,
                        "{x_scale:?} {words}: {start} {end}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_chart_of_its_own_is_xml() {
        let rows = [
            (
                "<a x=1 class=\"b c=d\" y=2 />t=1<b/>",
                "<a x=\"1\" class=\"b c=d\" y=\"2\" />t=1<b/>",
            ),
            ("<svg viewBox=\"0 0 1 2\" role=img>", "<svg viewBox=\"0 0 1 2\" role=\"img\">"),
        ];
        for (html, xml) in rows {
            assert_eq!(quoted(html), xml);
        }
    }

    #[test]
    fn a_chart_names_its_series_and_every_point() {
        let mut chart = Chart {
            title: "a < b".to_owned(),
            x_label: "time, s".to_owned(),
            x_scale: Scale::Linear,
            y_scale: Scale::Log,
            y_words: |y| format!("{y} us"),
            x_words: |x| format!("{x} s"),
            series: vec![Series::new("p50", vec![(1.0, 10.0), (2.0, 70.0)])],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("p50: 70 us at 2 s"));
        assert_eq!(svg.matches("<circle").count(), 2);
        chart.series.clear();
        assert!(chart.svg().contains("no samples"));
    }
}

//! A canvas that becomes SVG text.

use crate::text::append;

/// Colours of series, for light pages and dark ones: told apart by those who see few colours, too
/// (after Okabe and Ito).
const LIGHT: [&str; 8] =
    ["#0067a5", "#c0580a", "#00795a", "#a8487d", "#8a6d00", "#3f8fc4", "#5b5b5b", "#7a3fb0"];
const DARK: [&str; 8] =
    ["#6cb6ee", "#f2994a", "#3fc79a", "#e08bbb", "#e3c94b", "#a9d3f2", "#b8b8b8", "#c09be8"];

/// Width of every figure.
pub(super) const WIDTH: f64 = 760.0;

/// Room that one letter of a label takes at most: labels are of a fixed-width face.
pub(super) const LETTER: f64 = 7.5;

/// Where a text is held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    /// At its first letter.
    Start,
    /// In its middle.
    Middle,
    /// At its last letter.
    End,
}

/// A drawing in the making.
#[derive(Debug)]
pub(super) struct Canvas {
    body: String,
    height: f64,
}

impl Canvas {
    /// An empty one of this height under a heading.
    pub(super) fn new(heading: &str, height: f64) -> Self {
        let mut canvas = Self { body: String::new(), height };
        append(&mut canvas.body, format_args!("<title>{}</title>\n", escaped(heading)));
        canvas.text(("h", Anchor::Start), (16.0, 24.0), heading);
        canvas
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        append(
            &mut self.body,
            format_args!(
                "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>\n",
                from.0, from.1, to.0, to.1
            ),
        );
    }

    /// A line through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        append(
            &mut self.body,
            format_args!("<polyline class=\"{class}\" points=\"{}\"/>\n", points.join(" ")),
        );
    }

    /// A dot that says more when pointed at.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64), title: &str) {
        append(
            &mut self.body,
            format_args!(
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title>\
                 </circle>\n",
                escaped(title)
            ),
        );
    }

    /// A box, as strong as `share`.
    pub(super) fn cell(&mut self, class: &str, at: (f64, f64), size: (f64, f64), share: f64) {
        append(
            &mut self.body,
            format_args!(
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill-opacity=\"{share:.2}\"/>\n",
                at.0, at.1, size.0, size.1
            ),
        );
    }

    /// Text.
    pub(super) fn text(&mut self, (class, anchor): (&str, Anchor), at: (f64, f64), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        append(
            &mut self.body,
            format_args!(
                "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}\
                 </text>\n",
                at.0,
                at.1,
                escaped(text)
            ),
        );
    }

    /// The whole drawing.
    pub(super) fn finish(self) -> String {
        let height = self.height;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
             width=\"{WIDTH:.0}\" height=\"{height:.0}\" role=\"img\">\n<style>\n"
        );
        text.push_str(
            "text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #222 }\n\
             .h { font: 600 15px system-ui, sans-serif }\n.n { fill: #666 }\n.w { fill: #fff }\n\
             .bg { fill: #fff }\n.g { stroke: #ddd }\n.a { stroke: #999 }\n\
             .heat { fill: #0067a5 }\n.best { fill: none; stroke: #c0580a; stroke-width: 2 }\n\
             polyline { fill: none; stroke-width: 2 }\n.r { stroke-width: 2 }\n",
        );
        text.push_str(&series(&LIGHT, ""));
        text.push_str(
            "@media (prefers-color-scheme: dark) {\n  text { fill: #ddd }\n  .n { fill: #999 }\n  \
             .w { fill: #111 }\n  .bg { fill: #16181c }\n  .g { stroke: #333 }\n  \
             .a { stroke: #777 }\n  .heat { fill: #6cb6ee }\n  .best { stroke: #f2994a }\n",
        );
        text.push_str(&series(&DARK, "  "));
        append(
            &mut text,
            format_args!(
                "}}\n</style>\n<rect class=\"bg\" width=\"{WIDTH:.0}\" height=\"{height:.0}\"/>\n"
            ),
        );
        text.push_str(&self.body);
        text.push_str("</svg>\n");
        text
    }
}

fn series(colours: &[&str; 8], indent: &str) -> String {
    let mut text = String::new();
    for (number, colour) in colours.iter().enumerate() {
        append(
            &mut text,
            format_args!(
                "{indent}.f{number} {{ fill: {colour} }}\n\
                 {indent}.s{number} {{ stroke: {colour} }}\n"
            ),
        );
    }
    text
}

/// The class of a series' strokes or fills; colours come again after eight.
pub(super) fn class(kind: char, number: usize) -> String {
    format!("{kind}{}", number % 8)
}

/// A label of so many letters at most, its end kept: that is where arms differ.
pub(super) fn short(text: &str, letters: usize) -> String {
    let count = text.chars().count();
    if count <= letters {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(count + 2 - letters).collect();
    format!("..{kept}")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() => escaped.push('?'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
